"""Scenes of the toy world and their captions.

A caption describes its scene completely: 'A small red circle moves upwards over
a white background.' The grammar works both ways, so that a clip can be judged
from its pixels and its caption alone.
"""

from collections.abc import Iterator
import dataclasses
import hashlib
import itertools
import re

from lift_jax.errors import UserError

# sRGB. Any shape differs from any background by at least 110 levels (Euclidean
# distance), any two shape colours or backgrounds by 85: several times the error
# of a codec or a small autoencoder.
COLOURS = {
  'red': (220, 40, 45),
  'green': (30, 170, 60),
  'blue': (41, 98, 255),
  'yellow': (241, 196, 15),
  'purple': (170, 40, 210),
  'cyan': (20, 205, 215),
}
BACKGROUNDS = {
  'white': (236, 238, 240),
  'grey': (126, 128, 130),
  'black': (24, 24, 28),
  'pink': (250, 170, 190),
}
SHAPES = ('circle', 'square', 'triangle', 'cross')
# Radius of the circle with the same area, as a fraction of the shorter side.
SIZES = {'small': 3.6 / 32, 'large': 5.4 / 32}
# Degrees from 'to the right', clockwise, as y points down in images.
MOTIONS = {
  'from left to right': 0,
  'diagonally down to the right': 45,
  'downwards': 90,
  'diagonally down to the left': 135,
  'from right to left': 180,
  'diagonally up to the left': 225,
  'upwards': 270,
  'diagonally up to the right': 315,
}

_VALUES = {
  'size': tuple(SIZES),
  'colour': tuple(COLOURS),
  'shape': SHAPES,
  'motion': tuple(MOTIONS),
  'background': tuple(BACKGROUNDS),
}
ATTRIBUTES = tuple(_VALUES)
_CAPTION = re.compile(
  r'A {size} {colour} {shape} moves {motion} over a {background} '
  r'background\.'.format(
    **{
      name: f'(?P<{name}>{"|".join(values)})'
      for name, values in _VALUES.items()
    }
  )
)

# One prompt in so many is held out from training.
_HELD_OUT_ONE_IN = 8


@dataclasses.dataclass(frozen=True)
class Scene:
  """A moving shape; each field is a word of the grammar.

  Attributes:
    size: one of `SIZES`.
    colour: one of `COLOURS`.
    shape: one of `SHAPES`.
    motion: one of `MOTIONS`.
    background: one of `BACKGROUNDS`.
  """

  size: str
  colour: str
  shape: str
  motion: str
  background: str

  def __post_init__(self):
    for name, values in _VALUES.items():
      if getattr(self, name) not in values:
        raise UserError(
          f'{name} {getattr(self, name)!r} is not in the toy world; write one '
          f'of {", ".join(values)}'
        )

  @property
  def caption(self) -> str:
    return (
      f'A {self.size} {self.colour} {self.shape} moves {self.motion} over a '
      f'{self.background} background.'
    )

  @classmethod
  def from_caption(cls, caption: str) -> 'Scene':
    """The scene that a caption describes.

    Raises:
      UserError: the caption does not follow the grammar.
    """
    found = _CAPTION.fullmatch(caption.strip())
    if found is None:
      raise UserError(
        f'the caption {caption!r} is not of the toy world; write it like '
        f'{next(all_scenes()).caption!r}'
      )
    return cls(**found.groupdict())


def values_of(attribute: str) -> tuple[str, ...]:
  """The possible values of an attribute of `Scene`."""
  return _VALUES[attribute]


def all_scenes() -> Iterator[Scene]:
  """Yields every scene once, in a fixed order."""
  for values in itertools.product(*_VALUES.values()):
    yield Scene(*values)


def is_held_out(caption: str) -> bool:
  """Whether a prompt is held out for evaluation and never trained on.

  This depends on the caption alone, so that it is the same for all runs and
  machines, and after additions to the grammar.
  """
  digest = hashlib.sha256(caption.strip().encode()).digest()
  return int.from_bytes(digest[:8], 'big') % _HELD_OUT_ONE_IN == 0


def training_scenes() -> tuple[Scene, ...]:
  """The scenes to train on."""
  return tuple(s for s in all_scenes() if not is_held_out(s.caption))


def held_out_scenes() -> tuple[Scene, ...]:
  """The scenes held out for evaluation."""
  return tuple(s for s in all_scenes() if is_held_out(s.caption))
