"""Judges clips of the toy world by their pixels and their caption alone.

A clip is measured first (see `measures`). Every measure then has two tolerances
that divide Good from Normal and Normal from Bad, and what the clip shows is
held against the caption.

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
  """A measure up to `good` is Good, up to `normal` Normal, above it Bad."""

  good: float
  normal: float

  def label(self, value: float) -> str:
    # What is no number is no measure of anything good.
    if not value <= self.normal:
      return 'Bad'
    return 'Good' if value <= self.good else 'Normal'


# Between the strengths of flaws.STRENGTHS, with room below the first for what
# x264 at crf 18 and a small autoencoder do to a clean clip. In the same units.
TOLERANCES = {
  # x264 takes a third to a half of the noise away, and dark and bright images
  # cannot show all of it. Autoencoders err by 3 to 6 levels on flat areas.
  'noise': Tolerance(7.5, 20.0),
  # Colour at half resolution fills small holes and frays thin arms.
  'hole': Tolerance(0.11, 0.31),
  # Where only the colour tells a shape from its background, half resolution is
  # a blur of one pixel; an autoencoder's own is about half a pixel.
  'blur': Tolerance(1.35 / 32, 2.1 / 32),
  'deformation': Tolerance(DEFORMED, 0.28),
  # Frames without the shape, a flaw that only generated clips have.
  'vanishing': Tolerance(0.0, 0.2),
  # Places are found to 0.1 pixel in a clean clip, at worst to 0.5 in noise.
  'jitter': Tolerance(0.6 / 32, 1.5 / 32),
  'teleport': Tolerance(1.2 / 32, 4.7 / 32),
  'freeze': Tolerance(0.0, 0.38),
  'drop': Tolerance(0.1, 0.44),
}


@dataclasses.dataclass(frozen=True)
class Verdict:
  """What a judge says of one dimension.

  Attributes:
    label: one of `LABELS`.
    rationale: one sentence that names what is wrong.
    kinds: what is wrong, by the names of `flaws` or of attributes of a scene;
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
    UserError: the caption is of another world.
  """
  asked = Scene.from_caption(caption)  # before what takes time
  return judge(asked, measure(frames_thw3))


def check_video(
  path: pathlib.Path, caption: str, where: str
) -> tuple[dict[str, Verdict], Measured]:
  """Verdicts as of `check`, and the measures, of a clip in a file.

  Args:
    path: of the clip.
    caption: of the toy world.
    where: names the record in messages.

  Raises:
    UserError: the file is no video of at least 5 frames, or the caption is of
      another world.
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
  """The worst of some measures, named after the one that exceeds most."""
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
  told = []
  for name in points:
    found = measured.shown[name]
    match name, found:
      case 'motion', None:
        told.append(f'the shape does not move {wanted[name]}')
      case 'motion', _:
        told.append(f'the shape moves {found}, not {wanted[name]}')
      case _, None:
        told.append(f'the {name} is not {wanted[name]}')
      case _:
        told.append(f'the {name} is {found}, not {wanted[name]}')
  text = ' and '.join(told)
  return Verdict(label, f'{text[0].upper()}{text[1:]}.', tuple(points))
