"""Feedback and real clips are what the jobs that train on them read."""

import json
import pathlib

from absl.testing import parameterized
import numpy as np
import pytest

from lift_jax.data import video
from lift_jax.data.hra import DIMENSIONS, read_hra
from lift_jax.data.records import read_alignment
from lift_jax.errors import UserError
from lift_jax.toyworld import annotators, checkers, feedback, flaws, scenes
from lift_jax.toyworld.pretraining import validate
from tests.data.feedback import QUESTIONS


class _FeedbackTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.root = tmp_path


class AnnotateTest(_FeedbackTest):
  def write(self, num_clips):
    (self.root / 'videos').mkdir()
    clips = []
    for index in range(num_clips):
      clip = validate.draw(index, 3)
      name = f'videos/{index}.mp4'
      video.write_mp4(self.root / name, clip.frames_thw3, flaws.FPS)
      clips.append((name, clip.caption))
    return clips

  def annotate(self, clips, name='hra.json', seed=7):
    target = self.root / name
    return feedback.annotate(self.root, clips, target, QUESTIONS, seed)

  def test_files(self):
    clips = self.write(12)
    rated = self.annotate(clips)
    records = read_hra(self.root, ['hra.json'], QUESTIONS).records
    self.assertLen(records, 12 * 3)
    right = 0
    for index, record in enumerate(records):
      item, dimension = rated[index // 3], DIMENSIONS[index % 3]
      labels = [rating[dimension].label for rating in item.ratings]
      self.assertEqual(
        (record.video, record.caption, record.dimension, record.label),
        (*clips[index // 3], dimension, annotators.settle(labels)),
      )
      frames = video.decode(self.root / item.video, where='x').frames
      verdicts = checkers.check(item.caption, frames)
      right += verdicts[dimension].label == record.label
    # People err, most of them not at once.
    self.assertGreaterEqual(right, 0.85 * 36)
    everything = json.loads((self.root / 'hra_all.json').read_text())
    self.assertEqual(everything, annotators.all_entries(rated, QUESTIONS))
    self.assertLen(everything, 12 * 3 * 3)

  def test_seed(self):
    clips = self.write(6)
    first = self.annotate(clips)
    self.assertEqual(first, self.annotate(clips, 'again.json'))
    self.assertNotEqual(first, self.annotate(clips, 'other.json', seed=8))
    text = (self.root / 'hra.json').read_bytes()
    self.assertEqual(text, (self.root / 'again.json').read_bytes())

  def test_bad_input(self):
    with self.assertRaisesRegex(UserError, 'hra.json: no clip to rate'):
      self.annotate([])
    clips = self.write(1)
    clips.append(('videos/no.mp4', clips[0][1]))
    with self.assertRaisesRegex(UserError, r'record 1 \(videos/no.mp4\)'):
      self.annotate(clips)
    self.assertFalse((self.root / 'hra.json').exists())


class RealClipsTest(_FeedbackTest):
  def contents(self, folder):
    return {
      path.relative_to(folder): path.read_bytes()
      for path in folder.rglob('*')
      if path.is_file()
    }

  def test_flawless_and_trained_on(self):
    folder = self.root / 'real'
    feedback.real_clips(folder, 20, seed=1)
    records = read_alignment(folder, (), [feedback.REAL]).records
    self.assertLen(records, 20)
    self.assertLen({record.caption for record in records}, 20)
    num_good = 0
    for record in records:
      self.assertTrue(record.is_real)
      self.assertFalse(scenes.is_held_out(record.caption))
      verdicts, _ = checkers.check_video(record.path, record.caption, 'x')
      num_good += all(one.label == 'Good' for one in verdicts.values())
    self.assertGreaterEqual(num_good, 19)

  def test_again(self):
    one, other = self.root / 'one', self.root / 'other'
    feedback.real_clips(one, 4, seed=1)
    feedback.real_clips(other, 4, seed=1)
    self.assertEqual(self.contents(one), self.contents(other))
    (one / 'videos/real_0000.mp4').write_bytes(b'kept')
    feedback.real_clips(one, 4, seed=1)
    self.assertEqual((one / 'videos/real_0000.mp4').read_bytes(), b'kept')
    feedback.real_clips(self.root / 'third', 4, seed=2)
    self.assertNotEqual(
      self.contents(other), self.contents(self.root / 'third')
    )
    self.assertEqual(
      sorted(path.name for path in self.root.iterdir()),
      ['one', 'other', 'third'],
    )

  def test_below_another_root(self):
    folder = self.root / 'data' / 'real'
    feedback.real_clips(folder, 2, seed=1, root=self.root)
    records = read_alignment(self.root, (), ['data/real/real.json']).records
    self.assertEqual(records[1].video, 'data/real/videos/real_0001.mp4')

  def test_more_than_scenes(self):
    with pytest.MonkeyPatch.context() as patch:
      every = scenes.training_scenes()[:3]
      patch.setattr(scenes, 'training_scenes', lambda: every)
      feedback.real_clips(self.root / 'real', 5, seed=1)
    records = read_alignment(self.root / 'real', (), [feedback.REAL]).records
    self.assertLen({record.caption for record in records[:3]}, 3)
    first, again = (
      video.decode(records[index].path, where='x').frames for index in (0, 3)
    )
    self.assertEqual(records[0].caption, records[3].caption)
    self.assertFalse(np.array_equal(first, again))

  def test_other_things_there(self):
    folder = self.root / 'real'
    feedback.real_clips(folder, 1, seed=1)
    with self.assertRaisesRegex(UserError, 'recipe.json: .* other settings'):
      feedback.real_clips(folder, 2, seed=1)
    (folder / 'recipe.json').unlink()
    with self.assertRaisesRegex(UserError, 'real: holds other things'):
      feedback.real_clips(pathlib.Path(folder), 1, seed=1)
