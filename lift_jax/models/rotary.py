"""Rotary position embeddings (arXiv 2104.09864).

A pair is dimension k of the first half of a head and dimension k of the second;
it turns by the position times the rate of the pair.

Legend: B batch, N tokens, H heads, K width of a head.
"""

import jax
import jax.numpy as jnp
import numpy as np


def rotary_rates(dim: int, theta: float) -> np.ndarray:
  """theta^(-2k/dim) for the dim / 2 pairs k, in radians per position."""
  return theta ** (-np.arange(0, dim, 2) / dim)


def rotary_tables(
  positions_bnk: jax.Array, rates_k: np.ndarray
) -> tuple[jax.Array, jax.Array]:
  """Cosines and sines, fp32 [B, N, K / 2].

  Args:
    positions_bnk: numbers [B, N, K / 2] for each pair, or [B, N, 1] for all.
    rates_k: [K / 2], radians per position.
  """
  rates_11k = jnp.asarray(rates_k, jnp.float32)[None, None, :]
  angles_bnk = positions_bnk.astype(jnp.float32) * rates_11k
  return jnp.cos(angles_bnk), jnp.sin(angles_bnk)


def rotate(x_bnhk: jax.Array, tables: tuple[jax.Array, jax.Array]) -> jax.Array:
  """Turns the pairs (x[k], x[K/2 + k]) of every head, in fp32."""
  cos, sin = (table[:, :, None, :] for table in tables)
  first, second = jnp.split(x_bnhk.astype(jnp.float32), 2, axis=-1)
  turned = jnp.concatenate(
    [first * cos - second * sin, second * cos + first * sin], axis=-1
  )
  return turned.astype(x_bnhk.dtype)
