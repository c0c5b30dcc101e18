"""Clips with intentional flaws, and their true labels.

LiFT rates three dimensions of a clip; each can have a small flaw (Normal) or a
large one (Bad):

  semantic   the clip shows another scene than the caption describes
  fidelity   noise, a hole, blur or a deformed shape
  motion     jitter, a teleport, a freeze or dropped frames

The shape's offset, its speed, its exact direction and the brightness vary from
clip to clip and are not flaws.

Shape suffixes: T frames, H height, W width, S steps between frames; the last
axis of 2 is (y, x), of 3 RGB.
"""

from collections.abc import Mapping
import dataclasses

import numpy as np

from lift_jax.data.hra import DIMENSIONS
from lift_jax.toyworld import scenes
from lift_jax.toyworld.render import Drawing, render
from lift_jax.toyworld.scenes import Scene

FPS = 8  # as for CogVideoX
FIDELITY_KINDS = ('noise', 'hole', 'blur', 'deformation')
MOTION_KINDS = ('jitter', 'teleport', 'freeze', 'drop')

# The strength of each flaw. Lengths are fractions of the shorter side.
STRENGTHS = {
  'noise': {'Normal': 18.0, 'Bad': 52.0},  # standard deviation, of 255
  'hole': {'Normal': 0.14, 'Bad': 0.44},  # share of the area
  'blur': {'Normal': 1.5 / 32, 'Bad': 2.5 / 32},  # standard deviation
  'deformation': {'Normal': 0.17, 'Bad': 0.38},  # log of the stretch
  'jitter': {'Normal': 0.9 / 32, 'Bad': 2.4 / 32},  # root mean square
  'teleport': {'Normal': 3.0 / 32, 'Bad': 7.0 / 32},  # length
  'freeze': {'Normal': 0.25, 'Bad': 0.5},  # share of the steps
  'drop': {'Normal': 0.25, 'Bad': 0.625},  # frames lost per remaining step
}

# The subject of a caption is a coloured shape that moves in some direction. If
# one of these is wrong, the clip does not show the subject. A wrong size or
# background, or a neighbouring direction, leave it recognisable.
MAJOR = ('colour', 'shape')
_MINOR_POINTS, _MAJOR_POINTS = 1, 2

# Nuisance parameters: ranges of uniform distributions.
_TRAVEL = (10.5 / 32, 12.0 / 32)  # from first frame to last
_OFFSET = 0.5 / 32  # of the middle of the path from that of the image
_TILT = 5.0  # degrees, while directions are 45 apart
_RADIUS = (0.96, 1.04)
_LIGHT = (0.94, 1.04)
_HOLE_OFFSET = 0.15  # radii
_JITTER_PEAK = 1.6  # largest displacement, in root mean squares
# A jittering shape travels less, so that it stays in the image.
_JITTER_TRAVEL = 0.85

# How often a dimension is Good, Normal and Bad if labels are sampled.
_SHARES = {'Good': 0.4, 'Normal': 0.3, 'Bad': 0.3}


@dataclasses.dataclass(frozen=True)
class Flaw:
  """A flaw in the pixels of a clip.

  Attributes:
    kind: one of `FIDELITY_KINDS` or `MOTION_KINDS`.
    label: 'Normal' or 'Bad'.
  """

  kind: str
  label: str

  @property
  def strength(self) -> float:
    return STRENGTHS[self.kind][self.label]


@dataclasses.dataclass(frozen=True)
class ToyClip:
  """A clip and its ground truth.

  Attributes:
    asked: the scene of the caption.
    shown: the scene that was rendered.
    fidelity: flaw of the image, or None.
    motion: flaw of the motion, or None.
    frames_thw3: uint8 [T, H, W, 3].
  """

  asked: Scene
  shown: Scene
  fidelity: Flaw | None
  motion: Flaw | None
  frames_thw3: np.ndarray

  @property
  def caption(self) -> str:
    return self.asked.caption

  @property
  def labels(self) -> dict[str, str]:
    """The true label of each dimension, in the order of `DIMENSIONS`."""
    labels = {
      'semantic': semantic_label(self.asked, self.shown),
      'motion': self.motion.label if self.motion else 'Good',
      'fidelity': self.fidelity.label if self.fidelity else 'Good',
    }
    return {dimension: labels[dimension] for dimension in DIMENSIONS}


def semantic_label(asked: Scene, shown: Scene) -> str:
  """How well the shown scene matches the one that was asked for.

  A wrong colour or shape, or a direction that is off by 90 degrees or more, is
  a major mismatch and Bad alone. A wrong size or background, or a direction off
  by 45 degrees, is minor: one is Normal, two are Bad.
  """
  return label_of_mismatches(
    mismatches(dataclasses.asdict(asked), dataclasses.asdict(shown))
  )


def mismatches(
  asked: Mapping[str, str], shown: Mapping[str, str | None]
) -> dict[str, int]:
  """Penalty points for each attribute that is wrong.

  Args:
    asked: attributes of the scene of a caption.
    shown: attributes found in a clip; None if no word of the grammar fits.
  """
  points = {}
  for name, value in asked.items():
    found = shown[name]
    if value == found:
      continue
    is_major = (
      name in MAJOR
      or found is None
      or (name == 'motion' and angle_between(value, found) > 45)
    )
    points[name] = _MAJOR_POINTS if is_major else _MINOR_POINTS
  return points


def label_of_mismatches(points: Mapping[str, int]) -> str:
  """'Good' for no points to 'Bad' for those of a major mismatch or more."""
  total = sum(points.values())
  return ('Good', 'Normal', 'Bad')[min(total, _MAJOR_POINTS)]


def angle_between(motion: str, other: str) -> int:
  """Degrees between two directions, at most 180."""
  angle = abs(scenes.MOTIONS[motion] - scenes.MOTIONS[other])
  return min(angle, 360 - angle)


def draw_clip(
  asked: Scene,
  rng: np.random.Generator,
  labels: Mapping[str, str] | None = None,
  num_frames: int = 9,
  height: int = 32,
  width: int = 32,
) -> ToyClip:
  """A clip for a caption, with random flaws that match the labels.

  Args:
    asked: the scene of the caption.
    rng: samples flaws and nuisances; equal states give equal pixels.
    labels: the label of each dimension; None samples them too.
    num_frames: at least 5, so that a path has a middle.
    height: in pixels.
    width: in pixels.
  """
  if labels is None:
    drawn = rng.choice(list(_SHARES), len(DIMENSIONS), p=list(_SHARES.values()))
    labels = dict(zip(DIMENSIONS, map(str, drawn), strict=True))
  shown = draw_mismatch(asked, labels['semantic'], rng)
  fidelity, motion = (
    None
    if labels[dimension] == 'Good'
    else Flaw(str(rng.choice(kinds)), labels[dimension])
    for dimension, kinds in (
      ('fidelity', FIDELITY_KINDS),
      ('motion', MOTION_KINDS),
    )
  )
  return make_clip(
    asked, shown, fidelity, motion, rng, num_frames, height, width
  )


def make_clip(
  asked: Scene,
  shown: Scene,
  fidelity: Flaw | None,
  motion: Flaw | None,
  rng: np.random.Generator,
  num_frames: int = 9,
  height: int = 32,
  width: int = 32,
) -> ToyClip:
  """A clip with given flaws; see `draw_clip` and `ToyClip`."""
  if num_frames < 5:
    raise ValueError(f'{num_frames} frames; a clip needs at least 5')
  side = min(height, width)
  centres_t2 = (height / 2, width / 2) + side * _path(
    shown.motion, motion, num_frames, rng
  )
  light = rng.uniform(*_LIGHT)
  drawing = Drawing(
    shape=shown.shape,
    centres_t2=centres_t2,
    radius=scenes.SIZES[shown.size] * side * rng.uniform(*_RADIUS),
    colour=np.array(scenes.COLOURS[shown.colour]) * light,
    background=np.array(scenes.BACKGROUNDS[shown.background]) * light,
  )
  match fidelity:
    case Flaw('noise'):
      drawing = dataclasses.replace(drawing, noise=fidelity.strength)
    case Flaw('hole'):
      angle = rng.uniform(0, 2 * np.pi)
      offset_2 = _HOLE_OFFSET * np.array((np.sin(angle), np.cos(angle)))
      drawing = dataclasses.replace(
        drawing, hole=fidelity.strength, hole_offset_2=tuple(offset_2)
      )
    case Flaw('blur'):
      drawing = dataclasses.replace(drawing, blur=fidelity.strength * side)
    case Flaw('deformation'):
      stretch_t22 = _stretches(fidelity.strength, num_frames, rng)
      drawing = dataclasses.replace(drawing, stretch_t22=stretch_t22)
  frames_thw3 = render(drawing, height, width, rng)
  return ToyClip(asked, shown, fidelity, motion, frames_thw3)


def draw_mismatch(asked: Scene, label: str, rng: np.random.Generator) -> Scene:
  """A random scene whose semantic label against the asked one is `label`."""
  if label == 'Good':
    return asked
  names = list(dataclasses.asdict(asked))
  while True:
    num_wrong = 1 if label == 'Normal' else rng.integers(1, 3)
    shown = asked
    for name in rng.choice(names, num_wrong, replace=False):
      shown = dataclasses.replace(
        shown, **{str(name): str(rng.choice(scenes.values_of(str(name))))}
      )
    if semantic_label(asked, shown) == label:
      return shown


def _path(
  motion: str,
  flaw: Flaw | None,
  num_frames: int,
  rng: np.random.Generator,
) -> np.ndarray:
  """[T, 2], offsets of the shape from the middle of the image, in sides."""
  angle = np.deg2rad(scenes.MOTIONS[motion] + rng.uniform(-_TILT, _TILT))
  direction_2 = np.array((np.sin(angle), np.cos(angle)))
  normal_2 = np.array((direction_2[1], -direction_2[0]))
  num_steps = num_frames - 1
  length = rng.uniform(*_TRAVEL) / num_steps
  steps_s2 = np.tile(length * direction_2, (num_steps, 1))
  # Not the first or last step, where a freeze would not be visible as one.
  where = int(rng.integers(1, num_steps - 1))
  match flaw:
    case Flaw('teleport'):
      steps_s2[where] += flaw.strength * normal_2 * rng.choice((-1, 1))
    case Flaw('freeze'):
      num_frozen = round(flaw.strength * num_steps)
      first = int(rng.integers(1, num_steps - num_frozen))
      steps_s2[first : first + num_frozen] = 0
    case Flaw('drop'):
      # The total travel is that of a clip without a gap.
      num_dropped = round(flaw.strength * num_steps)
      steps_s2 *= num_steps / (num_steps + num_dropped)
      steps_s2[where] *= 1 + num_dropped
    case Flaw('jitter'):
      steps_s2 *= _JITTER_TRAVEL
  path_t2 = np.concatenate((np.zeros((1, 2)), np.cumsum(steps_s2, 0)))
  path_t2 -= (path_t2.max(0) + path_t2.min(0)) / 2
  if flaw is not None and flaw.kind == 'jitter':
    path_t2 += flaw.strength * _jitter(num_frames, rng)
  return path_t2 + rng.uniform(-_OFFSET, _OFFSET, 2)


def _jitter(num_frames: int, rng: np.random.Generator) -> np.ndarray:
  """Displacements [T, 2] of root mean square 1, without mean or trend.

  A trend would change the direction, which belongs to another dimension.
  """
  time_t2 = np.stack((np.ones(num_frames), np.arange(num_frames)), 1)
  trend_t2, _ = np.linalg.qr(time_t2)
  while True:
    jitter_t2 = rng.normal(size=(num_frames, 2))
    jitter_t2 -= trend_t2 @ (trend_t2.T @ jitter_t2)
    jitter_t2 /= np.sqrt(np.mean(np.sum(jitter_t2**2, 1)))
    if np.linalg.norm(jitter_t2, axis=1).max() <= _JITTER_PEAK:
      return jitter_t2


def _stretches(
  strength: float, num_frames: int, rng: np.random.Generator
) -> np.ndarray:
  """[T, 2, 2], stretches along random axes that preserve the area."""
  angle_t = rng.uniform(0, np.pi, num_frames)
  axis_t2 = np.stack((np.sin(angle_t), np.cos(angle_t)), 1)
  along_t22 = axis_t2[:, :, None] * axis_t2[:, None, :]
  return np.exp(-strength) * np.eye(2) + along_t22 * (
    np.exp(strength) - np.exp(-strength)
  )
