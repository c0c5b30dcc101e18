"""A dense layer, y = x W + b, that trains fast on CPUs too.

It is `nnx.Linear`, but on CPUs all batch axes are flattened into one. For the
gradient of a kernel, a sum over these axes, XLA's CPU backend otherwise
transposes the gradient of y and uses a slow matrix product. TPUs and GPUs need
no such help. Its kernel may be quantized (see `quantization`).
"""

from typing import Any

from flax import nnx
from flax.nnx.nn import dtypes as nnx_dtypes
import jax
from jax import lax

from lift_jax import partitioning
from lift_jax.models import quantization
from lift_jax.models.rows import in_rows


def matmul(x: jax.Array, kernel_df: jax.Array, **more: Any) -> jax.Array:
  """[..., D] times [D, F], as a layer computes it.

  Args:
    x: activations.
    kernel_df: may be quantized.
    **more: of `jax.lax.dot_general`.
  """
  contracted = ((x.ndim - 1,), (0,)), ((), ())
  if quantization.is_quantized(kernel_df):
    return quantization.dot_general(x, kernel_df, contracted, **more)
  if not partitioning.flattens_tokens():
    return lax.dot_general(x, kernel_df, contracted, **more)
  y_nf = lax.dot_general(
    x.reshape(-1, x.shape[-1]), kernel_df, (((1,), (0,)), ((), ())), **more
  )
  return y_nf.reshape(*x.shape[:-1], -1)


def _promote_dtype(arrays: Any, /, *, dtype: Any = None, **more: Any) -> Any:
  """The `promote_dtype` of `nnx.Linear`: input, kernel and bias."""
  x, kernel_df, bias_f = arrays
  if not quantization.is_quantized(kernel_df):
    return nnx_dtypes.promote_dtype(arrays, dtype=dtype, **more)
  x, bias_f = nnx_dtypes.promote_dtype((x, bias_f), dtype=dtype, **more)
  return x, kernel_df.astype(x.dtype), bias_f


class Linear(nnx.Linear):
  """See above.

  Arguments are those of `nnx.Linear`, except `dot_general` and
  `promote_dtype`, which it has of its own: to give one is a TypeError.
  """

  def __init__(self, in_features: int, out_features: int, **options: Any):
    # Flax's default is given, so that a caller cannot give another one.
    super().__init__(
      in_features,
      out_features,
      dot_general=lax.dot_general,
      promote_dtype=_promote_dtype,
      **options,
    )

  def __call__(self, inputs: jax.Array, out_sharding: Any = None) -> jax.Array:
    bias_f = None if self.bias is None else self.bias[...]
    x, kernel_df, bias_f = self.promote_dtype(
      (inputs, self.kernel[...], bias_f), dtype=self.dtype
    )
    y = matmul(
      x,
      kernel_df,
      precision=self.precision,
      preferred_element_type=self.preferred_element_type,
      out_sharding=out_sharding,
    )
    return y if bias_f is None else y + in_rows(bias_f.astype(y.dtype), y.shape)
