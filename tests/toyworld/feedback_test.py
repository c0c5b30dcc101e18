"""Simulated feedback is readable by the jobs that train on it."""

import json

from absl.testing import parameterized
import pytest

from lift_jax.annotation import quality
from lift_jax.annotation.store import Store
from lift_jax.data import video
from lift_jax.data.hra import DIMENSIONS, read_hra
from lift_jax.data.video_write import write_mp4
from lift_jax.errors import UserError
from lift_jax.toyworld import annotators, checkers, feedback, flaws
from lift_jax.toyworld.pretraining import validate
from tests.data.feedback import QUESTIONS


class AnnotateTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.root = tmp_path

  def write(self, num_clips):
    (self.root / 'videos').mkdir()
    clips = []
    for index in range(num_clips):
      clip = validate.draw(index, 3)
      name = f'videos/{index}.mp4'
      write_mp4(self.root / name, clip.frames_thw3, flaws.FPS)
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
    # Annotators err, mostly not on the same clip.
    self.assertGreaterEqual(right, 0.85 * 36)
    self.assertEqual(
      json.loads((self.root / 'hra.json').read_text()),
      annotators.settled_entries(rated, QUESTIONS),
    )
    with Store.open(self.root / 'hra_project') as store:
      names = [person.name for person in store.people()]
      self.assertEqual(names, [one.name for one in annotators.ANNOTATORS])
      self.assertEqual(quality.tasks(store)['complete'], 12)
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
