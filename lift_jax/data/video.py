"""Reading and writing clips as mp4.

Frames are chosen, scaled and normalised as in the LiFT fine-tuning script
(CogVideo/finetune/train.py), except that a clip of another aspect ratio is
cropped by default, not distorted.

Shape suffixes: T frames, H height, W width; the last axis of 3 is RGB.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
import fractions
import math
import pathlib

import av
from av.video.reformatter import VideoReformatter
import numpy as np

from lift_jax.errors import UserError
from lift_jax.runtime.files import atomic_path

POLICIES = ('crop', 'stretch')

# Only local files, in containers that state their number of frames, so that
# truncation is noticed. Above all no playlists: the library would open the
# files and URLs in them.
_READ_OPTIONS = {
  'protocol_whitelist': 'file',
  'format_whitelist': 'mov,mp4,m4a,3gp,3g2,mj2,avi',
}

# As in decord, which the reference decodes with. The filter widens with the
# reduction, which avoids aliasing.
_INTERPOLATION = 'BICUBIC'

# Colour matrix and range written to files, those that the scaler converts RGB
# to: ITU-R BT.601, limited (AVCOL_SPC_SMPTE170M and AVCOL_RANGE_MPEG).
_COLORSPACE_BT601 = 6
_COLOR_RANGE_LIMITED = 1


@dataclasses.dataclass(frozen=True)
class VideoClip:
  """Chosen frames of a clip.

  Attributes:
    frames: uint8 [T, H, W, 3].
    fps: frames per second of the file, 0 if unknown. The chosen frames are
      further apart if frames were skipped.
    num_source_frames: frames in the file.
  """

  frames: np.ndarray
  fps: float
  num_source_frames: int


@dataclasses.dataclass(frozen=True)
class ClipInfo:
  """What a file states of a clip.

  Attributes:
    num_frames: at least 1.
    fps: frames per second, 0 where it does not say.
    height: in pixels, 0 where it does not say.
    width: likewise.
  """

  num_frames: int
  fps: float
  height: int
  width: int


def choose_frames(num_frames: int, max_frames: int = 49) -> list[int]:
  """Indices of the frames for training; their number is 4k + 1.

  All frames if there are at most `max_frames`, else the first `max_frames` at
  a step of num_frames // max_frames, so clips of 50 to 97 frames are cut at the
  end. Surplus frames are dropped from the end to get 4k + 1, as the video
  autoencoder requires.

  Raises:
    ValueError: there is no frame.
  """
  if num_frames < 1 or max_frames < 1:
    raise ValueError(f'no choice of {max_frames} among {num_frames} frames')
  step = max(1, num_frames // max_frames)
  indices = list(range(0, num_frames, step)[:max_frames])
  num_dropped = (3 + len(indices) % 4) % 4
  return indices[: len(indices) - num_dropped]


def resample_indices(
  num_frames: int, source_fps: float, target_fps: float
) -> list[int]:
  """Indices of the nearest frame for each time k / target_fps within the clip.

  Frames are assumed to be evenly spaced. Upsampling repeats frames.

  Raises:
    ValueError: a rate is not finite and positive.
  """
  for fps in (source_fps, target_fps):
    if not (math.isfinite(fps) and fps > 0):
      raise ValueError(f'frame rate {fps} is not a positive number')
  step = source_fps / target_fps
  # The margin keeps the last frame in spite of rounding errors.
  num_resampled = math.floor((num_frames - 1) / step + 1e-6) + 1
  return [
    min(math.floor(k * step + 0.5), num_frames - 1)
    for k in range(num_resampled)
  ]


def decode(
  path: str | pathlib.Path,
  max_frames: int = 49,
  *,
  where: str,
  fps: float | None = None,
  sizes: Sequence[tuple[int, int]] = (),
  policy: str = 'crop',
  choose: Callable[[int, int], Sequence[int]] = choose_frames,
) -> VideoClip:
  """Decodes chosen frames of a clip, by default those for training.

  Frames are decoded in order, once; chosen frames are scaled immediately, the
  others discarded. The number of frames is the number that decode. If the file
  does not state it, packets are counted first; if it differs from what the file
  states, the file is decoded again. Only the first video stream is read, and
  rotation metadata is not applied.

  Args:
    path: an mp4 file (or another of the formats listed above).
    max_frames: maximum number of frames.
    where: location of the record, for messages.
    fps: if given, the clip is first resampled to this rate; None keeps the
      frames of the file, as the reference does.
    sizes: allowed (height, width) of the result, see `nearest_size`; if empty,
      the size of the file is kept.
    policy: 'crop' or 'stretch', see `resize`.
    choose: maps the number of frames and `max_frames` to ascending indices.

  Raises:
    UserError: the file is missing, not a video, without frames, damaged, or
      truncated even if some frames decode. Only a fragmented mp4 that is cut
      exactly between two fragments is taken for a shorter clip.
  """
  path = pathlib.Path(path)
  _check_policy(policy)
  if not path.is_file():
    raise _unusable(where, path, 'does not exist')
  with _opened(where, path) as (_, stream):
    num_stated = stream.frames
    source_fps = _rate(stream)
    codec = stream.codec_context  # None if unknown; decoding fails then
    size = None
    if codec is not None and sizes:
      if not (codec.height and codec.width):  # unknown without a frame
        raise _unusable(where, path, 'holds no frames')
      size = nearest_size(codec.height, codec.width, sizes)
  if fps is not None and source_fps == 0:
    raise _unusable(where, path, f'states no frame rate to resample to {fps}')

  def chosen_of(num_frames: int) -> Sequence[int]:
    if fps is None:
      return choose(num_frames, max_frames)
    resampled = resample_indices(num_frames, source_fps, fps)
    return [resampled[i] for i in choose(len(resampled), max_frames)]

  reformatter = VideoReformatter()

  def fit(frame: av.VideoFrame) -> np.ndarray:
    return _fit(frame, size, policy, reformatter)

  num_expected = num_stated or _num_packets(where, path)
  if num_expected == 0:
    raise _unusable(where, path, 'holds no frames')
  chosen = chosen_of(num_expected)
  kept, num_frames = _read(where, path, num_stated, set(chosen), fit)
  if num_frames == 0:
    raise _unusable(where, path, 'holds no frames')
  if num_frames != num_expected:
    chosen = chosen_of(num_frames)
    kept, _ = _read(where, path, num_stated, set(chosen), fit)
  if len({image_hw3.shape for image_hw3 in kept.values()}) > 1:
    raise _unusable(where, path, 'changes its frame size')
  frames_thw3 = np.stack([kept[index] for index in chosen])
  return VideoClip(frames_thw3, source_fps, num_frames)


def _read(
  where: str,
  path: pathlib.Path,
  num_stated: int,
  wanted: set[int],
  fit: Callable[[av.VideoFrame], np.ndarray],
) -> tuple[dict[int, np.ndarray], int]:
  """The wanted frames by index, and the number of frames."""
  kept = {}
  num_frames = num_packets = num_discarded = 0
  with _opened(where, path) as (container, stream):
    for packet in container.demux(stream):
      if packet.is_corrupt:
        raise _unusable(where, path, 'is cut short or damaged')
      num_packets += packet.size > 0
      num_discarded += packet.is_discard
      for frame in packet.decode():
        if frame.is_corrupt:
          raise _unusable(where, path, 'is cut short or damaged')
        if num_frames in wanted:
          kept[num_frames] = fit(frame)
        num_frames += 1
  # An edit list omits frames on purpose: they are marked as discarded, or not
  # returned at all. Only then count the frames that are present.
  if num_packets < num_stated:
    num_present = _num_packets(where, path, ignore_editlist='1')
    if num_present < num_stated:
      raise _unusable(
        where,
        path,
        f'is cut short: {num_present} of {num_stated} frames are present',
      )
  if num_frames + num_discarded < num_packets:
    raise _unusable(
      where,
      path,
      f'is damaged: {num_frames} of {num_packets - num_discarded} frames '
      'can be decoded',
    )
  return kept, num_frames


def probe(path: str | pathlib.Path, *, where: str) -> ClipInfo:
  """What a clip states of itself, without decoding it.

  Decoding finds other frames in a file whose edit list leaves frames out.

  Args:
    path: of the clip.
    where: names the record in messages.

  Raises:
    UserError: the file is missing, not a video, or without frames.
  """
  path = pathlib.Path(path)
  if not path.is_file():
    raise _unusable(where, path, 'does not exist')
  with _opened(where, path) as (_, stream):
    num_stated, fps = stream.frames, _rate(stream)
    codec = stream.codec_context  # None if unknown, which decoding tells
    size = (codec.height, codec.width) if codec is not None else (0, 0)
  num_frames = num_stated or _num_packets(where, path)
  if num_frames == 0:
    raise _unusable(where, path, 'holds no frames')
  return ClipInfo(num_frames, fps, *size)


def _num_packets(where: str, path: pathlib.Path, **options: str) -> int:
  """The number of frames in the file, counted without decoding."""
  with _opened(where, path, **options) as (container, stream):
    return sum(packet.size > 0 for packet in container.demux(stream))


def _rate(stream) -> float:
  """Frames per second, or 0 if unknown."""
  return float(stream.average_rate or 0)


def _unusable(where: str, path: pathlib.Path, reason: str) -> UserError:
  return UserError(
    f'{where}: {path} {reason}; fetch or encode it again as mp4, or delete '
    'the record'
  )


@contextlib.contextmanager
def _opened(where: str, path: pathlib.Path, **options: str) -> Iterator:
  """The container and its first video stream; libav errors become ours."""
  try:
    with av.open(str(path), options=_READ_OPTIONS | options) as container:
      # The cover picture of a music file is a video stream, too.
      cover = av.stream.Disposition.attached_pic
      streams = [
        stream
        for stream in container.streams.video
        if not stream.disposition & cover
      ]
      if not streams:
        raise _unusable(where, path, 'holds no video stream')
      yield container, streams[0]
  except av.FFmpegError as error:
    raise _unusable(
      where, path, f'cannot be decoded ({error.strerror})'
    ) from None


def resize(
  frames_thw3: np.ndarray, height: int, width: int, policy: str = 'crop'
) -> np.ndarray:
  """Frames at another size.

  Args:
    frames_thw3: uint8 [T, H, W, 3].
    height: of the result, in pixels.
    width: of the result, in pixels.
    policy: 'stretch' scales height and width independently and so distorts, as
      the reference does. 'crop' scales by one factor until the frame covers the
      target, and crops the centre.

  Returns:
    uint8 [T, height, width, 3].
  """
  _check_policy(policy)
  reformatter = VideoReformatter()
  return np.stack(
    [
      _fit(
        av.VideoFrame.from_ndarray(np.ascontiguousarray(image_hw3), 'rgb24'),
        (height, width),
        policy,
        reformatter,
      )
      for image_hw3 in frames_thw3
    ]
  )


def _check_policy(policy: str) -> None:
  if policy not in POLICIES:
    raise ValueError(f'resize policy {policy!r} is not one of {POLICIES}')


def _fit(
  frame: av.VideoFrame,
  size: tuple[int, int] | None,
  policy: str,
  reformatter: VideoReformatter,
) -> np.ndarray:
  """Scales one frame to RGB [H, W, 3] of the given size."""
  height, width = size or (frame.height, frame.width)
  scaled_height, scaled_width = height, width
  if policy == 'crop':
    # One side is exact; the other is rounded half up.
    if height * frame.width >= width * frame.height:
      scaled_width = _divide(frame.width * height, frame.height)
    else:
      scaled_height = _divide(frame.height * width, frame.width)
  image_hw3 = reformatter.reformat(
    frame,
    width=scaled_width,
    height=scaled_height,
    format='rgb24',
    interpolation=_INTERPOLATION,
  ).to_ndarray()
  top, left = (scaled_height - height) // 2, (scaled_width - width) // 2
  # A copy, so that the cropped part is not kept in memory.
  return image_hw3[top : top + height, left : left + width].copy()


def _divide(numerator: int, denominator: int) -> int:
  """The quotient, rounded half up."""
  return (2 * numerator + denominator) // (2 * denominator)


def nearest_size(
  height: int, width: int, sizes: Sequence[tuple[int, int]]
) -> tuple[int, int]:
  """The (height, width) of `sizes` nearest in aspect ratio, on a log scale.

  Of equally near ones the first wins.
  """
  aspect = math.log(height / width)
  return min(sizes, key=lambda size: abs(math.log(size[0] / size[1]) - aspect))


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
  path = pathlib.Path(path)
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
