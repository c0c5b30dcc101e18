"""Clips: writing mp4 files, which are complete or absent."""

from unittest import mock

from absl.testing import parameterized
import av
import numpy as np
import pytest

from lift_jax.data import video
from lift_jax.data.video_write import write_mp4
from tests.data import clips

WHERE = 'alignment.json record 3 (videos/x.mp4)'


class WriteTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.folder = tmp_path

  def test_round_trip(self):
    frames = clips.moving_square(5, 48, 64)
    path = self.folder / 'a.mp4'
    write_mp4(path, frames, crf=1)
    clip = video.decode(path, where=WHERE)
    self.assertEqual(clip.fps, 8)
    error = np.abs(clip.frames.astype(int) - frames)
    self.assertLess(error.mean(), 4)
    self.assertEqual([p.name for p in self.folder.iterdir()], ['a.mp4'])
    with av.open(str(path)) as container:
      stream = container.streams.video[0]
      self.assertEqual(stream.codec_context.name, 'h264')
      self.assertEqual(stream.codec_context.pix_fmt, 'yuv420p')

  @parameterized.parameters(
    (255, 0, 0),
    (0, 255, 0),
    (0, 0, 255),
    (255, 255, 255),
    (0, 0, 0),
    (200, 30, 60),
  )
  def test_colour(self, *colour):
    frames = np.full((2, 32, 32, 3), colour, np.uint8)
    write_mp4(self.folder / 'a.mp4', frames, crf=1)
    clip = video.decode(self.folder / 'a.mp4', where=WHERE)
    # A wrong matrix or range is off by ten levels and more.
    error = np.abs(clip.frames[0].astype(int) - colour)
    self.assertLess(error.max(), 5)

  def test_rate(self):
    frames = clips.moving_square(3, 16, 16)
    write_mp4(self.folder / 'a.mp4', frames, fps=12.5)
    self.assertEqual(video.decode(self.folder / 'a.mp4', where=WHERE).fps, 12.5)

  @parameterized.parameters(
    ((0, 16, 16, 3), np.uint8),
    ((2, 15, 16, 3), np.uint8),
    ((2, 16, 15, 3), np.uint8),
    ((2, 16, 16, 3), np.float32),
  )
  def test_bad_frames(self, shape, dtype):
    with self.assertRaisesRegex(ValueError, 'uint8 frames of even size'):
      write_mp4(self.folder / 'a.mp4', np.zeros(shape, dtype))
    self.assertEmpty(list(self.folder.iterdir()))

  def test_long_name(self):
    """As long as file systems allow, near enough: 255 bytes."""
    path = self.folder / f'{"x" * 246}.mp4'
    write_mp4(path, clips.moving_square(2, 16, 16))
    self.assertEqual(list(self.folder.iterdir()), [path])

  def test_written_beside(self):
    """A hidden file of its own for each writer, in the same folder."""
    replaced = []
    with mock.patch(
      'os.replace', side_effect=lambda *args: replaced.append(args)
    ):
      for _ in range(2):
        path = self.folder / 'a.mp4'
        write_mp4(path, clips.moving_square(2, 16, 16))
    partials = [partial for partial, _ in replaced]
    self.assertLen(set(partials), 2)
    for partial, target in replaced:
      self.assertEqual(target, path)
      self.assertEqual(partial.parent, self.folder)
      self.assertRegex(partial.name, r'^\..*partial$')
    self.assertEmpty(list(self.folder.iterdir()))

  def test_nothing_half_written(self):
    path = self.folder / 'a.mp4'
    path.write_bytes(b'old')
    frames = mock.MagicMock(shape=(2, 16, 16, 3), dtype=np.uint8)
    frames.__iter__.side_effect = KeyboardInterrupt
    with self.assertRaises(KeyboardInterrupt):
      write_mp4(path, frames)
    self.assertEqual([p.name for p in self.folder.iterdir()], ['a.mp4'])
    self.assertEqual(path.read_bytes(), b'old')
