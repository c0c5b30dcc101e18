"""A handful of scored procedural clips, so that a demo needs no data.

Each clip shows one coloured shape that moves over a plain background. Some are
made worse along the three dimensions that LiFT's annotators rate, and scored
by the same arithmetic: what the caption says (the shape has another colour),
how the image looks (noise), how it moves (jitter).

  folder/videos/clip_000.mp4 ...   folder/videos/real_0.mp4 ...
  folder/alignment.json            folder/real.json
  folder/hra.json                  what an annotator would say, where asked
"""

from collections.abc import Mapping
import dataclasses
import json
import os
import pathlib
import shutil
from typing import Any
import uuid

import numpy as np

from lift_jax.data import video
from lift_jax.data.hra import DIMENSIONS, conversation
from lift_jax.errors import UserError
from lift_jax.runtime.files import write_json

NUM_REAL = 2

_RECIPE_FILE = 'recipe.json'
_FORMAT = 2  # goes up when the same arguments give other files

# Worth of a rating; a score is the mean of three, to two digits
# (CogVideo/process_reward_score.py of the LiFT repository).
_GOOD, _NORMAL, _BAD = 0.9, 0.2, 0.05

_COLOURS = {
  'red': (214, 48, 49),
  'green': (39, 174, 96),
  'blue': (41, 98, 255),
  'yellow': (241, 196, 15),
  'purple': (142, 68, 173),
}
_BACKGROUNDS = {
  'white': (236, 240, 241),
  'grey': (120, 124, 128),
  'black': (24, 24, 28),
}
_SHAPES = ('circle', 'square', 'diamond')
# Where a path starts and ends, as fractions of height and width.
_PATHS = {
  'from left to right': ((0.5, 0.2), (0.5, 0.8)),
  'from right to left': ((0.5, 0.8), (0.5, 0.2)),
  'upwards': ((0.8, 0.5), (0.2, 0.5)),
  'downwards': ((0.2, 0.5), (0.8, 0.5)),
}


@dataclasses.dataclass(frozen=True)
class _Flaws:
  """Ratings of one clip along the three dimensions."""

  semantic: float = _GOOD
  fidelity: float = _GOOD
  motion: float = _GOOD

  @property
  def score(self) -> float:
    return round((self.semantic + self.fidelity + self.motion) / 3, 2)


# What an annotator says of a rating, dimension by dimension.
_RATIONALES = {
  'semantic': {
    _GOOD: 'The shape has the colour of the caption.',
    _BAD: 'The shape has another colour than the caption says.',
  },
  'fidelity': {
    _GOOD: 'The image is clean.',
    _NORMAL: 'There is some noise in the image.',
    _BAD: 'Noise covers the whole image.',
  },
  'motion': {
    _GOOD: 'The shape moves smoothly.',
    _NORMAL: 'The shape trembles a little on its way.',
    _BAD: 'The shape jumps about from frame to frame.',
  },
}
_LABELS = {_GOOD: 'Good', _NORMAL: 'Normal', _BAD: 'Bad'}

_FLAWS = (
  _Flaws(),
  _Flaws(fidelity=_NORMAL),
  _Flaws(motion=_BAD),
  _Flaws(semantic=_BAD, motion=_NORMAL),
  _Flaws(semantic=_BAD, fidelity=_BAD, motion=_BAD),
)

# How strong a flaw is: noise in levels of 255, jitter as a fraction of the
# shorter side.
_NOISE = {_GOOD: 0.0, _NORMAL: 25.0, _BAD: 70.0}
_JITTER = {_GOOD: 0.0, _NORMAL: 0.04, _BAD: 0.12}


@dataclasses.dataclass(frozen=True)
class SampleClipsConfig:
  """How many clips are made, and of what size; 0 clips: none."""

  num_clips: int
  num_frames: int
  height: int
  width: int


def make_sample_clips(
  folder: str | pathlib.Path,
  num_clips: int,
  num_frames: int,
  height: int,
  width: int,
  fps: int = 8,
  seed: int = 0,
  questions: Mapping[str, str] | None = None,
) -> None:
  """Writes clips and their alignment files, unless they are there already.

  Equal arguments give equal pixels. The folder is built beside and renamed
  when it is whole.

  Args:
    folder: to be made, with `alignment.json` and `real.json` in it.
    num_clips: clips in `alignment.json`; `real.json` has two more.
    num_frames: frames of each clip.
    height: even, in pixels.
    width: even, in pixels.
    fps: frames per second.
    seed: of everything that is drawn by lot.
    questions: by dimension; with them there is also `hra.json`.

  Raises:
    UserError: the folder holds something else.
  """
  folder = pathlib.Path(folder)
  recipe = {
    'num_clips': num_clips,
    'num_frames': num_frames,
    'height': height,
    'width': width,
    'fps': fps,
    'seed': seed,
    'format': _FORMAT,
    'questions': dict(questions or {}),
  }
  if _is_complete(folder, recipe):
    return
  folder.parent.mkdir(parents=True, exist_ok=True)
  partial = folder.with_name(f'.{folder.name}.{uuid.uuid4().hex}.partial')
  try:
    (partial / 'videos').mkdir(parents=True)
    alignment, real, feedback = [], [], []
    for index in range(num_clips + NUM_REAL):
      is_real = index >= num_clips
      flaws = _Flaws() if is_real else _FLAWS[index % len(_FLAWS)]
      name = f'real_{index - num_clips}' if is_real else f'clip_{index:03d}'
      rng = np.random.default_rng((seed, index))
      caption, frames_thw3 = _clip(rng, num_frames, height, width, flaws)
      item = {'video': f'videos/{name}.mp4', 'caption': caption}
      video.write_mp4(partial / item['video'], frames_thw3, fps)
      if is_real:
        real.append(item)
      else:
        alignment.append(item | {'score': flaws.score})
        feedback += _feedback(item, flaws, questions or {})
    write_json(partial / 'alignment.json', alignment)
    write_json(partial / 'real.json', real)
    if questions:
      write_json(partial / 'hra.json', feedback)
    write_json(partial / _RECIPE_FILE, recipe)
    try:
      os.rename(partial, folder)
    except OSError:
      # Another process was faster; what it made is as good.
      if not _is_complete(folder, recipe):
        raise
  finally:
    shutil.rmtree(partial, ignore_errors=True)


def _feedback(
  item: Mapping[str, str], flaws: _Flaws, questions: Mapping[str, str]
) -> list[dict[str, Any]]:
  """One published entry for each dimension of a clip."""
  entries = []
  for dimension in DIMENSIONS if questions else ():
    rating = getattr(flaws, dimension)
    entries.append(
      conversation(
        item['video'],
        item['caption'],
        questions[dimension],
        _LABELS[rating],
        _RATIONALES[dimension][rating],
      )
    )
  return entries


def _is_complete(folder: pathlib.Path, recipe: dict[str, Any]) -> bool:
  """Whether the folder holds these clips; False if it is free to be made."""
  if not folder.exists():
    return False
  if not folder.is_dir():
    raise UserError(f'{folder}: is a file; name a folder for sample clips')
  recipe_path = folder / _RECIPE_FILE
  try:
    found = json.loads(recipe_path.read_text(encoding='utf-8'))
  except (OSError, ValueError):
    if any(folder.iterdir()):
      raise UserError(
        f'{folder}: holds other files than sample clips; name a new folder'
      ) from None
    return False
  if found != recipe:
    raise UserError(
      f'{recipe_path}: sample clips were made with other settings; delete '
      'the folder or name a new one'
    )
  return True


def _clip(
  rng: np.random.Generator,
  num_frames: int,
  height: int,
  width: int,
  flaws: _Flaws,
) -> tuple[str, np.ndarray]:
  """A caption, and uint8 frames [T, H, W, 3] that follow it more or less."""
  colour, other_colour = rng.choice(list(_COLOURS), 2, replace=False)
  background = rng.choice(list(_BACKGROUNDS))
  shape = rng.choice(_SHAPES)
  path = rng.choice(list(_PATHS))
  caption = (
    f'A {colour} {shape} moves {path} over a plain {background} background.'
  )
  drawn_colour = colour if flaws.semantic == _GOOD else other_colour
  short_side = min(height, width)
  start_2, end_2 = (np.array(point) for point in _PATHS[path])
  frames_thw3 = np.empty((num_frames, height, width, 3), np.uint8)
  for index in range(num_frames):
    progress = index / max(1, num_frames - 1)
    centre_2 = (start_2 + (end_2 - start_2) * progress) * (height, width)
    centre_2 += rng.normal(0, 1, 2) * _JITTER[flaws.motion] * short_side
    mask_hw = _mask(shape, centre_2, 0.18 * short_side, height, width)
    image_hw3 = np.where(
      mask_hw[:, :, None], _COLOURS[drawn_colour], _BACKGROUNDS[background]
    )
    noise_hw3 = rng.normal(0, 1, image_hw3.shape) * _NOISE[flaws.fidelity]
    frames_thw3[index] = np.clip(np.rint(image_hw3 + noise_hw3), 0, 255)
  return caption, frames_thw3


def _mask(
  shape: str, centre_2: np.ndarray, radius: float, height: int, width: int
) -> np.ndarray:
  """Which pixels [H, W] the shape covers."""
  down_h1 = np.abs(np.arange(height) + 0.5 - centre_2[0])[:, None]
  right_1w = np.abs(np.arange(width) + 0.5 - centre_2[1])[None, :]
  match shape:
    case 'circle':
      distance_hw = np.hypot(down_h1, right_1w)
    case 'square':
      distance_hw = np.maximum(down_h1, right_1w)
    case 'diamond':
      distance_hw = down_h1 + right_1w
  return distance_hw <= radius
