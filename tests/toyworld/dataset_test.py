"""Toy datasets are complete, deterministic, and readable by jobs."""

import pathlib

from absl.testing import parameterized
import numpy as np
import pytest

from lift_jax.data import video
from lift_jax.data.hra import LABELS, read_hra, read_questions
from lift_jax.data.records import read_alignment
from lift_jax.data.rubric import Scale
from lift_jax.errors import UserError
from lift_jax.evaluation.scores import read_scores
from lift_jax.rewards.weights import video_reward
from lift_jax.toyworld import annotators, checkers, dataset, feedback, scenes


class _DatasetTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.root = tmp_path

  def contents(self, folder):
    return {
      path.relative_to(folder): path.read_bytes()
      for path in folder.rglob('*')
      if path.is_file()
    }


class ClipsTest(_DatasetTest):
  def test_alignment(self):
    """Scores are those of the checkers' labels of the files."""
    dataset.write_clips(self.root / 'clips', 20)
    records = read_alignment(
      self.root / 'clips', [dataset.ALIGNMENT], [dataset.REAL]
    ).records
    self.assertEqual([r.is_real for r in records], [False] * 20 + [True] * 2)
    self.assertLen({record.caption for record in records}, 22)
    num_equal = 0
    for record in records[:20]:
      verdicts, _ = checkers.check_video(record.path, record.caption, 'x')
      labels = {name: verdict.label for name, verdict in verdicts.items()}
      num_equal += video_reward(labels, Scale(), 2) == record.reward
    self.assertGreaterEqual(num_equal, 18)
    self.assertGreater(len({record.reward for record in records}), 5)
    self.assertEqual([path.name for path in self.root.iterdir()], ['clips'])

  def test_ratings(self):
    """Each clip with a score has ratings with rationales in all dimensions."""
    dataset.write_clips(self.root / 'clips', 20)
    questions = read_questions(feedback.questions_path())
    records = read_hra(self.root / 'clips', [dataset.HRA], questions).records
    self.assertLen(records, 3 * 20)
    self.assertEqual({record.label for record in records}, set(LABELS))
    for record in records:
      self.assertNotEmpty(record.rationale)

  def test_scores(self):
    """They match the ratings except for one clip on either side."""
    folder = self.root / 'clips'
    dataset.write_clips(folder, 20)
    scored = read_scores(str(folder), (str(folder / dataset.SCORES),), 'error')
    videos = [record.video for record in scored.records]
    self.assertEqual(
      videos,
      [f'videos/clip_{index:04d}.mp4' for index in range(19)]
      + ['videos/real_0000.mp4'],
    )

  def test_several_clips_of_a_prompt(self):
    """The first of each is at least as good in every dimension."""
    folder = self.root / 'clips'
    dataset.write_clips(folder, 7, clips_per_prompt=4)
    records = read_alignment(folder, [dataset.ALIGNMENT]).records
    captions = [record.caption for record in records]
    self.assertEqual(captions, [captions[0]] * 4 + [captions[4]] * 3)
    self.assertNotEqual(captions[0], captions[4])
    for first, *others in (records[:4], records[4:]):
      self.assertEqual(first.reward, 0.9)
      self.assertEqual(set(first.dimensions.values()), {2})
      for other in others:
        self.assertLess(other.reward, 0.9)
        self.assertLess(min(other.dimensions.values()), 2)

  def test_sizes(self):
    dataset.write_clips(
      self.root / 'clips', 2, num_frames=5, height=16, width=48
    )
    records = read_alignment(
      self.root / 'clips', [dataset.ALIGNMENT], [dataset.REAL]
    ).records
    for record in records:
      clip = video.decode(record.path, where=record.where)
      self.assertEqual(clip.frames.shape, (5, 16, 48, 3))

  def test_again(self):
    """Equal arguments give equal files, which are kept."""
    one, other = self.root / 'one', self.root / 'other'
    other.mkdir()  # an empty folder may be used
    for folder in (one, other):
      dataset.write_clips(folder, 3)
    self.assertEqual(self.contents(one), self.contents(other))
    (one / 'videos/clip_0000.mp4').write_bytes(b'kept')
    dataset.write_clips(one, 3)
    self.assertEqual((one / 'videos/clip_0000.mp4').read_bytes(), b'kept')
    dataset.write_clips(self.root / 'third', 3, seed=1)
    self.assertNotEqual(
      self.contents(other), self.contents(self.root / 'third')
    )

  def test_other_settings(self):
    dataset.write_clips(self.root / 'clips', 2)
    with self.assertRaisesRegex(UserError, 'other settings; delete the folder'):
      dataset.write_clips(self.root / 'clips', 3)

  @parameterized.parameters('folder', 'file')
  def test_taken(self, kind):
    path = self.root / 'clips'
    if kind == 'folder':
      path.mkdir()
      (path / dataset.ALIGNMENT).write_text('[]')
    else:
      path.write_text('')
    with self.assertRaisesRegex(UserError, 'clips: contains other .* folder'):
      dataset.write_clips(path, 2)

  def test_nothing_half_written(self):
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(annotators, 'rate_clip', lambda **_: 1 / 0)
      with self.assertRaises(ZeroDivisionError):
        dataset.write_clips(self.root / 'clips', 2)
    self.assertEmpty(list(self.root.iterdir()))


class RealClipsTest(_DatasetTest):
  def test_another_domain(self):
    """No caption and no word for a colour, shape or background is asked for."""
    folder = self.root / 'real'
    dataset.write_real_clips(folder, 20, seed=1)
    records = read_alignment(folder, (), [dataset.REAL]).records
    self.assertLen(records, 20)
    asked = {
      word
      for name in ('colour', 'shape', 'background')
      for word in scenes.values_of(name)
    }
    for record in records:
      self.assertTrue(record.is_real)
      with self.assertRaisesRegex(UserError, 'not of the toy world'):
        scenes.Scene.from_caption(record.caption)
      self.assertEmpty(asked & set(record.caption.rstrip('.').split()))
      clip = video.decode(record.path, where=record.where)
      self.assertEqual(clip.frames.shape, (9, 32, 32, 3))

  def test_flawless_and_trained_on(self):
    folder = self.root / 'real'
    dataset.write_real_clips(folder, 20, 1, 'clean')
    records = read_alignment(folder, (), [dataset.REAL]).records
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
    dataset.write_real_clips(one, 4, seed=1)
    dataset.write_real_clips(other, 4, seed=1)
    self.assertEqual(self.contents(one), self.contents(other))
    (one / 'videos/real_0000.mp4').write_bytes(b'kept')
    dataset.write_real_clips(one, 4, seed=1)
    self.assertEqual((one / 'videos/real_0000.mp4').read_bytes(), b'kept')
    dataset.write_real_clips(self.root / 'third', 4, seed=2)
    self.assertNotEqual(
      self.contents(other), self.contents(self.root / 'third')
    )
    self.assertEqual(
      sorted(path.name for path in self.root.iterdir()),
      ['one', 'other', 'third'],
    )

  def test_below_another_root(self):
    folder = self.root / 'data' / 'real'
    dataset.write_real_clips(folder, 2, seed=1, root=self.root)
    records = read_alignment(self.root, (), ['data/real/real.json']).records
    self.assertEqual(records[1].video, 'data/real/videos/real_0001.mp4')

  def test_more_than_scenes(self):
    with pytest.MonkeyPatch.context() as patch:
      every = scenes.training_scenes()[:3]
      patch.setattr(scenes, 'training_scenes', lambda: every)
      dataset.write_real_clips(self.root / 'real', 5, 1, 'clean')
    records = read_alignment(self.root / 'real', (), [dataset.REAL]).records
    self.assertLen({record.caption for record in records[:3]}, 3)
    first, again = (
      video.decode(records[index].path, where='x').frames for index in (0, 3)
    )
    self.assertEqual(records[0].caption, records[3].caption)
    self.assertFalse(np.array_equal(first, again))

  def test_other_files_in_the_folder(self):
    folder = self.root / 'real'
    dataset.write_real_clips(folder, 1, seed=1)
    with self.assertRaisesRegex(UserError, 'recipe.json: .* other settings'):
      dataset.write_real_clips(folder, 2, seed=1)
    (folder / 'recipe.json').unlink()
    with self.assertRaisesRegex(UserError, 'real: contains other files'):
      dataset.write_real_clips(pathlib.Path(folder), 1, seed=1)
