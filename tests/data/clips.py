"""Small real mp4 clips for tests."""

from collections.abc import Callable, Mapping, Sequence
import fractions
import pathlib
import struct

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


def write_encoded(
  path: str | pathlib.Path,
  frames: np.ndarray | Sequence[av.VideoFrame],
  codec: str = 'libx264',
  pix_fmt: str = 'yuv420p',
  *,
  times: Sequence[int] | None = None,
  rate: int = 8,
  options: Mapping[str, str] | None = None,
  set_up: Callable[[av.VideoStream], None] = lambda stream: None,
  **container_options,
) -> None:
  """Writes frames in other ways than most clips have.

  Args:
    path: the file; its suffix picks the container.
    frames: uint8 [T, H, W, 3], or frames in `pix_fmt`.
    codec: encoder in libav.
    pix_fmt: format of the pixels.
    times: when each frame is shown, in units of 1 / `rate`; evenly if None.
    rate: frames per second, unless there are `times`.
    options: of the encoder.
    set_up: changes the stream before the first frame.
    **container_options: of `av.open`.
  """
  with av.open(str(path), 'w', **container_options) as container:
    stream = container.add_stream(codec, rate=rate)
    stream.pix_fmt = pix_fmt
    stream.options = {'crf': '4'} if codec == 'libx264' else {}
    stream.options |= options or {}
    for index, frame in enumerate(frames):
      if isinstance(frame, np.ndarray):
        frame = av.VideoFrame.from_ndarray(frame, 'rgb24')
      if not index:
        stream.height, stream.width = frame.height, frame.width
        set_up(stream)
      frame.pts = times[index] if times else index
      frame.time_base = fractions.Fraction(1, rate)
      container.mux(stream.encode(frame))
    container.mux(stream.encode())


def remux(
  source_path: pathlib.Path,
  target_path: pathlib.Path,
  keep: Callable[[int, av.Packet], bool] = lambda index, packet: True,
  **options: str,
) -> None:
  """Copies packets into another file: those for which `keep` is true."""
  with (
    av.open(str(source_path)) as source,
    av.open(str(target_path), 'w', options=options) as target,
  ):
    stream = target.add_stream_from_template(source.streams.video[0])
    for index, packet in enumerate(source.demux(video=0)):
      if packet.size and keep(index, packet):
        packet.stream = stream
        target.mux(packet)


def write_open_gop(path: pathlib.Path, codec: str = 'mpeg2video') -> None:
  """A clip cut at a key frame, whose first frames refer to what was cut off.

  It has 41 frames of H.264, of which 3 cannot be decoded; or 40 frames of
  MPEG-2, of which 2 cannot.
  """
  whole = path.with_stem(f'{path.stem}_whole')
  options = {
    'libx264': {
      'x264-params': 'open-gop=1:keyint=12:min-keyint=12:scenecut=0:'
      'bframes=3:b-adapt=0',
    },
    'mpeg2video': {'bf': '2', 'g': '12', 'flags': '-cgop', 'q': '2'},
  }
  frames_thw3 = moving_square(50, 32, 48)
  write_encoded(whole, frames_thw3, codec, rate=25, options=options[codec])
  with av.open(str(whole)) as container:
    keys = [
      index
      for index, packet in enumerate(container.demux(video=0))
      if packet.is_keyframe
    ]
  # An edit list would hide those frames.
  options = {} if path.suffix == '.mkv' else {'use_editlist': '0'}
  remux(whole, path, lambda index, packet: index >= keys[1], **options)


def shorten_edit(path: pathlib.Path, share: fractions.Fraction) -> None:
  """Changes the edit list of an mp4 so that it shows a share of the frames."""
  data = bytearray(path.read_bytes())
  # After type, version and count: the duration of the first edit.
  offset = data.index(b'elst') + 12
  (duration,) = struct.unpack_from('>I', data, offset)
  struct.pack_into('>I', data, offset, int(duration * share))
  path.write_bytes(data)


def write_pictures(path, sizes, **kwargs):
  """Motion JPEG, whose frames are independent, of several sizes."""
  with av.open(str(path), 'w', **kwargs) as container:
    stream = container.add_stream('mjpeg', rate=8)
    stream.height, stream.width = sizes[0]
    stream.pix_fmt = 'yuvj420p'
    container.start_encoding()
    for index, (height, width) in enumerate(sizes):
      encoder = av.CodecContext.create('mjpeg', 'w')
      encoder.height, encoder.width, encoder.pix_fmt = height, width, 'yuvj420p'
      encoder.time_base = fractions.Fraction(1, 8)
      image_hw3 = np.random.default_rng(index).integers(
        0, 256, (height, width, 3), np.uint8
      )
      frame = av.VideoFrame.from_ndarray(image_hw3, 'rgb24')
      frame.pts = index
      for packet in encoder.encode(frame) + encoder.encode():
        packet.stream = stream
        container.mux(packet)
