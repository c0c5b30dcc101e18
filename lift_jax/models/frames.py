"""Frame sampling and resizing for vision towers.

Shape suffixes: T frames, H height, W width; the last axis of 3 is RGB.
"""

import numpy as np
from PIL import Image


def evenly_spaced_frames(num_frames: int, max_frames: int = 8) -> list[int]:
  """Indices of at most `max_frames` evenly spaced frames.

  All frames if there are no more. Otherwise evenly spaced from the first to the
  last, rounded down, as in opencv_extract_frames of VILA (llava/mm_utils.py).

  Raises:
    ValueError: there is no frame.
  """
  if num_frames < 1 or max_frames < 1:
    raise ValueError(f'cannot select {max_frames} of {num_frames} frames')
  if num_frames <= max_frames:
    return list(range(num_frames))
  return np.linspace(0, num_frames - 1, max_frames).astype(int).tolist()


def resize_bicubic(
  frames_thw3: np.ndarray, height: int, width: int | None = None
) -> np.ndarray:
  """Resizes frames, ignoring their aspect ratio.

  Bicubic with antialiasing, rounded to uint8, as VILA does with
  image_aspect_ratio 'resize'.

  Args:
    frames_thw3: uint8 [T, H, W, 3].
    height: of the result, in pixels.
    width: likewise; by default the height.

  Returns:
    uint8 [T, height, width, 3].
  """
  width = height if width is None else width
  frames = np.empty((len(frames_thw3), height, width, 3), np.uint8)
  for frame, image_hw3 in zip(frames, frames_thw3, strict=True):
    image = Image.fromarray(image_hw3)
    resized = image.resize((width, height), Image.Resampling.BICUBIC)
    frame[:] = np.asarray(resized)
  return frames
