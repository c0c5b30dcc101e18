"""Which ratings and scores belong together."""

import json

from absl.testing import parameterized
import numpy as np
import pytest

from lift_jax.data.hra import read_hra
from lift_jax.data.rubric import Scale
from lift_jax.errors import UserError
from lift_jax.evaluation.comparison import join, make_table
from lift_jax.evaluation.scores import CLASSES, read_scores
from tests.evaluation.records import (
  QUESTIONS,
  failed,
  rated,
  rated_in_all,
  scored,
)

pytestmark = pytest.mark.fast

REWARDS = Scale()


class JoinTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _setting(self, tmp_path):
    self.root = tmp_path

  def join(self, human, scores):
    (self.root / 'labels.json').write_text(json.dumps(human))
    path = self.root / 'scores.json'
    path.write_text(json.dumps(scores))
    records = read_hra(
      self.root, ['labels.json'], QUESTIONS, require_files=False
    )
    return join(records.records, read_scores(self.root, [path]).records)

  def test_all_dimensions(self):
    labels = ('Good', 'Bad', 'Normal')
    comparison = self.join(
      rated_in_all('a', 'A cat.', labels), [scored('a', 'A cat.')]
    )
    self.assertEqual(comparison.rated_not_scored, [])
    self.assertEqual(comparison.scored_not_rated, [])
    self.assertEqual(
      [(r.dimension, CLASSES[r.human]) for r in comparison.ratings],
      list(zip(('semantic', 'motion', 'fidelity'), labels, strict=True)),
    )
    self.assertEqual(
      [CLASSES[r.answer.label] for r in comparison.ratings],
      ['Good', 'Normal', 'Bad'],
    )

  def test_several_annotators(self):
    """Who agree are one rating with several reasons."""
    human = [
      rated('a', 'A cat.', 'motion', 'Good', 'Even.'),
      rated('a', 'A cat.', 'motion', 'Good', ''),
      rated('a', 'A cat.', 'motion', 'Good', 'Smooth.'),
    ]
    (rating,) = self.join(human, [scored('a', 'A cat.')]).ratings
    self.assertEqual(rating.rationales, ('Even.', 'Smooth.'))

  def test_caption(self):
    """It matters for the semantic dimension alone."""
    human = rated_in_all('a', 'A cat.', ('Good', 'Good', 'Good'))
    comparison = self.join(human, [scored('a', 'A dog.')])
    self.assertEqual(
      [r.dimension for r in comparison.ratings], ['motion', 'fidelity']
    )
    ((where, reason),) = comparison.rated_not_scored
    self.assertIn('labels.json record 0 (videos/a.mp4)', where)
    self.assertEqual(reason, 'no score for this caption')

  def test_white_space_and_case(self):
    human = rated_in_all('a', 'A  cat', ('Good', 'Good', 'Good'))
    comparison = self.join(human, [scored('a', 'a cat\n')])
    self.assertLen(comparison.ratings, 3)

  def test_captions_of_one_video(self):
    human = [
      rated('a', 'A cat.', 'semantic', 'Good'),
      rated('a', 'A dog.', 'semantic', 'Bad'),
      rated('a', 'A dog.', 'motion', 'Good'),
    ]
    comparison = self.join(
      human, [scored('a', 'A cat.'), scored('a', 'A dog.')]
    )
    self.assertEqual(
      [(r.dimension, r.caption) for r in comparison.ratings],
      [('semantic', 'A cat.'), ('semantic', 'A dog.'), ('motion', 'A dog.')],
    )
    self.assertEqual(comparison.scored_not_rated, [])

  def test_alone(self):
    """What has no partner is listed, on both sides."""
    human = [
      *rated_in_all('a', 'A cat.', ('Good', 'Good', 'Good')),
      rated('b', 'A dog.', 'motion', 'Good'),
      rated('b', 'A dog.', 'motion', 'Good'),
      rated('c', 'A cow.', 'motion', 'Good'),
    ]
    no_motion = scored('c', 'A cow.')
    del no_motion['labels']['motion'], no_motion['probabilities']['motion']
    comparison = self.join(
      human, [scored('a', 'A cat.'), scored('d', 'A fox.'), no_motion]
    )
    self.assertLen(comparison.ratings, 3)
    reasons = [reason for _, reason in comparison.rated_not_scored]
    self.assertEqual(reasons[:2], ['no score for this video'] * 2)
    self.assertIn('no answer about motion in ', reasons[2])
    self.assertEqual(
      [where.split('(')[1] for where in comparison.scored_not_rated],
      ['videos/d.mp4)', 'videos/c.mp4)'],
    )

  def test_error(self):
    """It is an answer that is missing, not a rating."""
    comparison = self.join(
      rated_in_all('a', 'A cat.', ('Good', 'Good', 'Good')),
      [failed('a', 'A cat.')],
    )
    self.assertEqual([r.answer for r in comparison.ratings], [None] * 3)
    table = make_table(comparison.ratings, REWARDS)
    np.testing.assert_array_equal(table.answer_n, [-1] * 3)
    self.assertTrue(np.isnan(table.reward_n).all())

  def test_nothing_in_common(self):
    with self.assertRaisesRegex(
      UserError, "labels.json record 0 .* 'A cat.'.*'A dog.'.*same video paths"
    ):
      self.join(
        [rated('a', 'A cat.', 'motion', 'Good')], [scored('b', 'A dog.')]
      )

  def test_table(self):
    human = [
      *rated_in_all('a', 'A cat.', ('Good', 'Bad', 'Normal')),
      *rated_in_all('b', 'a  cat.', ('Good', 'Good', 'Good')),
    ]
    comparison = self.join(
      human, [scored('a', 'A cat.', sure=0.7), scored('b', 'A cat.', sure=0.7)]
    )
    table = make_table(comparison.ratings, REWARDS)
    np.testing.assert_array_equal(table.human_n, [2, 0, 1, 2, 2, 2])
    np.testing.assert_array_equal(table.answer_n, [2, 1, 0, 2, 1, 0])
    np.testing.assert_array_equal(table.video_n, [0, 0, 0, 1, 1, 1])
    np.testing.assert_array_equal(table.caption_n, [0] * 6)
    np.testing.assert_allclose(table.probabilities_nk[1], (0.15, 0.7, 0.15))
    np.testing.assert_allclose(
      table.reward_n[1], 0.15 * 0.05 + 0.7 * 0.2 + 0.15 * 0.9
    )
    part = table.select(table.dimension_n == 'motion')
    np.testing.assert_array_equal(part.human_n, [0, 2])
    self.assertEqual(part.num_videos, 2)
