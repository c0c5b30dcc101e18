"""Small real mp4 clips for tests."""

import pathlib

import av
import numpy as np


def moving_square(
  num_frames: int, height: int, width: int, seed: int = 0
) -> np.ndarray:
  """uint8 [T, H, W, 3]: a coloured square that wanders over a gradient.

  The grey level of the left fifth rises by 4 with each frame, so that a test
  can tell which frame it sees (see `frame_numbers`).
  """
  rng = np.random.default_rng(seed)
  colour_3 = rng.integers(64, 256, 3)
  start_2 = rng.integers(0, (height, width))
  side = max(2, min(height, width) // 4)
  frames_thw3 = np.zeros((num_frames, height, width, 3), np.uint8)
  frames_thw3 += np.linspace(40, 160, width).astype(np.uint8)[:, None]
  for index in range(num_frames):
    top = (start_2[0] + index) % max(1, height - side)
    left = (start_2[1] + 2 * index) % max(1, width - side)
    frames_thw3[index, top : top + side, left : left + side] = colour_3
    frames_thw3[index, :, : width // 5] = 8 + 4 * index % 240
  return frames_thw3


def frame_numbers(frames_thw3: np.ndarray) -> list[int]:
  """Which frames of `moving_square` these are (modulo 60)."""
  width = frames_thw3.shape[2]
  levels_t = frames_thw3[:, :, : max(1, width // 10)].mean(axis=(1, 2, 3))
  return [int(number) for number in np.rint((levels_t - 8) / 4)]


def write_clip(
  path: str | pathlib.Path,
  num_frames: int,
  height: int,
  width: int,
  fps: float = 8,
  seed: int = 0,
  *,
  faststart: bool = False,
) -> np.ndarray:
  """Writes `moving_square` as a clip and returns its frames.

  H.264 where the library has it, else MPEG-4. Sizes may be odd.

  Args:
    path: the file; its suffix picks the container.
    num_frames: frames in the clip.
    height: in pixels.
    width: in pixels.
    fps: frames per second.
    seed: of colour and start.
    faststart: whether the index stands at the beginning of an mp4, not at its
      end.
  """
  frames_thw3 = moving_square(num_frames, height, width, seed)
  is_odd = height % 2 or width % 2
  has_h264 = 'libx264' in av.codecs_available
  options = {'movflags': '+faststart'} if faststart else {}
  with av.open(str(path), 'w', options=options) as container:
    stream = container.add_stream('libx264' if has_h264 else 'mpeg4', rate=fps)
    stream.height, stream.width = height, width
    # H.264 in yuv420p wants even sides; MPEG-4 does not mind.
    stream.pix_fmt = 'yuv444p' if has_h264 and is_odd else 'yuv420p'
    if has_h264:
      stream.options = {'crf': '4', 'preset': 'ultrafast'}
    else:
      stream.bit_rate = 4_000_000
    for image_hw3 in frames_thw3:
      frame = av.VideoFrame.from_ndarray(image_hw3, 'rgb24')
      container.mux(stream.encode(frame))
    container.mux(stream.encode())
  return frames_thw3
