"""Latents of a video autoencoder: their grid, and their normalisation."""

import dataclasses

import jax
import numpy as np


@dataclasses.dataclass(frozen=True)
class LatentGrid:
  """Compression of the autoencoder, and the video sizes that a model takes.

  A video of r k + 1 frames has k + 1 latent frames.

  Attributes:
    frames: r, video frames per latent frame.
    pixels: pixels per latent, in height and in width.
    multiple: height and width of a video must be multiples of it.
    channels: latent channels.
  """

  frames: int
  pixels: int
  multiple: int
  channels: int


@dataclasses.dataclass(frozen=True)
class LatentScale:
  """Normalisation of autoencoder latents z to transformer inputs x.

  x = factor (z - mean)

  Attributes:
    factor: one number, or one per channel.
    mean: one per channel; empty for zero.
  """

  factor: float | tuple[float, ...]
  mean: tuple[float, ...] = ()

  def normalize(self, z: jax.Array) -> jax.Array:
    """z [..., C] to x [..., C]."""
    if self.mean:
      z = z - _per_channel(self.mean, z.ndim)
    return z * _per_channel(self.factor, z.ndim)

  def denormalize(self, x: jax.Array) -> jax.Array:
    """x [..., C] to z [..., C]."""
    z = x / _per_channel(self.factor, x.ndim)
    if self.mean:
      z = z + _per_channel(self.mean, x.ndim)
    return z


def _per_channel(
  values: float | tuple[float, ...], rank: int
) -> float | np.ndarray:
  """Per-channel values reshaped to [1, ..., C]; a scalar is unchanged."""
  if not isinstance(values, tuple):
    return values
  return np.array(values, np.float32).reshape((1,) * (rank - 1) + (-1,))
