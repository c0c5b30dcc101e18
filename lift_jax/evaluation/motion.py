"""Motion of clips, by which a model that freezes is found out.

Shape suffixes: T frames, H height, W width; the last axis of 3 is RGB.
"""

import dataclasses

import numpy as np

from lift_jax.data.frame_difference import frame_difference

# Least frame difference of a clip that moves. VideoGPA filters the winners of
# its pairs by the same number.
_MIN_DIFFERENCE = 1e-3


@dataclasses.dataclass(frozen=True)
class Motion:
  """Motion of a clip.

  Attributes:
    difference: mean absolute difference of consecutive frames, in [0, 1].
    is_static: whether it is so small that the clip stands still; lossy codecs
      change still pictures slightly.
  """

  difference: float
  is_static: bool


def measure(frames_thw3: np.ndarray) -> Motion:
  """Measures uint8 frames."""
  difference = frame_difference(frames_thw3)
  return Motion(difference, difference < _MIN_DIFFERENCE)
