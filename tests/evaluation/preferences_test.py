"""A critic against pairs that people compared."""

import pathlib

from absl.testing import parameterized
import numpy as np
import pytest

from lift_jax.data.pair_records import PairRecord
from lift_jax.data.rubric import DIMENSIONS, LIFT
from lift_jax.errors import UserError
from lift_jax.evaluation import ranking
from lift_jax.evaluation.bootstrap import BootstrapConfig
from lift_jax.evaluation.normalization import Normalization
from lift_jax.evaluation.preferences import (
  NORMALIZED,
  OVERALL,
  evaluate_preferences,
)
from lift_jax.evaluation.ranking import Compared
from lift_jax.evaluation.scores import Answer, ScoredRecord

pytestmark = pytest.mark.fast

CONFIG = BootstrapConfig(draws=50, coverage=0.9, seed=0)


def pair(first, second, overall, rater='', both='', **dimensions):
  return PairRecord(
    'A cat.', (first, second), (pathlib.Path(first), pathlib.Path(second)),
    overall, dimensions, rater, {}, f'pairs.json ({first}, {second})', both,
  )  # fmt: skip


def score(video, *classes, caption='A cat.'):
  """Of each dimension the class, 2 being Good; none for an error."""
  answers = {
    name: Answer(label, '', None)
    for name, label in zip(DIMENSIONS, classes, strict=False)
  }
  return ScoredRecord(
    video, pathlib.Path(video), caption, answers,
    '' if classes else 'cannot be decoded', 'c', (), 'scores.json', 'record 1',
  )  # fmt: skip


SCORED = [
  score('a', 2, 2, 2), score('b', 0, 2, 2), score('c', 1, 1, 1), score('d')
]  # fmt: skip


class PreferencesTest(parameterized.TestCase):
  def measure(self, *records, scored=SCORED):
    return evaluate_preferences(records, scored, LIFT, CONFIG)

  def test_dimensions(self):
    result = self.measure(
      pair('a', 'b', 'first', semantic='first', motion='same'),
      pair('b', 'c', 'second', semantic='second', motion='second'),
    )
    self.assertEqual(result['pairs'], 2)
    found = result['dimensions']
    self.assertEqual(list(found), [OVERALL, 'semantic', 'motion'])
    # The critic prefers a to b and, by the mean of (.05, .9, .9) to .2, b to c.
    self.assertEqual(found[OVERALL]['without_ties']['value'], 0.5)
    self.assertEqual(found['semantic']['without_ties']['value'], 1.0)
    # a and b are equal in motion, and b is better than c.
    self.assertEqual(found['motion']['without_ties']['value'], 0.0)
    self.assertEqual(found['motion']['human_ties']['value'], 0.5)
    self.assertEqual(found['motion']['with_ties']['value'], 0.5)
    self.assertEqual(found['motion']['threshold'], 0.0)

  def test_votes_are_settled(self):
    result = self.measure(
      pair('a', 'b', 'first', 'ana'), pair('b', 'a', 'second', 'ben'),
      pair('a', 'b', 'second', 'cem'),
    )  # fmt: skip
    self.assertEqual(result['dimensions'][OVERALL]['count'], 1)
    self.assertEqual(result['dimensions'][OVERALL]['with_ties']['value'], 1.0)

  def test_benchmark_counts_votes(self):
    """Three votes about one pair, of which two are right."""
    result = self.measure(
      pair('a', 'b', 'first', 'ana'), pair('b', 'a', 'second', 'ben'),
      pair('a', 'b', 'second', 'cem'),
    )  # fmt: skip
    found = result['dimensions'][OVERALL]['benchmark']
    self.assertEqual(found['votes'], 3)
    self.assertAlmostEqual(found['without_ties'], 2 / 3)
    result = self.measure(pair('a', 'b', 'same'))
    self.assertIsNone(
      result['dimensions'][OVERALL]['benchmark']['without_ties']
    )

  def test_tuning(self):
    """The threshold of ties is fitted on other pairs only."""
    scored = [*SCORED, score('e', 2, 2, 2), score('f', 1, 2, 2)]
    pairs = pair('a', 'b', 'first'), pair('b', 'c', 'first')
    tuning = [pair('e', 'f', 'same'), pair('b', 'a', 'same')]
    result = evaluate_preferences(pairs, scored, LIFT, CONFIG, tuning=tuning)
    self.assertEqual(result['tuning'], 1)
    found = result['dimensions'][OVERALL]
    self.assertAlmostEqual(found['threshold'], (0.9 - 0.2) / 3)
    self.assertEqual(found['with_ties']['value'], 1.0)
    self.assertIsNone(result['votes'])

  def test_four_votes(self):
    tuning = [
      pair('a', 'c', 'first'), pair('a', 'e', 'same', both='good'),
      pair('c', 'f', 'same', both='bad'),
    ]  # fmt: skip
    scored = [*SCORED, score('e', 2, 2, 2), score('f', 1, 1, 1)]
    votes = [
      pair('a', 'b', 'first'), pair('e', 'a', 'second'),
      pair('b', 'e', 'second'), pair('f', 'b', 'same', both='bad'),
    ]  # fmt: skip
    result = evaluate_preferences(votes, scored, LIFT, CONFIG, tuning=tuning)
    found = result['votes']
    # The vote for one of two equal clips is wrong, and so is the last tie.
    self.assertEqual((found['votes'], found['accuracy']), (4, 0.5))
    self.assertEqual((found['fitted_on'], found['width']), (2, 0.0))
    self.assertIsNone(self.measure(*votes)['votes'])

  def test_normalised(self):
    mean = dict.fromkeys(DIMENSIONS, 0.5)
    found = Normalization('c', {}, mean, {'semantic': 1, 'motion': 1,
                                          'fidelity': 1e-3})  # fmt: skip
    scored = [score('a', 2, 2, 0), score('b', 0, 0, 1)]
    result = evaluate_preferences(
      [pair('a', 'b', 'first')], scored, LIFT, CONFIG, normalization=found
    )
    dimensions = result['dimensions']
    self.assertEqual(dimensions[OVERALL]['without_ties']['value'], 1.0)
    self.assertEqual(dimensions[NORMALIZED]['without_ties']['value'], 0.0)

  def test_no_answer_is_wrong(self):
    result = self.measure(pair('a', 'd', 'first'), pair('a', 'b', 'first'))
    found = result['dimensions'][OVERALL]
    self.assertEqual(found['without_answer'], 1)
    self.assertEqual(found['without_ties']['value'], 0.5)
    self.assertEqual(found['with_ties_fitted_here'], 0.5)

  def test_not_scored(self):
    result = self.measure(pair('a', 'b', 'first'), pair('a', 'x', 'first'))
    self.assertEqual(result['not_scored'], ['pairs.json (a, x)'])
    self.assertEqual(result['dimensions'][OVERALL]['count'], 1)

  @parameterized.parameters(
    ([score('a', 2, 2, 2)],),
    ([score(v, 2, 2, 2, caption='A dog.') for v in 'ab'],),
  )
  def test_nothing_is_scored(self, scored):
    with pytest.raises(UserError, match="is about 'A cat.'; run lift score"):
      self.measure(pair('a', 'b', 'first'), scored=scored)

  @parameterized.parameters(
    # facts of the published script: human order, difference of scores, and
    # accuracy without ties.
    (
      [1, -1, 0] * 3,
      [0.8, 0.1, -0.4, 0.3, -0.3, -0.1, 0.3, -0.1, -0.1],
      5 / 6,
    ),
    ([1, -1, 0, 0, 1, -1], [0.5] * 5 + [-0.5], 0.75),
    ([0, 0, 1, 1, -1], [0, 0, 0, 1, -1], 2 / 3),
  )
  def test_published_accuracy(self, order, difference, expected):
    num = len(order)
    compared = Compared(
      np.array(order), np.array(difference), np.arange(num), np.arange(num), num
    )
    threshold, _ = ranking.best_threshold(compared)
    found = ranking.agreement(compared, threshold, CONFIG)
    self.assertAlmostEqual(found['without_ties'].value, expected)
