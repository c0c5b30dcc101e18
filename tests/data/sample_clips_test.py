"""The clips that a demo makes for itself."""

from absl.testing import parameterized
import pytest

from lift_jax.data import records, sample_clips, video
from lift_jax.errors import UserError


class SampleClipsTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.folder = tmp_path

  def make(self, name='clips', **kwargs):
    arguments = dict(num_clips=5, num_frames=9, height=32, width=48) | kwargs
    sample_clips.make_sample_clips(self.folder / name, **arguments)
    return self.folder / name

  def test_readable(self):
    folder = self.make()
    read = records.read_alignment(folder, ['alignment.json'], ['real.json'])
    self.assertEqual(
      [record.reward for record in read.records],
      [0.9, 0.67, 0.62, 0.38, 0.05, 1.0, 1.0],
    )
    for record in read.records:
      clip = video.decode(record.path, where=record.where)
      self.assertEqual(clip.frames.shape, (9, 32, 48, 3))
    self.assertEqual([p.name for p in self.folder.iterdir()], ['clips'])

  def test_flaws_show(self):
    folder = self.make(num_frames=17)
    decoded = [
      video.decode(folder / f'videos/clip_{i:03d}.mp4', where='').frames
      for i in range(5)
    ]
    background = [frames[:, :3, :3].astype(float).std() for frames in decoded]
    self.assertLess(background[0], 3)
    self.assertGreater(background[1], 6)
    self.assertGreater(background[4], 15)

  def test_deterministic_and_kept(self):
    first, second = self.make('first'), self.make('second')
    other = self.make('other', seed=1)
    names = sorted(p.relative_to(first) for p in first.rglob('*.*'))
    self.assertLen(names, 10)
    for name in names:
      self.assertEqual(
        (first / name).read_bytes(), (second / name).read_bytes(), name
      )
    self.assertNotEqual(
      (first / 'alignment.json').read_text(),
      (other / 'alignment.json').read_text(),
    )
    times = [(first / name).stat().st_mtime_ns for name in names]
    self.make('first')
    self.assertEqual(
      times, [(first / name).stat().st_mtime_ns for name in names]
    )

  def test_other_settings(self):
    self.make()
    with self.assertRaisesRegex(UserError, 'other settings; delete the folder'):
      self.make(num_frames=13)

  def test_foreign_folder(self):
    folder = self.folder / 'clips'
    folder.mkdir()
    (folder / 'alignment.json').write_text('[]')
    with self.assertRaisesRegex(UserError, 'clips: holds other .* new folder'):
      self.make()
    self.assertEqual((folder / 'alignment.json').read_text(), '[]')

  def test_empty_folder(self):
    (self.folder / 'clips').mkdir()
    self.assertTrue((self.make() / 'real.json').is_file())
