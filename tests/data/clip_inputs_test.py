"""The table of clips in docs/inputs.md: each row is put to the code."""

import fractions
import pathlib

from absl.testing import parameterized
import av
from av.bitstream import BitStreamFilterContext
import numpy as np
import pytest

from lift_jax.data import gif, picture, video
from lift_jax.errors import UserError
from tests import doc_tables
from tests.data import clips

pytestmark = pytest.mark.fast

_ROWS = doc_tables.rows('inputs.md', 'Clips')
_FRAMES = clips.moving_square(9, 32, 48)


def _read(path: pathlib.Path, **kwargs) -> video.VideoClip:
  """All frames of a clip, about which `decode` and `probe` agree."""
  clip = video.decode(
    path, where='a.json record 0', choose=lambda n, _: range(n), **kwargs
  )
  info = video.probe(path, where='a.json record 0')
  assert info.num_frames == clip.num_source_frames
  assert (info.fps, info.flags) == (clip.fps, clip.flags)
  if not kwargs:
    assert (info.height, info.width) == clip.frames.shape[1:3]
  return clip


def _assert_shows(path, frames_thw3, *flags, **kwargs) -> None:
  clip = _read(path, **kwargs)
  assert clip.frames.shape == np.shape(frames_thw3)
  assert np.abs(clip.frames.astype(int) - frames_thw3).mean() < 5
  assert clip.flags == flags


def _assert_refused(path, words, probed=True, **kwargs) -> None:
  """Whether `probe` refuses it too."""
  with pytest.raises(UserError, match=words) as raised:
    video.decode(path, where='a.json record 0', **kwargs)
  message = str(raised.value)
  assert message.startswith(f'a.json record 0: {path} ')
  assert len(message.splitlines()) == 1
  assert 'encode it again as mp4, or delete the record' in message
  if probed:
    with pytest.raises(UserError, match=words):
      video.probe(path, where='a.json record 0', **kwargs)


def _assert_cuts_refused(path) -> None:
  whole = path.read_bytes()
  for share in (0.3, 0.6, 0.9):
    path.write_bytes(whole[: int(share * len(whole))])
    _assert_refused(path, 'is cut short|cannot be decoded|holds no frames')


def _counted(folder):
  for suffix, codec in (('mp4', 'libx264'), ('mov', 'mpeg4'), ('avi', 'mpeg4')):
    path = folder / f'a.{suffix}'
    options = {'movflags': 'faststart'} if suffix != 'avi' else {}
    clips.write_encoded(
      path, _FRAMES, codec, options={'q': '2'}, container_options=options
    )
    _assert_shows(path, _FRAMES)
    _assert_cuts_refused(path)


def _timed(folder):
  for suffix, codec in (
    ('mkv', 'libx264'),
    ('webm', 'libvpx-vp9'),
    ('flv', 'flv'),
    ('flv', 'libx264'),
  ):
    path = folder / f'{codec}.{suffix}'
    clips.write_encoded(path, _FRAMES, codec, options={'b': '1M'})
    _assert_shows(path, _FRAMES)
    _assert_cuts_refused(path)


def _no_duration(folder):
  clips.write_encoded(
    folder / 'a.mkv', _FRAMES, container_options={'live': '1'}
  )
  _assert_refused(folder / 'a.mkv', 'is Matroska / WebM that does not state')


def _gif(folder):
  path = folder / 'a.gif'
  path.write_bytes(gif.encode_gif(_FRAMES, 8))
  _assert_shows(path, _FRAMES)
  whole = path.read_bytes()
  # Also where the last byte happens to look like the mark.
  for end in (len(whole) - 1, len(whole) // 2, whole.index(b';', 900) + 1):
    path.write_bytes(whole[:end])
    _assert_refused(path, 'is cut short: its end mark is missing')


def _endless(folder):
  for format, name in (
    ('mpegts', 'MPEG-TS'), ('vob', 'MPEG-PS'), ('asf', 'ASF'),
  ):  # fmt: skip
    path = folder / 'a.mp4'
    clips.write_encoded(path, _FRAMES, 'mpeg2video', rate=25, format=format)
    _assert_refused(path, f'is {name}.*a cut goes unnoticed')
  sound = folder / 'b.mp4'
  with av.open(str(sound), 'w', format='ogg') as container:
    stream = container.add_stream('libopus', rate=48000)
    silence = av.AudioFrame.from_ndarray(
      np.zeros((1, 960), np.float32), format='flt', layout='mono'
    )
    silence.sample_rate = 48000
    container.mux(stream.encode(silence))
    container.mux(stream.encode())
  _assert_refused(sound, 'is Ogg')


def _other_suffix(folder):
  clips.write_encoded(folder / 'a.mp4', _FRAMES, format='matroska')
  _assert_shows(folder / 'a.mp4', _FRAMES)
  clips.write_encoded(folder / 'a.gif', _FRAMES, format='mp4')
  _assert_shows(folder / 'a.gif', _FRAMES)


def _hidden_frames(folder):
  """Each frame is preceded by a copy that is not to be shown."""
  clips.write_encoded(folder / 'a.webm', _FRAMES, 'libvpx', options={'b': '1M'})
  with (
    av.open(str(folder / 'a.webm')) as source,
    av.open(str(folder / 'b.webm'), 'w') as target,
  ):
    stream = target.add_stream_from_template(source.streams.video[0])
    for packet in source.demux(video=0):
      if not packet.size:
        continue
      data = bytes(packet)
      if not packet.is_keyframe:
        hidden = av.Packet(bytes([data[0] & ~0x10]) + data[1:])
        hidden.pts = hidden.dts = packet.pts - 5
        hidden.time_base, hidden.stream = packet.time_base, stream
        target.mux(hidden)
      packet.stream = stream
      target.mux(packet)
  clip = _read(folder / 'b.webm')
  assert (len(clip.frames), clip.flags) == (len(_FRAMES), ())


def _no_video(folder):
  for text in ('#EXTM3U\n#EXTINF:8,\na.mp4\n', 'ffconcat version 1.0\n', 'x'):
    (folder / 'a.mp4').write_text(text)
    _assert_refused(folder / 'a.mp4', 'cannot be decoded')
  with av.open(str(folder / 'b.mp4'), 'w') as container:
    stream = container.add_stream('aac', rate=44100)
    silence = av.AudioFrame.from_ndarray(
      np.zeros((1, 1024), np.float32), format='fltp', layout='mono'
    )
    silence.sample_rate = 44100
    container.mux(stream.encode(silence))
    container.mux(stream.encode())
  _assert_refused(folder / 'b.mp4', 'holds no video stream')


def _damaged(folder):
  path = folder / 'a.mp4'
  clips.write_clip(path, 20, 48, 64, faststart=True)
  data = bytearray(path.read_bytes())
  middle = (data.index(b'mdat') + len(data)) // 2
  data[middle : middle + 30] = range(100, 130)
  path.write_bytes(data)
  _assert_refused(path, 'is cut short or damaged', probed=False)


def _no_time(folder):
  path = folder / 'a.mp4'
  clips.write_encoded(path, _FRAMES)
  read = video._read_packets

  def read_some(*args):
    stamps, first, end = read(*args)
    return [None, *stamps[1:]], first, end

  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(video, '_read_packets', read_some)
    _assert_refused(path, 'does not say when its frames are shown')


def _variable_rate(folder):
  """Thirty frames at 30 fps, then two a second."""
  times = [*range(30), *range(44, 120, 15)]
  frames = clips.moving_square(len(times), 32, 48)
  flag = 'variable frame rate: 0.033 to 0.5 s between frames'
  for suffix in ('mp4', 'mkv'):
    path = folder / f'a.{suffix}'
    clips.write_encoded(path, frames, times=times, rate=30)
    clip = _read(path)
    assert clips.frame_numbers(clip.frames) == list(range(len(times)))
    assert [flag[:20] for flag in clip.flags] == [flag[:20]]
    clip = video.decode(path, where='a', fps=8)
    assert clips.frame_numbers(clip.frames)[:5] == [0, 4, 8, 11, 15]


def _edit_list(folder):
  path = folder / 'a.mp4'
  frames = clips.moving_square(50, 32, 48)
  clips.write_encoded(path, frames)
  clips.shorten_edit(path, fractions.Fraction(5, 50))
  _assert_shows(path, frames[:5])
  # Here it hides the frames that cannot be decoded.
  clips.write_open_gop(path)
  clips.remux(path, folder / 'b.mp4')
  _assert_shows(folder / 'b.mp4', frames[12:])


def _open_gop(folder):
  for codec, suffix, num_lost, num_left in (
    ('libx264', 'mp4', 3, 38),
    ('mpeg2video', 'mp4', 2, 38),
    ('mpeg2video', 'mkv', 2, 38),
  ):
    path = folder / f'{codec}.{suffix}'
    clips.write_open_gop(path, codec)
    frames = clips.moving_square(50, 32, 48)[50 - num_left :]
    _assert_shows(path, frames, f'undecodable frames: {num_lost}')


def _too_much_lost(folder):
  path = folder / 'a.mp4'
  clips.write_open_gop(path)
  words = 'begins with 2 of 40 frames that cannot be decoded, more than max_un'
  _assert_refused(path, words, max_undecodable=0.04)
  video.probe(path, where='a', max_undecodable=0.06)
  # Nothing but frames that refer to the one that was cut off.
  clips.write_encoded(folder / 'b.mp4', _FRAMES)
  clips.remux(folder / 'b.mp4', path, lambda index, _: index > 0)
  _assert_refused(path, 'is damaged: 0 of 8 frames can be decoded')


def _turned(folder):
  path = folder / 'a.mp4'
  tall = clips.moving_square(3, 64, 48)
  for turns in range(4):
    for is_mirrored in (False, True):

      def set_up(stream, turns=turns, is_mirrored=is_mirrored):
        stream.set_display_rotation(90 * turns, hflip=is_mirrored)

      clips.write_encoded(path, tall, set_up=set_up)
      # The angle counts counterclockwise; libav mirrors after turning.
      shown = np.rot90(tall, turns, (1, 2))
      if is_mirrored:
        shown = shown[:, :, ::-1]
      _assert_shows(path, shown)
      # Bucket and crop are chosen for the picture as shown.
      sizes = [(64, 48), (48, 64)]
      clip = video.decode(path, 1, where='a', sizes=sizes)
      assert clip.frames.shape[1:3] == sizes[turns % 2]
      assert np.abs(clip.frames.astype(int) - shown[:1]).mean() < 5


def _other_angle(folder):
  path = folder / 'a.mp4'
  clips.write_encoded(
    path, _FRAMES, set_up=lambda stream: stream.set_display_rotation(30)
  )
  _assert_refused(path, 'is turned by an angle that is no multiple of 90')


def _pixel_aspect(folder):
  """32 x 48 with pixels three times as high as wide is shown as 32 x 16."""

  def set_up(stream):
    stream.codec_context.sample_aspect_ratio = fractions.Fraction(1, 3)

  def set_up_turned(stream):
    set_up(stream)
    stream.set_display_rotation(90)

  narrow = picture.resize(_FRAMES, 32, 16, 'stretch_bicubic')
  for suffix in ('mp4', 'mkv', 'avi'):
    path = folder / f'a.{suffix}'
    clips.write_encoded(path, _FRAMES, set_up=set_up)
    _assert_shows(path, narrow)
    clip = video.decode(path, where='a', sizes=[(32, 48), (16, 8)])
    assert clip.frames.shape[1:3] == (16, 8)
  clips.write_encoded(path.with_suffix('.mp4'), _FRAMES, set_up=set_up_turned)
  _assert_shows(path.with_suffix('.mp4'), np.rot90(narrow, 1, (1, 2)))


def _size_changes(folder):
  path = folder / 'a.avi'
  clips.write_pictures(path, [(32, 48)] * 3 + [(48, 32)] * 2)
  _assert_refused(path, 'changes its frame size', probed=False)
  clip = video.decode(path, where='a', sizes=[(16, 16)])
  assert clip.frames.shape == (5, 16, 16, 3)


def _interlaced(folder):
  for codec, options in (
    ('libx264', {'flags': '+ilme+ildct', 'x264-params': 'interlaced=1'}),
    ('mpeg2video', {'flags': '+ilme+ildct', 'q': '2'}),
  ):
    path = folder / 'a.mp4'
    clips.write_encoded(path, _FRAMES, codec, rate=25, options=options)
    _assert_shows(path, _FRAMES, 'interlaced')


def _hdr(folder):
  path = folder / 'a.mp4'
  for name, transfer, primaries, matrix in (
    ('PQ', 16, 9, 9), ('HLG', 18, 9, 9), ('BT.2020', 1, 9, 9),
    ('BT.2020', 2, 2, 9), ('BT.2020', 2, 9, 1),
  ):  # fmt: skip

    def set_up(stream, tags=(transfer, primaries, matrix)):
      codec = stream.codec_context
      codec.color_trc, codec.color_primaries, codec.colorspace = tags

    clips.write_encoded(path, _FRAMES[:2], pix_fmt='yuv420p10', set_up=set_up)
    assert _read(path).flags == (f'HDR: {name}',)


def _colours(folder):
  """Levels are compared in `picture_test`."""
  path = folder / 'a.mp4'
  for matrix in (6, 1):
    for pix_fmt in ('yuv420p', 'yuvj420p', 'yuv420p10'):

      def set_up(stream, matrix=matrix):
        stream.codec_context.colorspace = matrix

      frames = [
        av.VideoFrame.from_ndarray(image_hw3, 'rgb24').reformat(
          format=pix_fmt, dst_colorspace={6: 'ITU601', 1: 'ITU709'}[matrix]
        )
        for image_hw3 in _FRAMES
      ]
      clips.write_encoded(path, frames, pix_fmt=pix_fmt, set_up=set_up)
      _assert_shows(path, _FRAMES)


def _no_colours(folder):
  clips.write_encoded(folder / 'a.mp4', _FRAMES)
  _assert_shows(folder / 'a.mp4', _FRAMES)


def _other_matrix(folder):
  clips.write_encoded(folder / 'a.mp4', _FRAMES)
  with (
    av.open(str(folder / 'a.mp4')) as source,
    av.open(str(folder / 'b.mp4'), 'w') as target,
  ):
    stream = source.streams.video[0]
    copy = target.add_stream_from_template(stream)
    change = BitStreamFilterContext(
      'h264_metadata=matrix_coefficients=8', stream, copy
    )
    for packet in source.demux(stream):
      for changed in change.filter(packet if packet.size else None):
        changed.stream = copy
        target.mux(changed)
  _assert_refused(
    folder / 'b.mp4', r'has colours \(matrix 8, yuv420p\)', probed=False
  )


_CASES = {
  'mp4, mov, avi': _counted,
  'Matroska, WebM, FLV': _timed,
  'Matroska without a duration': _no_duration,
  'GIF': _gif,
  'MPEG-TS, MPEG-PS, ASF, Ogg': _endless,
  'the suffix of another format': _other_suffix,
  'frames of VP8 that are not shown': _hidden_frames,
  'playlist, text, sound': _no_video,
  'cut or damaged file': _damaged,
  'packet without a time': _no_time,
  'frames at a variable rate': _variable_rate,
  'edit list': _edit_list,
  'start of an open GOP that was cut off': _open_gop,
  'more such frames than `max_undecodable`': _too_much_lost,
  'turned by 90, 180, 270 degrees, mirrored': _turned,
  'turned by another angle': _other_angle,
  'pixels that are not square': _pixel_aspect,
  'frame size that changes': _size_changes,
  'interlaced': _interlaced,
  'PQ, HLG, BT.2020': _hdr,
  'BT.601, BT.709, BT.2020; limited, full; 8, 10 bits': _colours,
  'no colour matrix or range': _no_colours,
  'other colour matrix, such as YCgCo': _other_matrix,
}


class ClipInputsTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.folder = tmp_path

  @parameterized.named_parameters((name, name) for name in _CASES)
  def test_row(self, name):
    _CASES[name](self.folder)

  def test_every_row_has_a_case(self):
    self.assertEqual(list(_ROWS), list(_CASES))
    for name, result in _ROWS.items():
      self.assertRegex(result, '^(read|flagged|refused)', name)
