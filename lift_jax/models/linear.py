"""A dense layer, y = x W + b, that trains fast on CPUs too.

It is `nnx.Linear`, but on CPUs all batch axes are flattened into one. For the
gradient of a kernel, a sum over these axes, XLA's CPU backend otherwise
transposes the gradient of y and uses a slow matrix product. TPUs and GPUs need
no such help.
"""

import functools

from flax import nnx
import jax
from jax import lax

from lift_jax import partitioning


def _dot_general(x: jax.Array, kernel_df: jax.Array, dimension_numbers, **more):
  """The `dot_general` of `nnx.Linear`: [..., D] times [D, F]."""
  # Batch and tokens cannot be flattened into one axis if both are sharded.
  if partitioning.platform() != 'cpu' or partitioning.splits_tokens():
    return lax.dot_general(x, kernel_df, dimension_numbers, **more)
  y_nf = lax.dot_general(
    x.reshape(-1, x.shape[-1]), kernel_df, (((1,), (0,)), ((), ())), **more
  )
  return y_nf.reshape(*x.shape[:-1], -1)


Linear = functools.partial(nnx.Linear, dot_general=_dot_general)
