"""Files of initial noise and latents, to compare with other implementations.

The layout is that of diffusers' pipelines, [F, C, h, w]: F latent frames, C
channels, h and w height and width in latents. A leading axis of 1 is allowed.
"""

from collections.abc import Callable, Sequence
import dataclasses
import pathlib

import numpy as np

from lift_jax.errors import UserError
from lift_jax.runtime import storage
from lift_jax.runtime.files import atomic_path, file_sha256
from lift_jax.sampling.clips import Clip

Shape = tuple[int, int, int, int]  # F, h, w, C


def _open(path: pathlib.Path, shape: Shape) -> np.ndarray:
  """The array of a file, memory-mapped.

  Raises:
    UserError: no such file, or an array of another shape or dtype.
  """
  wanted = _channels_second(shape)
  try:
    # Unlike numpy.load, this rejects archives.
    array = np.lib.format.open_memmap(storage.local_copy(path), mode='r')
  except FileNotFoundError:
    raise UserError(
      f'{path}: no such file; a folder of initial noise needs one NAME.npy for '
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
      f'{path}: shape {array.shape}, but these videos need {wanted}: latent '
      'frames, channels, height, width; write it in that shape'
    )
  if not np.issubdtype(array.dtype, np.floating):
    raise UserError(f'{path}: dtype {array.dtype}; write floating-point noise')
  return array


def with_initial_noise(
  clips: Sequence[Clip],
  folder: pathlib.Path,
  shape: Shape,
  sha256: Callable[[pathlib.Path], str] = file_sha256,
) -> list[Clip]:
  """The clips, each with the hash of its file in `folder`.

  Args:
    clips: all of them.
    folder: of the files.
    shape: of the noise of a clip.
    sha256: hashes a file.

  Raises:
    UserError: a file is missing, or its array has another shape or dtype.
  """
  started = []
  for clip in clips:
    path = folder / f'{clip.stem}.npy'
    _open(path, shape)
    started.append(dataclasses.replace(clip, initial_noise=sha256(path)))
  return started


def read_initial_noise(
  folder: pathlib.Path, clips: Sequence[Clip], shape: Shape
) -> np.ndarray:
  """Noise fp32 [B, F, h, w, C] of B clips.

  Raises:
    UserError: a file is missing, has another shape or is not finite.
  """
  noise = []
  for clip in clips:
    path = folder / f'{clip.stem}.npy'
    array = np.array(_open(path, shape), np.float32)
    array = array.reshape(_channels_second(shape))
    if not np.isfinite(array).all():
      raise UserError(f'{path}: contains NaN or infinity; write it again')
    noise.append(np.moveaxis(array, 1, -1))
  return np.stack(noise)


def _channels_second(shape: Shape) -> Shape:
  frames, height, width, channels = shape
  return frames, channels, height, width


def write_latents(path: pathlib.Path, latents_fhwc: np.ndarray) -> None:
  """Writes scaled latents fp32 as [F, C, h, w], atomically."""
  with atomic_path(path) as partial, open(partial, 'wb') as file:
    np.save(file, np.moveaxis(latents_fhwc, -1, 1), allow_pickle=False)
