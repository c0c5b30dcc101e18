"""Reading of clips.

The frames of a clip are those that a player shows: edit lists are followed,
pixels that are not square are widened, and the picture is turned upright. What
is unusual about a clip is flagged, see `clip_flags`.

Shape suffixes: T frames, H height, W width; the last axis of 3 is RGB.
"""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
import pathlib
from typing import Any

import av
from av.video.reformatter import ColorPrimaries, ColorTrc
import numpy as np

from lift_jax.data import clip_flags, gif
from lift_jax.data.frame_choice import (
  choose_frames,
  is_variable,
  resample_indices,
)
from lift_jax.data.picture import (
  RESIZES,
  Fitter,
  Geometry,
  PictureError,
  nearest_size,
  read_geometry,
)
from lift_jax.errors import UserError

# What determines the pixels of a given file.
DECODER = ', '.join(
  [f'PyAV {av.__version__}']
  + [
    f'{name} {".".join(map(str, av.library_versions[name]))}'
    for name in ('libavformat', 'libavcodec', 'libavfilter', 'libswscale')
  ]
)

# Names of formats in libav, by how one can tell that a file is whole: these
# state their number of frames,
_COUNTED = ('mov,mp4,m4a,3gp,3g2,mj2', 'avi')
# these how long they last,
_TIMED = ('matroska,webm', 'flv')
# this has a mark at its end,
_ENDED = 'gif'
# and these have nothing of that kind. They are opened to name them.
_ENDLESS = ('mpegts', 'mpeg', 'asf', 'ogg')

# Only local files, and above all no playlists: the library would open the files
# and URLs in them.
_READ_OPTIONS = {
  'protocol_whitelist': 'file',
  'format_whitelist': ','.join((*_COUNTED, *_TIMED, _ENDED, *_ENDLESS)),
}

# Titles may be in other encodings than UTF-8; PyAV 19 reads them as they are.
_TITLES: dict[str, Any] = (
  {'metadata_errors': 'replace'}
  if int(av.__version__.partition('.')[0]) < 19
  else {}
)

_HDR_TRANSFERS = {ColorTrc.SMPTE2084: 'PQ', ColorTrc.ARIB_STD_B67: 'HLG'}
# Colour matrices of BT.2020: AVCOL_SPC_BT2020_NCL and _CL.
_BT2020_MATRICES = (9, 10)
_PROGRESSIVE = 1  # AV_FIELD_PROGRESSIVE; 0 is unknown, above are interlaced


@dataclasses.dataclass(frozen=True)
class VideoClip:
  """Chosen frames of a clip.

  Attributes:
    frames: uint8 [T, H, W, 3].
    fps: frames per second of the file on average, 0 if unknown. The chosen
      frames are further apart if frames were skipped.
    num_source_frames: frames of the clip.
    flags: what is unusual about it, see `clip_flags`.
  """

  frames: np.ndarray
  fps: float
  num_source_frames: int
  flags: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class ClipInfo:
  """A clip without its pixels.

  Attributes:
    num_frames: at least 1.
    fps: frames per second on average, 0 where the file does not say.
    height: as shown, in pixels.
    width: likewise.
    flags: what is unusual about the clip, see `clip_flags`.
  """

  num_frames: int
  fps: float
  height: int
  width: int
  flags: tuple[str, ...] = ()


def probe(
  path: str | pathlib.Path, *, where: str, max_undecodable: float = 1.0
) -> ClipInfo:
  """Describes a clip; decodes its first frame only.

  Args:
    path: of the clip.
    where: location of the record, for messages.
    max_undecodable: see `clip_flags.ClipRules`.

  Raises:
    UserError: the file is missing, not a video, without frames, or cut.
  """
  return _scan(where, pathlib.Path(path), max_undecodable).info


def decode(
  path: str | pathlib.Path,
  max_frames: int = 49,
  *,
  where: str,
  fps: float | None = None,
  sizes: Sequence[tuple[int, int]] = (),
  policy: str = 'crop',
  choose: Callable[[int, int], Sequence[int]] = choose_frames,
  max_undecodable: float = 1.0,
) -> VideoClip:
  """Decodes chosen frames of a clip, by default those for training.

  Frames are decoded in order; chosen ones are scaled immediately, the others
  discarded. Only the first video stream is read.

  Args:
    path: of the clip; mp4, mov, avi, Matroska, WebM, FLV or GIF by content.
    max_frames: maximum number of frames.
    where: location of the record, for messages.
    fps: if given, the clip is first resampled to this rate, by the times at
      which its frames are shown; None keeps the frames of the file, as the
      reference does.
    sizes: allowed (height, width) of the result, see `nearest_size`; if empty,
      the size as shown is kept.
    policy: a name of `picture.RESIZES`.
    choose: maps the number of frames and `max_frames` to ascending indices.
    max_undecodable: see `clip_flags.ClipRules`.

  Raises:
    UserError: the file is missing, not a video, without frames, damaged, or cut
      even if some frames decode. Only a fragmented mp4 that is cut exactly
      between two fragments is taken for a shorter clip.
  """
  path = pathlib.Path(path)
  if policy not in RESIZES:
    raise ValueError(f'resize policy {policy!r} is not one of {list(RESIZES)}')
  scan = _scan(where, path, max_undecodable)
  info, indices = scan.info, range(scan.info.num_frames)
  if fps is not None:
    indices = resample_indices(scan.times, fps, scan.tick)
  chosen = [indices[index] for index in choose(len(indices), max_frames)]
  size = nearest_size(info.height, info.width, sizes) if sizes else None
  fit = Fitter(scan.geometry, policy, size)
  kept, num_frames = _read(where, path, set(chosen), fit)
  if num_frames != info.num_frames:
    raise _damaged(where, path, num_frames, info.num_frames)
  if len({image_hw3.shape for image_hw3 in kept.values()}) > 1:
    raise _unusable(where, path, 'changes its frame size')
  frames_thw3 = np.stack([kept[index] for index in chosen])
  return VideoClip(frames_thw3, info.fps, num_frames, info.flags)


@dataclasses.dataclass(frozen=True)
class _Scan:
  """What the packets and the first frame tell of a clip.

  Attributes:
    info: of the clip.
    geometry: how its pictures are shown.
    times: when each frame is shown, in seconds; ascending.
    tick: resolution of the times, in seconds.
  """

  info: ClipInfo
  geometry: Geometry
  times: list[float]
  tick: float


def _scan(where: str, path: pathlib.Path, max_undecodable: float) -> _Scan:
  """Reads all packets, and decodes until there is a frame."""
  if not path.is_file():
    raise _unusable(where, path, 'does not exist')
  with _opened(where, path) as (container, stream):
    stamps, first, end = _read_packets(where, path, container, stream)
    if first is None:
      raise _damaged(where, path, 0, len(stamps))
    tick = float(stream.time_base)
    times = sorted(stamp * tick for stamp in stamps if stamp is not None)
    if len(times) < len(stamps):
      raise _unusable(where, path, 'does not say when its frames are shown')
    _check_duration(where, path, container, times, end)
    fps = float(stream.average_rate or 0)
    geometry = read_geometry(first, stream.sample_aspect_ratio)
    flags = _picture_flags(first, stream)
    is_timed = container.format.name != 'avi'
  # Frames that refer to others before the first key frame cannot be decoded.
  num_undecodable = 0
  if is_timed and first.pts is not None:
    num_undecodable = sum(time < first.pts * tick for time in times)
  if num_undecodable > max_undecodable * len(times):
    raise _unusable(
      where,
      path,
      f'begins with {num_undecodable} of {len(times)} frames that cannot be '
      f'decoded, more than max_undecodable = {max_undecodable:g}',
    )
  times = times[num_undecodable:]
  flags += _time_flags(times, tick)
  if num_undecodable:
    flags.append(f'{clip_flags.UNDECODABLE}: {num_undecodable}')
  height, width = geometry.shown_pixels(first.height, first.width)
  info = ClipInfo(len(times), fps, height, width, tuple(flags))
  return _Scan(info, geometry, times, tick)


def _read_packets(
  where: str,
  path: pathlib.Path,
  container: av.container.InputContainer,
  stream: av.VideoStream,
) -> tuple[list[int | None], av.VideoFrame | None, float]:
  """Reads all packets, and decodes until there is a frame.

  Returns:
    The time of each frame in ticks of the stream, in any order, None where it
    is not stated; the first frame, or None if none can be decoded; and the time
    at which the last packet of any stream ends, in seconds.

  Raises:
    UserError: the clip is cut or has no frames.
  """
  kind = container.format.name
  stamps, first, end, num_packets = [], None, 0.0, 0
  # The stated duration may be that of the sound.
  streams = () if kind in _TIMED else (stream,)
  for packet in container.demux(*streams):
    if packet.is_corrupt:
      raise _unusable(where, path, 'is cut short or damaged')
    if packet.size and packet.pts is not None:
      last = packet.pts + (packet.duration or 0)
      end = max(end, float(last * packet.time_base))
    if packet.stream_index != stream.index:
      continue
    if first is None:
      first = next(iter(stream.decode(packet)), None)
    if packet.size:
      num_packets += 1
      if not packet.is_discard and _is_shown(packet):
        # AVI has no times: frames come at an even rate, in the order decoded.
        stamps.append(packet.dts if kind == 'avi' else packet.pts)
  if kind in _COUNTED and num_packets < stream.frames:
    # An edit list omits frames on purpose. Only then count those present.
    with _opened(where, path, ignore_editlist='1') as (present, video):
      num_packets = sum(packet.size > 0 for packet in present.demux(video))
    if num_packets < stream.frames:
      raise _unusable(
        where,
        path,
        f'is cut short: {num_packets} of {stream.frames} frames are present',
      )
  if kind == _ENDED and not gif.is_complete(path):
    raise _unusable(where, path, 'is cut short: its end mark is missing')
  if not stamps:
    raise _unusable(where, path, 'holds no frames')
  return stamps, first, end


def _is_shown(packet: av.Packet) -> bool:
  """Whether a packet holds a frame to show; VP8 has others, for reference."""
  is_vp8 = packet.stream.codec_context.name == 'vp8'
  # The bit show_frame, RFC 6386 section 9.1.
  return not is_vp8 or bool(memoryview(packet)[0] & 0x10)


def _check_duration(
  where: str,
  path: pathlib.Path,
  container: av.container.InputContainer,
  times: Sequence[float],
  end: float,
) -> None:
  """Raises a UserError if a file that states its duration ends before it.

  Args:
    times: when each frame is shown, in seconds.
    end: of the last packet of any stream, in seconds.
  """
  if container.format.name not in _TIMED:
    return
  if not container.duration:
    raise _unusable(
      where,
      path,
      f'is {container.format.long_name} that does not state its duration, so '
      'that a cut would go unnoticed',
    )
  duration = container.duration / av.time_base
  gap = (times[-1] - times[0]) / max(1, len(times) - 1)
  # FLV does not say how long its last frame lasts.
  end = max(end, times[-1] + gap)
  if end + gap / 2 < duration:
    raise _unusable(
      where,
      path,
      f'is cut short: {end:.3g} of {duration:.3g} seconds are present',
    )


def _picture_flags(frame: av.VideoFrame, stream: av.VideoStream) -> list[str]:
  """Flags that the first frame and the header give."""
  flags = []
  field_order = stream.codec_context.field_order
  if frame.interlaced_frame or field_order > _PROGRESSIVE:
    flags.append(clip_flags.INTERLACED)
  if frame.color_trc in _HDR_TRANSFERS:
    flags.append(f'{clip_flags.HDR}: {_HDR_TRANSFERS[frame.color_trc]}')
  elif (
    frame.color_primaries == ColorPrimaries.BT2020
    or frame.colorspace in _BT2020_MATRICES
  ):
    flags.append(f'{clip_flags.HDR}: BT.2020')
  return flags


def _time_flags(times: Sequence[float], tick: float) -> list[str]:
  """Flags that the times of the frames give."""
  if not is_variable(times, tick):
    return []
  gaps = np.diff(times)
  return [
    f'{clip_flags.VARIABLE_RATE}: {gaps.min():.3g} to {gaps.max():.3g} s '
    'between frames'
  ]


def _read(
  where: str,
  path: pathlib.Path,
  wanted: set[int],
  fit: Callable[[av.VideoFrame], np.ndarray],
) -> tuple[dict[int, np.ndarray], int]:
  """The wanted frames by index, and the number of frames that decode."""
  kept, num_frames = {}, 0
  with _opened(where, path) as (container, stream):
    for packet in container.demux(stream):
      for frame in packet.decode():
        if frame.is_corrupt:
          raise _unusable(where, path, 'is cut short or damaged')
        if num_frames in wanted:
          kept[num_frames] = fit(frame)
        num_frames += 1
  return kept, num_frames


def _damaged(
  where: str, path: pathlib.Path, num_decodable: int, num_frames: int
) -> UserError:
  return _unusable(
    where,
    path,
    f'is damaged: {num_decodable} of {num_frames} frames can be decoded',
  )


def _unusable(where: str, path: pathlib.Path, reason: str) -> UserError:
  return UserError(
    f'{where}: {path} {reason}; fetch or encode it again as mp4, or delete '
    'the record'
  )


@contextlib.contextmanager
def _opened(where: str, path: pathlib.Path, **options: str) -> Iterator:
  """The container and its first video stream; errors become UserErrors."""
  try:
    with av.open(
      str(path), options=_READ_OPTIONS | options, **_TITLES
    ) as container:
      if container.format.name in _ENDLESS:
        raise _unusable(
          where,
          path,
          f'is {container.format.long_name}, in which a cut goes unnoticed',
        )
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
  except PictureError as error:
    raise _unusable(where, path, str(error)) from None
