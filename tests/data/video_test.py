"""Clips: frame selection, decoding of intact and broken files, scaling."""

import fractions
import json
import math
import struct
from unittest import mock

from absl.testing import parameterized
import av
import numpy as np
import pytest

from lift_jax.data import records, video
from lift_jax.errors import UserError
from tests.data import clips
from tests.published import OURS, THEIRS, require

WHERE = 'alignment.json record 3 (videos/x.mp4)'


class _FolderTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.folder = tmp_path


class ChooseFramesTest(parameterized.TestCase):
  @parameterized.parameters(
    (1, 1),
    (2, 1),
    (3, 1),
    (4, 1),
    (5, 5),
    (33, 33),
    (40, 37),
    (48, 45),
    (49, 49),
  )
  def test_short(self, num_frames, num_chosen):
    self.assertEqual(video.choose_frames(num_frames), list(range(num_chosen)))

  @parameterized.parameters(
    (50, 1),
    (97, 1),
    (98, 2),
    (146, 2),
    (147, 3),
    (490, 10),
  )
  def test_long(self, num_frames, step):
    self.assertEqual(
      video.choose_frames(num_frames), list(range(0, 49 * step, step))
    )

  def test_always_4k_plus_1(self):
    for num_frames in range(1, 200):
      for max_frames in (1, 9, 16, 49):
        indices = video.choose_frames(num_frames, max_frames)
        self.assertEqual(len(indices) % 4, 1)
        self.assertLess(max(indices), num_frames)
        self.assertLessEqual(len(indices), max_frames)
        # No more is dropped than needed.
        self.assertGreater(len(indices), min(num_frames, max_frames) - 4)

  def test_none(self):
    with self.assertRaises(ValueError):
      video.choose_frames(0)


class ResampleIndicesTest(parameterized.TestCase):
  @parameterized.parameters(
    (10, 8, 8, list(range(10))),
    (10, 24, 8, [0, 3, 6, 9]),
    (9, 24, 8, [0, 3, 6]),
    (9, 30, 8, [0, 4, 8]),  # times 0, 3.75, 7.5 in frames
    (4, 4, 8, [0, 1, 1, 2, 2, 3, 3]),  # halves go to the later frame
    (1, 30, 8, [0]),
    (1, 8, 30, [0]),
  )
  def test_nearest(self, num_frames, source_fps, target_fps, indices):
    self.assertEqual(
      video.resample_indices(num_frames, source_fps, target_fps), indices
    )

  def test_ntsc(self):
    indices = video.resample_indices(145, 24000 / 1001, 8000 / 1001)
    self.assertEqual(indices, list(range(0, 145, 3)))

  @parameterized.parameters(0, -1, math.nan, math.inf)
  def test_bad_rate(self, fps):
    with self.assertRaisesRegex(ValueError, 'frame rate'):
      video.resample_indices(10, fps, 8)
    with self.assertRaisesRegex(ValueError, 'frame rate'):
      video.resample_indices(10, 8, fps)


class DecodeTest(_FolderTest):
  def decode(self, name, **kwargs):
    return video.decode(self.folder / name, where=WHERE, **kwargs)

  @parameterized.parameters(
    (1, 16, 16),
    (6, 45, 63),
    (13, 33, 48),
    (49, 48, 64),
    (50, 16, 22),
  )
  def test_pixels(self, num_frames, height, width):
    frames = clips.write_clip(self.folder / 'a.mp4', num_frames, height, width)
    clip = self.decode('a.mp4')
    chosen = video.choose_frames(num_frames)
    self.assertEqual(clip.frames.dtype, np.uint8)
    self.assertEqual(clip.frames.shape, (len(chosen), height, width, 3))
    self.assertEqual(clip.num_source_frames, num_frames)
    self.assertEqual(clip.fps, 8)
    self.assertEqual(clips.frame_numbers(clip.frames), chosen)
    # Halved chroma blurs edges of colour; swapped channels or a wrong matrix
    # would be off by more, on average.
    error = np.abs(clip.frames.astype(int) - frames[chosen]).mean()
    self.assertLess(error, 4)

  def test_step(self):
    clips.write_clip(self.folder / 'a.mp4', 55, 16, 20)
    clip = self.decode('a.mp4', max_frames=9)
    self.assertEqual(clips.frame_numbers(clip.frames), list(range(0, 54, 6)))

  def test_own_choice(self):

    def choose(num_frames, max_frames):
      return [0, max_frames, num_frames - 1]

    clips.write_clip(self.folder / 'a.mp4', 40, 16, 20, fps=24)
    clip = self.decode('a.mp4', max_frames=7, choose=choose)
    self.assertEqual(clips.frame_numbers(clip.frames), [0, 7, 39])
    clip = self.decode('a.mp4', max_frames=7, fps=8, choose=choose)
    self.assertEqual(clips.frame_numbers(clip.frames), [0, 21, 39])

  def test_resampled(self):
    clips.write_clip(self.folder / 'a.mp4', 40, 16, 20, fps=24)
    clip = self.decode('a.mp4', fps=8)
    # 14 frames at 8 fps, of which 13 are 4k + 1.
    self.assertEqual(clips.frame_numbers(clip.frames), list(range(0, 39, 3)))
    self.assertEqual((clip.fps, clip.num_source_frames), (24, 40))

  def test_resampled_up(self):
    clips.write_clip(self.folder / 'a.mp4', 3, 16, 20, fps=4)
    clip = self.decode('a.mp4', fps=8)
    self.assertEqual(clips.frame_numbers(clip.frames), [0, 1, 1, 2, 2])

  @parameterized.parameters('crop', 'stretch')
  def test_size(self, policy):
    frames = clips.write_clip(self.folder / 'a.mp4', 5, 40, 90)
    clip = self.decode('a.mp4', sizes=[(20, 26)], policy=policy)
    expected = video.resize(frames, 20, 26, policy)
    self.assertEqual(clip.frames.shape, (5, 20, 26, 3))
    error = np.abs(clip.frames.astype(int) - expected).mean()
    self.assertLess(error, 4)

  def test_unknown_policy(self):
    with self.assertRaisesRegex(ValueError, 'crop'):
      self.decode('a.mp4', policy='squeeze')


class FrameCountTest(_FolderTest):
  """The count in the file is a hint, not the truth."""

  def write_avi(self, num_frames, num_stated):
    path = self.folder / 'a.avi'
    clips.write_clip(path, num_frames, 16, 20)
    data = bytearray(path.read_bytes())
    # dwTotalFrames of the main header, dwLength of the stream header.
    for tag, offset in ((b'avih', 24), (b'strh', 40)):
      struct.pack_into('<I', data, data.index(tag) + offset, num_stated)
    path.write_bytes(data)
    with av.open(str(path)) as container:
      self.assertEqual(container.streams.video[0].frames, num_stated)
    return path

  def test_count(self):
    path = self.folder / 'a.mp4'
    clips.write_clip(path, 25, 16, 20)
    self.assertEqual(video.probe(path, where=WHERE).num_frames, 25)
    with self.assertRaisesRegex(UserError, 'does not exist'):
      video.probe(self.folder / 'b.mp4', where=WHERE)
    path.write_bytes(b'no video')
    with self.assertRaisesRegex(UserError, 'cannot be decoded'):
      video.probe(path, where=WHERE)

  def test_more_than_stated(self):
    path = self.write_avi(num_frames=56, num_stated=20)
    clip = video.decode(path, max_frames=9, where=WHERE)
    self.assertEqual(clip.num_source_frames, 56)
    self.assertEqual(clips.frame_numbers(clip.frames), list(range(0, 54, 6)))

  def test_fewer_than_stated(self):
    path = self.write_avi(num_frames=20, num_stated=56)
    with self.assertRaisesRegex(UserError, 'cut short: 20 of 56 frames'):
      video.decode(path, where=WHERE)

  def test_not_stated(self):
    path = self.folder / 'a.mp4'
    clips.write_clip(path, 25, 16, 20)
    fragmented = self.folder / 'b.mp4'
    _remux(path, fragmented, movflags='frag_keyframe+empty_moov')
    with av.open(str(fragmented)) as container:
      self.assertEqual(container.streams.video[0].frames, 0)
    self.assertEqual(video.probe(fragmented, where=WHERE).num_frames, 25)
    clip = video.decode(fragmented, max_frames=9, where=WHERE)
    self.assertEqual(clip.num_source_frames, 25)
    self.assertEqual(clips.frame_numbers(clip.frames), list(range(0, 18, 2)))

  @parameterized.parameters(12, 300)  # one key frame, or several
  def test_edit_list(self, keyframe_distance):
    """Frames left out by an edit list are no damage."""
    path = self.folder / 'a.mp4'
    with av.open(str(path), 'w') as container:
      stream = container.add_stream('libx264', rate=8)
      stream.height = stream.width = 32
      stream.options = {'g': str(keyframe_distance), 'crf': '4'}
      for image_hw3 in clips.moving_square(50, 32, 32):
        frame = av.VideoFrame.from_ndarray(image_hw3, 'rgb24')
        container.mux(stream.encode(frame))
      container.mux(stream.encode())
    data = bytearray(path.read_bytes())
    # After type, version and count: the duration of the first edit.
    offset = data.index(b'elst') + 12
    (duration,) = struct.unpack_from('>I', data, offset)
    struct.pack_into('>I', data, offset, duration // 2)
    path.write_bytes(data)
    clip = video.decode(path, where=WHERE)
    self.assertEqual(clip.num_source_frames, 25)
    self.assertEqual(clips.frame_numbers(clip.frames), list(range(25)))


def _remux(source_path, target_path, first=0, **options):
  """Copies the packets from `first` on into another file."""
  with (
    av.open(str(source_path)) as source,
    av.open(str(target_path), 'w', options=options) as target,
  ):
    stream = target.add_stream_from_template(source.streams.video[0])
    for index, packet in enumerate(source.demux(video=0)):
      if packet.size and index >= first:
        packet.stream = stream
        target.mux(packet)


def _write_pictures(path, sizes, **kwargs):
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


class BrokenFileTest(_FolderTest):
  def assert_unusable(self, name, reason, scaled=(False, True), **kwargs):
    """Whether the frames are to be scaled or not, unless told."""
    for is_scaled in scaled:
      sizes = ((16, 16),) if is_scaled else ()
      with self.assertRaises(UserError) as raised:
        video.decode(self.folder / name, where=WHERE, sizes=sizes, **kwargs)
      message = str(raised.exception)
      self.assertLen(message.splitlines(), 1)
      self.assertStartsWith(message, WHERE)
      self.assertIn(str(self.folder / name), message)
      self.assertIn(reason, message)
      self.assertIn('fetch or encode it again as mp4, or delete', message)

  @parameterized.product(
    fraction=(0.02, 0.3, 0.6, 0.9, 0.97), faststart=(True, False)
  )
  def test_cut(self, fraction, faststart):
    path = self.folder / 'a.mp4'
    clips.write_clip(path, 50, 48, 64, faststart=faststart)
    data = path.read_bytes()
    self.assertEqual(data.index(b'moov') < data.index(b'mdat'), faststart)
    path.write_bytes(data[: int(len(data) * fraction)])
    self.assert_unusable('a.mp4', '')

  def test_cut_between_frames(self):
    """Whole frames only, so that nothing fails to decode."""
    path = self.folder / 'a.mp4'
    clips.write_clip(path, 50, 48, 64, faststart=True)
    with av.open(str(path)) as container:
      ends = [p.pos + p.size for p in container.demux(video=0) if p.size]
    path.write_bytes(path.read_bytes()[: ends[29]])
    self.assert_unusable('a.mp4', 'cut short: 30 of 50 frames')

  def test_cut_in_the_last_frame(self):
    """The codec hides it: every frame decodes, the last one half grey."""
    path = self.folder / 'a.mp4'
    _write_pictures(path, [(64, 64)] * 3, options={'movflags': '+faststart'})
    path.write_bytes(path.read_bytes()[:-300])
    self.assert_unusable('a.mp4', 'is cut short or damaged')

  def test_key_frame_gone(self):
    source = self.folder / 'a.mp4'
    clips.write_clip(source, 10, 32, 32)
    _remux(source, self.folder / 'b.mp4', first=1)
    self.assert_unusable('b.mp4', 'is damaged: 0 of 9 frames')

  def test_size_changes(self):
    path = self.folder / 'a.avi'
    _write_pictures(path, [(32, 48)] * 3 + [(48, 32)] * 2)
    self.assert_unusable('a.avi', 'changes its frame size', scaled=(False,))
    clip = video.decode(path, where=WHERE, sizes=[(16, 16)])
    self.assertEqual(clip.frames.shape, (5, 16, 16, 3))

  def test_overwritten(self):
    """Decoders paper over a few wrong bytes, and only mark the frame."""
    path = self.folder / 'a.mp4'
    clips.write_clip(path, 20, 48, 64, faststart=True)
    data = bytearray(path.read_bytes())
    middle = (data.index(b'mdat') + len(data)) // 2
    data[middle : middle + 30] = range(100, 130)
    path.write_bytes(data)
    self.assert_unusable('a.mp4', 'is cut short or damaged')

  @parameterized.named_parameters(
    ('empty', ''),
    ('text', 'this is no video\n' * 100),
    ('html', '<html><body>404 Not Found</body></html>'),
    # Playlists would open other files, or addresses.
    ('hls', '#EXTM3U\n#EXTINF:8,\na.mp4\n#EXT-X-ENDLIST\n'),
    ('concat', 'ffconcat version 1.0\nfile a.mp4\n'),
  )
  def test_text(self, text):
    clips.write_clip(self.folder / 'a.mp4', 5, 16, 16)
    (self.folder / 'b.mp4').write_text(text)
    self.assert_unusable('b.mp4', 'cannot be decoded')

  @parameterized.parameters(False, True)
  def test_no_video_stream(self, has_cover):
    """Sound alone; a cover picture is no video, though libav lists it so."""
    with av.open(str(self.folder / 'a.mp4'), 'w') as container:
      stream = container.add_stream('aac', rate=44100)
      if has_cover:
        cover = container.add_stream('png', rate=1)
        cover.height = cover.width = 16
        cover.pix_fmt = 'rgb24'
        cover.disposition = av.stream.Disposition.attached_pic
        image_hw3 = clips.moving_square(1, 16, 16)[0]
        frame = av.VideoFrame.from_ndarray(image_hw3, 'rgb24')
        container.mux(cover.encode(frame))
      silence = av.AudioFrame.from_ndarray(
        np.zeros((1, 1024), np.float32), format='fltp', layout='mono'
      )
      silence.sample_rate = 44100
      container.mux(stream.encode(silence))
      container.mux(stream.encode())
    with av.open(str(self.folder / 'a.mp4')) as container:
      self.assertLen(container.streams.video, int(has_cover))
    self.assert_unusable('a.mp4', 'holds no video stream')

  def test_no_frames(self):
    options = {'movflags': 'frag_keyframe+empty_moov'}
    with av.open(str(self.folder / 'a.mp4'), 'w', options=options) as container:
      stream = container.add_stream('mpeg4', rate=8)
      stream.height = stream.width = 16
      stream.pix_fmt = 'yuv420p'
      stream.codec_context.open()
      container.start_encoding()
    self.assert_unusable('a.mp4', 'holds no frames')

  def test_unknown_codec(self):
    path = self.folder / 'a.mp4'
    video.write_mp4(path, clips.moving_square(5, 16, 16))
    path.write_bytes(path.read_bytes().replace(b'avc1', b'zzzz'))
    self.assert_unusable('a.mp4', 'cannot be decoded')

  def test_missing(self):
    self.assert_unusable('a.mp4', 'does not exist')

  def test_folder(self):
    (self.folder / 'a.mp4').mkdir()
    self.assert_unusable('a.mp4', 'does not exist')

  def test_no_rate(self):
    clips.write_clip(self.folder / 'a.mp4', 5, 16, 16)
    with mock.patch.object(video, '_rate', return_value=0.0):
      clip = video.decode(self.folder / 'a.mp4', where=WHERE)
      self.assertEqual((len(clip.frames), clip.fps), (5, 0))
      self.assert_unusable('a.mp4', 'states no frame rate', fps=8)


class ResizeTest(parameterized.TestCase):
  def test_same_size(self):
    frames = clips.moving_square(2, 33, 47)
    for policy in video.POLICIES:
      np.testing.assert_array_equal(
        video.resize(frames, 33, 47, policy), frames
      )

  def test_crop_keeps_the_centre(self):
    # 20 high, 60 wide; thirds of 20 columns. The target keeps the middle one.
    frames = np.zeros((1, 20, 60, 3), np.uint8)
    frames[:, :, 20:40] = (255, 0, 0)
    cropped = video.resize(frames, 20, 20, 'crop')
    np.testing.assert_array_equal(cropped, frames[:, :, 20:40])
    turned = video.resize(frames.swapaxes(1, 2), 20, 20, 'crop')
    np.testing.assert_array_equal(turned, frames[:, :, 20:40])

  def test_stretch_keeps_all(self):
    frames = np.zeros((1, 20, 60, 3), np.uint8)
    frames[:, :, 30:] = 255
    stretched = video.resize(frames, 20, 20, 'stretch').astype(int)
    self.assertLess(stretched[:, :, :8].max(), 30)
    self.assertGreater(stretched[:, :, 12:].min(), 225)

  @parameterized.parameters(
    (480, 720, 49, 85),
    (333, 500, 64, 96),
    (17, 31, 16, 30),
    (2, 300, 16, 16),
    (300, 2, 16, 16),
    (16, 16, 17, 200),
  )
  def test_any_shape(self, height, width, to_height, to_width):
    frames = clips.moving_square(1, height, width)
    for policy in video.POLICIES:
      resized = video.resize(frames, to_height, to_width, policy)
      self.assertEqual(resized.shape, (1, to_height, to_width, 3))
      self.assertEqual(resized.dtype, np.uint8)

  def test_circle_stays_round(self):
    y, x = np.mgrid[:60, :120]
    circle = np.hypot(y - 29.5, x - 59.5) < 20
    frames = (circle[None, :, :, None] * np.full(3, 255)).astype(np.uint8)
    cropped = video.resize(frames, 30, 30, 'crop')[0, :, :, 0] > 127
    self.assertEqual(cropped.any(0).sum(), cropped.any(1).sum())
    stretched = video.resize(frames, 30, 30, 'stretch')[0, :, :, 0] > 127
    self.assertLess(stretched.any(0).sum(), 0.6 * stretched.any(1).sum())


class NearestSizeTest(parameterized.TestCase):
  @parameterized.parameters(
    ((1080, 1920), (480, 854)),
    ((720, 720), (480, 480)),
    ((1920, 1080), (854, 480)),
    ((480, 720), (480, 720)),
  )
  def test_nearest_size(self, size, nearest):
    sizes = [(480, 720), (480, 480), (480, 854), (854, 480)]
    self.assertEqual(video.nearest_size(*size, sizes), nearest)

  def test_nearest_size_by_ratio(self):
    # 1.4 is nearer to 2 by difference than 1 : 1 / 1.4 is to 1 : 2.
    sizes = [(1, 1), (2, 1), (1, 2)]
    self.assertEqual(video.nearest_size(14, 10, sizes), (1, 1))
    self.assertEqual(video.nearest_size(10, 14, sizes), (1, 1))
    self.assertEqual(video.nearest_size(15, 10, sizes), (2, 1))
    self.assertEqual(video.nearest_size(10, 15, sizes), (1, 2))


class PublishedSampleTest(parameterized.TestCase):
  @parameterized.parameters((OURS, 4, 9, (16, 24)), (THEIRS, 12, 49, (48, 72)))
  def test_all_clips(self, root, num_videos, num_frames, size):
    require(root)
    root = root / 'lift_sample'
    read = records.read_alignment(root, ['alignment.json'])
    names = {
      item['video']
      for item in json.loads((root / 'alignment.json').read_text())
    }
    self.assertLen(names, num_videos)
    self.assertEqual({record.video for record in read.records}, names)
    for record in read.records:
      clip = video.decode(record.path, where=record.where, sizes=[size])
      self.assertEqual(clip.frames.shape, (num_frames, *size, 3))
      self.assertEqual((clip.fps, clip.num_source_frames), (8, num_frames))
