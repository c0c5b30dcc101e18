"""Writing of clips as mp4.

Shape suffixes: T frames, H height, W width; the last axis of 3 is RGB.
"""

import fractions
import pathlib

import av
import numpy as np

from lift_jax.runtime import storage
from lift_jax.runtime.files import atomic_path

# Colour matrix and range written to files, those that the scaler converts RGB
# to: ITU-R BT.601, limited (AVCOL_SPC_SMPTE170M and AVCOL_RANGE_MPEG).
_COLORSPACE_BT601 = 6
_COLOR_RANGE_LIMITED = 1


def write_mp4(
  path: str | pathlib.Path,
  frames_thw3: np.ndarray,
  fps: float = 8,
  crf: int = 18,
) -> None:
  """Writes H.264 in yuv420p, which browsers play.

  The file is written under a temporary name and renamed, so it is complete or
  absent. Equal frames give equal files (with the same library on the same
  machine).

  Args:
    path: of the mp4 file; its folder must exist.
    frames_thw3: uint8 [T, H, W, 3], at least one frame, H and W even.
    fps: frames per second; CogVideoX generates 8.
    crf: constant rate factor of x264; 0 is nearly lossless, 18 looks so.
  """
  num_frames, height, width, _ = frames_thw3.shape
  if frames_thw3.dtype != np.uint8 or not num_frames or height % 2 or width % 2:
    raise ValueError(
      f'{path}: mp4 needs uint8 frames of even size, at least one; these are '
      f'{frames_thw3.dtype} {frames_thw3.shape}'
    )
  path = storage.to_path(path)
  with atomic_path(path) as partial:
    # The index in front lets a browser start before the end has come.
    with av.open(
      str(partial), 'w', format='mp4', options={'movflags': '+faststart'}
    ) as container:
      rate = fractions.Fraction(fps).limit_denominator(1001)
      stream = container.add_stream('libx264', rate=rate)
      stream.height, stream.width = height, width
      stream.pix_fmt = 'yuv420p'
      # The macroblock tree makes x264 depend on stale memory for small frames:
      # equal frames came out as different files.
      stream.options = {'crf': str(crf), 'x264-params': 'mbtree=0'}
      stream.codec_context.colorspace = _COLORSPACE_BT601
      stream.codec_context.color_range = _COLOR_RANGE_LIMITED
      for image_hw3 in frames_thw3:
        frame = av.VideoFrame.from_ndarray(
          np.ascontiguousarray(image_hw3), 'rgb24'
        )
        container.mux(stream.encode(frame))
      container.mux(stream.encode())
