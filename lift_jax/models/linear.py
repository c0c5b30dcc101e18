"""A dense layer, y = x W + b, that trains fast on CPUs too.

It is `nnx.Linear`, but on CPUs all batch axes are flattened into one. For the
gradient of a kernel, a sum over these axes, XLA's CPU backend otherwise
transposes the gradient of y and uses a slow matrix product. TPUs and GPUs need
no such help. Its kernel may be quantized (see `quantization`).
"""

import functools
from typing import Any

from flax import nnx
from flax.nnx.nn import dtypes as nnx_dtypes
import jax
from jax import lax

from lift_jax import partitioning
from lift_jax.models import quantization


def _dot_general(x: jax.Array, kernel_df: jax.Array, dimension_numbers, **more):
  """The `dot_general` of `nnx.Linear`: [..., D] times [D, F]."""
  if quantization.is_quantized(kernel_df):
    return quantization.dot_general(x, kernel_df, dimension_numbers, **more)
  # Batch and tokens cannot be flattened into one axis if both are sharded.
  if partitioning.platform() != 'cpu' or partitioning.splits_tokens():
    return lax.dot_general(x, kernel_df, dimension_numbers, **more)
  y_nf = lax.dot_general(
    x.reshape(-1, x.shape[-1]), kernel_df, (((1,), (0,)), ((), ())), **more
  )
  return y_nf.reshape(*x.shape[:-1], -1)


def matmul(x: jax.Array, kernel_df: jax.Array) -> jax.Array:
  """[..., D] times [D, F], as a layer computes it."""
  return _dot_general(x, kernel_df, (((x.ndim - 1,), (0,)), ((), ())))


def _promote_dtype(arrays: Any, /, *, dtype: Any = None, **more: Any) -> Any:
  """The `promote_dtype` of `nnx.Linear`: input, kernel and bias."""
  x, kernel_df, bias_f = arrays
  if not quantization.is_quantized(kernel_df):
    return nnx_dtypes.promote_dtype(arrays, dtype=dtype, **more)
  x, bias_f = nnx_dtypes.promote_dtype((x, bias_f), dtype=dtype, **more)
  return x, kernel_df.astype(x.dtype), bias_f


Linear = functools.partial(
  nnx.Linear, dot_general=_dot_general, promote_dtype=_promote_dtype
)
