"""Frames of a clip for Qwen3-VL: sampling, sizes, patches.

The rules are those of Qwen3VLVideoProcessor of transformers.

Legend: T frames, H height, W width, P pairs of frames, N patches of a pair, X
pixel values of a patch.
"""

from collections.abc import Sequence
import dataclasses
import math

import jax
import numpy as np

from lift_jax.errors import UserError
from lift_jax.models.critic_protocols import ClipMetadata, FrameSelection
from lift_jax.models.frames import resize_bicubic
from lift_jax.models.qwen3vl.config import (
  MERGE_SIZE,
  PATCH_FRAMES,
  PATCH_SIZE,
  QwenVideoConfig,
)

# Frames per second of a clip that does not say.
_FPS = 24.0
# Sides of a frame are multiples of this.
_FACTOR = PATCH_SIZE * MERGE_SIZE
_MAX_ASPECT_RATIO = 200
# Tokens of '<999.9 seconds><|vision_start|><|vision_end|>', which has the
# longest time that is expected.
_TIMESTAMP_TOKENS = 10
# Tokens around a clip in the nested template.
_CLIP_TOKENS = 2

NUM_PIXEL_VALUES = PATCH_FRAMES * PATCH_SIZE**2 * 3


@dataclasses.dataclass(frozen=True)
class PatchSelection(FrameSelection):
  """Frames with the grid of their patches.

  Attributes:
    grid: rows and columns of patches in a frame.
    timestamps: the time of each pair of frames, in seconds.
  """

  grid: tuple[int, int]
  timestamps: tuple[float, ...]

  @property
  def shape(self) -> tuple[int, ...]:
    return len(self.timestamps), math.prod(self.grid)

  @property
  def tokens_per_patch(self) -> int:
    """Tokens of a pair of frames."""
    return math.prod(self.grid) // MERGE_SIZE**2


def sample_frames(
  config: QwenVideoConfig, num_frames: int, fps: float
) -> list[int]:
  """Indices of the frames to take, evenly spaced, in ascending order.

  With `config.num_frames`, frames of a shorter clip are repeated.

  Args:
    config: how many.
    num_frames: of the clip.
    fps: frames per second of the clip; 0 if unknown.
  """
  if config.num_frames is not None:
    count = config.num_frames
  else:
    assert config.fps is not None  # one of them is given
    count = int(num_frames / (fps or _FPS) * config.fps)
    count = min(max(count, config.min_frames), config.max_frames, num_frames)
  return np.linspace(0, num_frames - 1, count).round().astype(int).tolist()


def resized(
  num_frames: int, height: int, width: int, config: QwenVideoConfig
) -> tuple[int, int]:
  """Height and width that frames are resized to.

  They are multiples of 32, as close to the size and aspect ratio of the clip as
  the limits on the pixels of all its frames allow.

  Raises:
    UserError: one side is more than 200 times the other.
  """
  scale = max(1.0, _FACTOR / height, _FACTOR / width)
  if scale > 1:
    height, width = int(height * scale), int(width * scale)
  if max(height, width) > _MAX_ASPECT_RATIO * min(height, width):
    raise UserError(
      f'a clip of {height} x {width} pixels: one side is more than '
      f'{_MAX_ASPECT_RATIO} times the other; crop it'
    )
  # Half to even, as Python rounds.
  sides = [round(side / _FACTOR) * _FACTOR for side in (height, width)]
  total = round(num_frames / PATCH_FRAMES) * PATCH_FRAMES * math.prod(sides)
  exact = num_frames * height * width
  if total > config.max_pixels:
    shrink = math.sqrt(exact / config.max_pixels)
    sides = [
      max(_FACTOR, math.floor(side / shrink / _FACTOR) * _FACTOR)
      for side in (height, width)
    ]
  elif total < config.min_pixels:
    grow = math.sqrt(config.min_pixels / exact)
    sides = [
      math.ceil(side * grow / _FACTOR) * _FACTOR for side in (height, width)
    ]
  return sides[0], sides[1]


def timestamps(indices: Sequence[int], fps: float) -> tuple[float, ...]:
  """The mean time of each pair of frames, in seconds.

  The last frame of an odd number is a pair by itself.
  """
  first = indices[::PATCH_FRAMES]
  last = indices[PATCH_FRAMES - 1 :: PATCH_FRAMES]
  last = [*last, *first[len(last) :]]
  return tuple(
    (a / fps + b / fps) / 2 for a, b in zip(first, last, strict=True)
  )


def to_patches(frames_thw3: np.ndarray) -> np.ndarray:
  """Pixels of patches, [P, N, X], in the order of the published network.

  Blocks of 2 x 2 patches, which are merged into a token, are row-major in a
  frame, and patches are row-major in a block. The values of a patch are in the
  order frame, row, column, colour. An odd last frame is repeated.
  """
  num_frames, height, width, _ = frames_thw3.shape
  if num_frames % PATCH_FRAMES:
    frames_thw3 = np.concatenate([frames_thw3, frames_thw3[-1:]])
  split = frames_thw3.reshape(
    -1,
    PATCH_FRAMES,
    height // _FACTOR,
    MERGE_SIZE,
    PATCH_SIZE,
    width // _FACTOR,
    MERGE_SIZE,
    PATCH_SIZE,
    3,
  )
  blocks = split.transpose(0, 2, 5, 3, 6, 1, 4, 7, 8)
  num_patches = height * width // PATCH_SIZE**2
  return blocks.reshape(-1, num_patches, NUM_PIXEL_VALUES)


@dataclasses.dataclass(frozen=True)
class QwenFrames:
  """Frames as patches; see `critic_protocols.FrameProcessor`.

  The arrays of a clip are 'patches', uint8 [P, N, X], and 'grid', int32 [2]:
  rows and columns of patches. Clips of equal shapes may have different grids.
  """

  config: QwenVideoConfig

  def select(self, clip: ClipMetadata) -> PatchSelection:
    indices = sample_frames(self.config, clip.num_frames, clip.fps)
    # One frame is a pair by itself.
    height, width = resized(
      max(len(indices), PATCH_FRAMES), clip.height, clip.width, self.config
    )
    grid = height // PATCH_SIZE, width // PATCH_SIZE
    times = timestamps(indices, clip.fps or _FPS)
    tokens = math.prod(grid) // MERGE_SIZE**2
    return PatchSelection(
      tuple(indices),
      len(times) * (tokens + _TIMESTAMP_TOKENS) + _CLIP_TOKENS,
      is_short=clip.num_frames
      < (self.config.num_frames or self.config.min_frames),
      grid=grid,
      timestamps=times,
    )

  def preprocess(
    self, frames_thw3: np.ndarray, selection: PatchSelection
  ) -> dict[str, np.ndarray]:
    height, width = (side * PATCH_SIZE for side in selection.grid)
    return {
      'patches': to_patches(resize_bicubic(frames_thw3, height, width)),
      'grid': np.array(selection.grid, np.int32),
    }

  def shapes(
    self, selection: PatchSelection
  ) -> dict[str, jax.ShapeDtypeStruct]:
    num_patches = len(selection.timestamps), math.prod(selection.grid)
    return {
      'patches': jax.ShapeDtypeStruct(
        (*num_patches, NUM_PIXEL_VALUES), np.uint8
      ),
      'grid': jax.ShapeDtypeStruct((2,), np.int32),
    }
