"""How much the picture of a clip changes from frame to frame.

Shape suffixes: T frames, H height, W width; the last axis of 3 is RGB.
"""

import numpy as np


def frame_difference(frames_thw3: np.ndarray) -> float:
  """Mean absolute difference of consecutive uint8 frames, in [0, 1].

  A single frame gives 0.
  """
  if len(frames_thw3) < 2:
    return 0.0
  # A sixteenth of the pixels is enough.
  pixels = frames_thw3[:, ::4, ::4].astype(np.int16)
  return float(np.mean(np.abs(np.diff(pixels, axis=0)))) / 255
