"""Clips: frame selection, decoding of intact and broken files, scaling."""

import fractions
import json
import struct

from absl.testing import parameterized
import av
import numpy as np
import pytest

from lift_jax.data import picture, records, video
from lift_jax.data.frame_choice import choose_frames
from lift_jax.data.video_write import write_mp4
from lift_jax.errors import UserError
from tests.data import clips
from tests.published import OURS, THEIRS, require

WHERE = 'alignment.json record 3 (videos/x.mp4)'


class _FolderTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.folder = tmp_path


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
    chosen = choose_frames(num_frames)
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
    expected = picture.resize(frames, 20, 26, policy)
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
    clips.remux(path, fragmented, movflags='frag_keyframe+empty_moov')
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
    frames = clips.moving_square(50, 32, 32)
    clips.write_encoded(path, frames, options={'g': str(keyframe_distance)})
    clips.shorten_edit(path, fractions.Fraction(1, 2))
    clip = video.decode(path, where=WHERE)
    self.assertEqual(clip.num_source_frames, 25)
    self.assertEqual(clips.frame_numbers(clip.frames), list(range(25)))


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
    clips.write_pictures(
      path, [(64, 64)] * 3, options={'movflags': '+faststart'}
    )
    path.write_bytes(path.read_bytes()[:-300])
    self.assert_unusable('a.mp4', 'is cut short or damaged')

  def test_key_frame_gone(self):
    source = self.folder / 'a.mp4'
    clips.write_clip(source, 10, 32, 32)
    clips.remux(source, self.folder / 'b.mp4', lambda index, _: index)
    self.assert_unusable('b.mp4', 'is damaged: 0 of 9 frames')

  def test_size_changes(self):
    path = self.folder / 'a.avi'
    clips.write_pictures(path, [(32, 48)] * 3 + [(48, 32)] * 2)
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
    write_mp4(path, clips.moving_square(5, 16, 16))
    path.write_bytes(path.read_bytes().replace(b'avc1', b'zzzz'))
    self.assert_unusable('a.mp4', 'cannot be decoded')

  def test_missing(self):
    self.assert_unusable('a.mp4', 'does not exist')

  def test_folder(self):
    (self.folder / 'a.mp4').mkdir()
    self.assert_unusable('a.mp4', 'does not exist')


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
