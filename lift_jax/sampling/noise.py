"""Noise and latents as files, to compare with other implementations.

They lie as in diffusers' pipelines, [F, C, h, w]: F latent frames, C channels,
h and w height and width in latents. A leading axis of 1 may be there.
"""

from collections.abc import Sequence
import dataclasses
import pathlib

import numpy as np

from lift_jax.errors import UserError
from lift_jax.runtime.files import atomic_path, file_sha256
from lift_jax.sampling.clips import Clip

Shape = tuple[int, int, int, int]  # F, h, w, C


def _open(path: pathlib.Path, shape: Shape) -> np.ndarray:
  """The array of a file, not read yet.

  Raises:
    UserError: no such file, or another array.
  """
  wanted = _channels_second(shape)
  try:
    # Not numpy.load, which also opens archives, and those have no shape.
    array = np.lib.format.open_memmap(path, mode='r')
  except FileNotFoundError:
    raise UserError(
      f'{path}: no such file; a folder of initial noise holds one NAME.npy for '
      'each video'
    ) from None
  except (OSError, ValueError) as error:
    reason = str(error).split('\n')[0]
    raise UserError(
      f'{path}: not an .npy file of numbers ({reason}); write it with '
      'numpy.save'
    ) from None
  if array.shape not in (wanted, (1, *wanted)):
    raise UserError(
      f'{path}: shape {array.shape}; these videos start from {wanted}: latent '
      'frames, channels, height, width'
    )
  if not np.issubdtype(array.dtype, np.floating):
    raise UserError(f'{path}: holds {array.dtype}; write floating point noise')
  return array


def with_initial_noise(
  clips: Sequence[Clip], folder: pathlib.Path, shape: Shape
) -> list[Clip]:
  """The clips, each with the hash of its file in `folder`.

  Raises:
    UserError: a file is missing, or holds another array.
  """
  started = []
  for clip in clips:
    path = folder / f'{clip.stem}.npy'
    _open(path, shape)
    started.append(dataclasses.replace(clip, initial_noise=file_sha256(path)))
  return started


def read_initial_noise(
  folder: pathlib.Path, clips: Sequence[Clip], shape: Shape
) -> np.ndarray:
  """Noise fp32 [B, F, h, w, C] of B clips.

  Raises:
    UserError: a file is missing, is of another shape or not finite.
  """
  noise = []
  for clip in clips:
    path = folder / f'{clip.stem}.npy'
    array = np.array(_open(path, shape), np.float32)
    array = array.reshape(_channels_second(shape))
    if not np.isfinite(array).all():
      raise UserError(f'{path}: holds NaN or infinity; write it again')
    noise.append(np.moveaxis(array, 1, -1))
  return np.stack(noise)


def _channels_second(shape: Shape) -> Shape:
  frames, height, width, channels = shape
  return frames, channels, height, width


def write_latents(path: pathlib.Path, latents_fhwc: np.ndarray) -> None:
  """Writes scaled latents fp32 [F, C, h, w], beside and then renamed."""
  with atomic_path(path) as partial, open(partial, 'wb') as file:
    np.save(file, np.moveaxis(latents_fhwc, -1, 1), allow_pickle=False)
