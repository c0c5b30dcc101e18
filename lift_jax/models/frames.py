"""Frames of a clip for a vision tower: which ones, and at what size.

Shape suffixes: T frames, H height, W width; the last axis of 3 is RGB.
"""

import numpy as np
from PIL import Image


def evenly_spaced_frames(num_frames: int, max_frames: int = 8) -> list[int]:
  """Indices of evenly spaced frames.

  All frames if there are at most `max_frames`. Else evenly spaced from the
  first to the last, rounded down, as opencv_extract_frames of VILA does
  (llava/mm_utils.py).

  Raises:
    ValueError: there is no frame.
  """
  if num_frames < 1 or max_frames < 1:
    raise ValueError(f'no choice of {max_frames} among {num_frames} frames')
  if num_frames <= max_frames:
    return list(range(num_frames))
  return np.linspace(0, num_frames - 1, max_frames).astype(int).tolist()


def resize_bicubic(frames_thw3: np.ndarray, size: int) -> np.ndarray:
  """Frames at the size of a vision tower, whatever their aspect ratio.

  Bicubic with a filter that widens with the reduction, and rounded to uint8
  before anything else, as VILA does with image_aspect_ratio 'resize'.

  Args:
    frames_thw3: uint8 [T, H, W, 3].
    size: height and width of the result, in pixels.

  Returns:
    uint8 [T, size, size, 3].
  """
  frames = np.empty((len(frames_thw3), size, size, 3), np.uint8)
  for frame, image_hw3 in zip(frames, frames_thw3, strict=True):
    image = Image.fromarray(image_hw3)
    frame[:] = image.resize((size, size), Image.Resampling.BICUBIC)
  return frames
