"""Judges clips of the toy world by their pixels and their captions alone.

A clip is measured first (see `measures`). Two tolerances for each measure then
separate Good from Normal and Normal from Bad, and what the clip shows is
compared with the caption.

Shape suffixes: T frames, H height, W width; the last axis of 3 is RGB.
"""

import dataclasses
import pathlib
from typing import NamedTuple

import numpy as np

from lift_jax.data import video
from lift_jax.data.hra import DIMENSIONS, LABELS
from lift_jax.errors import UserError
from lift_jax.toyworld import flaws
from lift_jax.toyworld.measures import DEFORMED, MIN_FRAMES, Measured, measure
from lift_jax.toyworld.scenes import Scene


class Tolerance(NamedTuple):
  """Labels a measure Good up to `good`, Normal up to `normal`, then Bad."""

  good: float
  normal: float

  def label(self, value: float) -> str:
    if not value <= self.normal:  # also true for NaN
      return 'Bad'
    return 'Good' if value <= self.good else 'Normal'


# Between the strengths of flaws.STRENGTHS and in their units. `good` is above
# the errors that x264 at crf 18 and a small autoencoder make in clean clips.
TOLERANCES = {
  # x264 removes a third to a half of the noise, and dark and bright images clip
  # it. Autoencoders err by 3 to 6 levels on flat areas.
  'noise': Tolerance(7.5, 20.0),
  # Chroma at half resolution fills small holes and frays thin arms.
  'hole': Tolerance(0.11, 0.31),
  # If shape and background differ in chroma only, half resolution is a blur of
  # one pixel; that of an autoencoder is about half a pixel.
  'blur': Tolerance(1.35 / 32, 2.1 / 32),
  'deformation': Tolerance(DEFORMED, 0.28),
  # Share of frames without the shape, a flaw of generated clips only.
  'vanishing': Tolerance(0.0, 0.2),
  # The error of positions is 0.1 pixels in a clean clip, up to 0.5 in noise.
  'jitter': Tolerance(0.6 / 32, 1.5 / 32),
  'teleport': Tolerance(1.2 / 32, 4.7 / 32),
  'freeze': Tolerance(0.0, 0.38),
  'drop': Tolerance(0.1, 0.44),
}


@dataclasses.dataclass(frozen=True)
class Verdict:
  """A judgement of a clip in one dimension.

  Attributes:
    label: one of `LABELS`.
    rationale: one sentence that names what is wrong.
    kinds: names of what is wrong, kinds of `flaws` or attributes of a scene;
      empty for Good.
  """

  label: str
  rationale: str
  kinds: tuple[str, ...]


def check(caption: str, frames_thw3: np.ndarray) -> dict[str, Verdict]:
  """A verdict for each dimension, in the order of `DIMENSIONS`.

  Args:
    caption: of the toy world.
    frames_thw3: uint8 [T, H, W, 3], at least 5 frames.

  Raises:
    UserError: the caption is not of the toy world.
  """
  asked = Scene.from_caption(caption)  # fails before the slow part
  return judge(asked, measure(frames_thw3))


def check_video(
  path: pathlib.Path, caption: str, where: str
) -> tuple[dict[str, Verdict], Measured]:
  """Verdicts on a clip in a file, as in `check`, and its measures.

  Args:
    path: of the clip.
    caption: of the toy world.
    where: how errors name the record.

  Raises:
    UserError: the file is not a video of at least 5 frames, or the caption is
      not of the toy world.
  """
  try:
    asked = Scene.from_caption(caption)
  except UserError as error:
    raise UserError(f'{where}: {error}') from None
  frames_thw3 = video.decode(path, where=where).frames
  if len(frames_thw3) < MIN_FRAMES:
    raise UserError(
      f'{where}: {path} has {len(frames_thw3)} frames; give clips of at least '
      f'{MIN_FRAMES}'
    )
  measured = measure(frames_thw3)
  return judge(asked, measured), measured


def judge(asked: Scene, measured: Measured) -> dict[str, Verdict]:
  """A verdict for each dimension, in the order of `DIMENSIONS`.

  Args:
    asked: the scene of the caption.
    measured: of the clip.
  """
  verdicts = {
    'semantic': _judge_semantic(asked, measured),
    'motion': _judge(measured.motion, _MOTION_TEXTS, 'The motion is smooth.'),
    'fidelity': _judge(
      measured.fidelity, _FIDELITY_TEXTS, 'The image is clean and sharp.'
    ),
  }
  return {dimension: verdicts[dimension] for dimension in DIMENSIONS}


_NOTHING = 'There is no shape to be made out.'
_FIDELITY_TEXTS = {
  'noise': ('There is some speckle in the image.', 'Speckle covers the image.'),
  'hole': (
    'There is a small hole in the shape.',
    'There is a large hole in the shape.',
  ),
  'blur': ('The edges are a little blurred.', 'The image is badly blurred.'),
  'deformation': (
    'The shape is slightly deformed from frame to frame.',
    'The shape is badly deformed from frame to frame.',
  ),
  'vanishing': (
    'The shape vanishes for a moment.',
    'The shape vanishes or changes colour for much of the clip.',
  ),
}
_MOTION_TEXTS = {
  'jitter': (
    'The shape trembles a little on its way.',
    'The shape jitters from frame to frame.',
  ),
  'teleport': (
    'The shape jumps aside a little in between.',
    'The shape teleports far aside in between.',
  ),
  'freeze': (
    'The shape freezes for a moment.',
    'The shape is frozen for much of the clip.',
  ),
  'drop': (
    'Some frames seem dropped, as the shape leaps ahead.',
    'Many frames seem dropped, as the shape leaps far ahead.',
  ),
}


def _judge(
  measures: dict[str, float], texts: dict[str, tuple[str, str]], good: str
) -> Verdict:
  """A verdict on the measure with the worst label and the largest excess."""
  if not measures:
    return Verdict('Bad', _NOTHING, ('nothing',))
  labels = {kind: TOLERANCES[kind].label(measures[kind]) for kind in measures}

  def severity(kind: str) -> tuple[int, float]:
    return (
      LABELS.index(labels[kind]),
      measures[kind] / TOLERANCES[kind].normal,
    )

  kind = max(measures, key=severity)
  if labels[kind] == 'Good':
    return Verdict('Good', good, ())
  return Verdict(labels[kind], texts[kind][labels[kind] == 'Bad'], (kind,))


def _judge_semantic(asked: Scene, measured: Measured) -> Verdict:
  if not measured.fidelity:
    return Verdict('Bad', _NOTHING, ('nothing',))
  wanted = dataclasses.asdict(asked)
  points = flaws.mismatches(wanted, measured.shown)
  label = flaws.label_of_mismatches(points)
  if not points:
    return Verdict(label, 'The clip shows what the caption says.', ())
  parts = []
  for name in points:
    found = measured.shown[name]
    match name, found:
      case 'motion', None:
        parts.append(f'the shape does not move {wanted[name]}')
      case 'motion', _:
        parts.append(f'the shape moves {found}, not {wanted[name]}')
      case _, None:
        parts.append(f'the {name} is not {wanted[name]}')
      case _:
        parts.append(f'the {name} is {found}, not {wanted[name]}')
  text = ' and '.join(parts)
  return Verdict(label, f'{text[0].upper()}{text[1:]}.', tuple(points))
