"""Sizes of latents and of decoded videos."""

import jax
import numpy as np

from lift_jax.errors import UserError
from lift_jax.models.functional import FunctionalModel
from lift_jax.models.generators import VideoModel
from lift_jax.sampling import programs
from lift_jax.sampling.config import VideoConfig

LatentShape = tuple[int, int, int, int]  # F, h, w, C


def latent_shape(model: VideoModel, video: VideoConfig) -> LatentShape:
  """(F, h, w, C) of a clip.

  Raises:
    UserError: a size or a number of frames that the model cannot generate.
  """
  grid = model.latent_grid
  for name in ('height', 'width'):
    size = getattr(video, name)
    if size < grid.multiple or size % grid.multiple:
      raise UserError(
        f'video.{name} is {size}; this model needs multiples of '
        f'{grid.multiple} pixels'
      )
  groups, rest = divmod(video.num_frames - 1, grid.frames)
  if video.num_frames < 1 or rest:
    near = max(groups, 0) * grid.frames + 1
    raise UserError(
      f'video.num_frames is {video.num_frames}; this model needs '
      f'{grid.frames} k + 1 frames, such as {near} or {near + grid.frames}'
    )
  height, width = video.height // grid.pixels, video.width // grid.pixels
  return groups + 1, height, width, grid.channels


def decoded_frames(
  model: VideoModel,
  vae: FunctionalModel,
  video: VideoConfig,
) -> int:
  """Number of frames that the decoder returns, possibly more than requested.

  The decoder of CogVideoX decodes two latent frames at a time, and only in a
  chunk of three does the first become a single frame. So 8 k + 1 frames are
  decoded as such, and 8 k + 5 frames as three more, as in the reference.

  Raises:
    UserError: its tiles decode to another size.
  """
  decoded = programs.decode_latents.eval_shape(
    vae,
    vae.abstract_params,
    jax.ShapeDtypeStruct((1, *latent_shape(model, video)), np.float32),
    model.latent_scale,
    video.tiling,
  )
  _, num_frames, height, width, _ = decoded.shape
  if (height, width) != (video.height, video.width):
    # Overlaps are rounded down to integer latents, so that for some sizes tiles
    # cover a row or column twice.
    raise UserError(
      f'video: {video.height} x {video.width} pixels decode to {height} x '
      f'{width}: the tiles of this autoencoder do not join exactly; choose '
      'another size, or set video.tiling = False'
    )
  return num_frames
