"""Clips as animated GIFs, which TensorBoard and browsers play automatically.

Shape suffixes: T frames, H height, W width; the last axis of 3 is RGB.
"""

import io
import pathlib

import numpy as np
from PIL import Image

# GIF files store durations in hundredths of a second, Pillow in milliseconds.
_TICKS_PER_SECOND = 100
_MS_PER_TICK = 10

# First bytes of the blocks of a file.
_IMAGE, _EXTENSION, _TRAILER = b',!;'


def encode_gif(frames_thw3: np.ndarray, fps: float) -> bytes:
  """Encodes a GIF that loops forever; each frame has its own 256 colours.

  The palette is Pillow's median cut: its octree is many times faster, but
  causes banding in skies and skin. A clip of 480x720 takes seconds and ten
  megabytes; at half the height and width, a third of that.

  A frame equal to the previous one only extends its duration. Durations are
  multiples of 10 ms, rounded such that the GIF lasts as long as the clip (8
  fps: 130 and 120 ms). Viewers slow down GIFs of more than 50 fps.

  Args:
    frames_thw3: uint8 [T, H, W, 3], at least one frame.
    fps: frames per second, at most 100.

  Raises:
    ValueError: the frames are not uint8, or there are none.
  """
  if frames_thw3.dtype != np.uint8 or not len(frames_thw3):
    raise ValueError(
      'a GIF needs uint8 frames, at least one; these are '
      f'{frames_thw3.dtype} {frames_thw3.shape}'
    )
  ends = np.arange(len(frames_thw3) + 1) * _TICKS_PER_SECOND / fps
  durations = np.diff(np.floor(ends + 0.5)).astype(int) * _MS_PER_TICK
  first, *others = (Image.fromarray(image_hw3) for image_hw3 in frames_thw3)
  buffer = io.BytesIO()
  first.save(
    buffer,
    format='GIF',
    save_all=True,
    append_images=others,
    duration=durations.tolist(),
    loop=0,
  )
  return buffer.getvalue()


def is_complete(path: pathlib.Path) -> bool:
  """Whether the blocks of a GIF reach its trailer; the format states no length.

  Blocks are as in the GIF89a specification, sections 15 to 27.
  """
  data = path.read_bytes()

  def table_size(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0

  try:
    position = 13 + table_size(data[10])  # header and screen descriptor
    while data[position] != _TRAILER:
      if data[position] == _IMAGE:  # descriptor, colour table, code size
        position += 11 + table_size(data[position + 9])
      elif data[position] == _EXTENSION:  # and its label
        position += 2
      else:
        return False
      while data[position]:  # sub-blocks, each with its length in front
        position += 1 + data[position]
      position += 1
  except IndexError:
    return False
  return True
