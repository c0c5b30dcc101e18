"""Parameters that apply to every row, and how their gradients are summed.

B batch  N tokens  D width

A bias that is added to every token, or a scale, has a gradient that is a sum
over all tokens. In bfloat16 XLA's CPU backend takes eighty times as long for
such a sum as for a matrix product of the same size: a quarter of a training
step. So there it is a product. Values are those of broadcasting, bit for bit;
float32, TPUs and GPUs need no such help.
"""

import functools
import math

import jax
import jax.numpy as jnp

from lift_jax import partitioning


def sums_by_products(dtype: jax.typing.DTypeLike) -> bool:
  """Whether gradients of this type are summed by matrix products."""
  return jnp.dtype(dtype) == jnp.bfloat16 and partitioning.flattens_tokens()


def in_rows(row_d: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """A row [D] as an array that broadcasts to a shape [..., D]."""
  if sums_by_products(row_d.dtype):
    return _in_rows(row_d, shape)
  return jnp.reshape(row_d, (1,) * (len(shape) - 1) + (-1,))


@functools.partial(jax.custom_vjp, nondiff_argnums=(1,))
def _in_rows(row_d, shape):
  return jnp.broadcast_to(row_d, shape)


def _in_rows_forward(row_d, shape):
  return _in_rows(row_d, shape), None


def _in_rows_backward(shape, _, gradient):
  count = math.prod(shape[:-1])
  ones_n = jnp.ones((count,), gradient.dtype)
  return (ones_n @ gradient.reshape(count, shape[-1]),)


_in_rows.defvjp(_in_rows_forward, _in_rows_backward)


def where_rows(
  is_first_n: jax.Array, first_b1d: jax.Array, second_b1d: jax.Array
) -> jax.Array:
  """For every token the row of the first array or of the second, [B, N, D].

  Args:
    is_first_n: bool [N].
    first_b1d: a row for each example, [B, 1, D].
    second_b1d: another one.
  """
  if sums_by_products(first_b1d.dtype):
    return _where_rows(is_first_n, first_b1d, second_b1d)
  return jnp.where(is_first_n[None, :, None], first_b1d, second_b1d)


@jax.custom_vjp
def _where_rows(is_first_n, first_b1d, second_b1d):
  return jnp.where(is_first_n[None, :, None], first_b1d, second_b1d)


def _where_rows_forward(is_first_n, first_b1d, second_b1d):
  return _where_rows(is_first_n, first_b1d, second_b1d), is_first_n


def _where_rows_backward(is_first_n, gradient_bnd):
  is_of_sn = jnp.stack([is_first_n, ~is_first_n]).astype(gradient_bnd.dtype)
  sums_bsd = jnp.einsum('sn,bnd->bsd', is_of_sn, gradient_bnd)
  return None, sums_bsd[:, :1], sums_bsd[:, 1:]


_where_rows.defvjp(_where_rows_forward, _where_rows_backward)
