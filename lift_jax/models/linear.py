"""A dense layer, y = x W + b, that CPUs train fast too.

It is `nnx.Linear`, which on CPUs sees the tokens of all rows as one row. For
the gradient of a kernel, a sum over rows and tokens, XLA there moves the
gradient of y into another order, and then takes a slow product; over a single
axis it does neither. Compilers for TPUs and GPUs do not mind.
"""

import functools

from flax import nnx
import jax
from jax import lax

from lift_jax import partitioning


def _dot_general(x: jax.Array, kernel_df: jax.Array, dimension_numbers, **more):
  """What `nnx.Linear` calls: [..., D] times [D, F]."""
  # Rows and tokens that are both cut do not make one axis.
  if partitioning.platform() != 'cpu' or partitioning.splits_tokens():
    return lax.dot_general(x, kernel_df, dimension_numbers, **more)
  y_nf = lax.dot_general(
    x.reshape(-1, x.shape[-1]), kernel_df, (((1,), (0,)), ((), ())), **more
  )
  return y_nf.reshape(*x.shape[:-1], -1)


Linear = functools.partial(nnx.Linear, dot_general=_dot_general)
