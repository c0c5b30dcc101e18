"""Accuracies of benchmarks, against numbers of their own rules."""

import itertools

from absl.testing import parameterized
import numpy as np
import pytest

from lift_jax.evaluation import benchmarks
from lift_jax.evaluation.benchmarks import BOTH_BAD, BOTH_GOOD, Votes

pytestmark = pytest.mark.fast

_A = np.array([0.9, -0.7, 0.1, 0.8, -0.6, 0.2, 0.7, -0.5, 0.3])
_B = np.array([0.1, -0.8, 0.5, 0.5, -0.3, 0.3, 0.4, -0.4, 0.4])


class VideoGenTest(parameterized.TestCase):
  @parameterized.parameters(
    # Worked by hand with the steps of the published script.
    ([1, -1, 0] * 3, _A - _B, 0.6667, 0.8333),
    ([1, -1, 0, 0, 1, -1], [0.5] * 5 + [-0.5], 0.6667, 0.75),
    ([0, 0, 1, 1, -1], [0, 0, 0, 1, -1], 0.8, 0.6667),
  )
  def test_published(self, order, difference, with_ties, without_ties):
    found = benchmarks.videogen_accuracy(np.array(order), np.array(difference))
    self.assertAlmostEqual(found.with_ties, with_ties, 4)
    self.assertAlmostEqual(found.without_ties, without_ties, 4)

  def test_no_ties_is_no_candidate(self):
    """Of one pair that is right, the only candidate predicts a tie."""
    found = benchmarks.videogen_accuracy(np.array([1]), np.array([0.5]))
    self.assertEqual((found.with_ties, found.without_ties), (0.0, 1.0))

  def test_no_answer(self):
    found = benchmarks.videogen_accuracy(
      np.array([0, 1, 0, 1]), np.array([np.nan, np.nan, 0.1, 0.2])
    )
    self.assertEqual((found.with_ties, found.without_ties), (0.5, 0.5))

  def test_nothing(self):
    found = benchmarks.videogen_accuracy(np.zeros(0), np.zeros(0))
    self.assertTrue(np.isnan([found.with_ties, found.without_ties]).all())


class VotesTest(parameterized.TestCase):
  def test_thresholds(self):
    votes = Votes(
      np.array([1, -1, BOTH_GOOD, BOTH_BAD, BOTH_GOOD, 1]),
      np.array([0.5, -0.4, 0.1, -0.1, 0.0, 0.05]),
      np.array([0.5, 0.5, 0.7, 0.2, 0.7, 0.7]),
    )
    found = benchmarks.fit_vote_thresholds(votes)
    self.assertEqual((found.width, found.level), (0.1, 0.5))
    self.assertAlmostEqual(benchmarks.vote_accuracy(votes, found), 5 / 6)
    # On other votes.
    other = Votes(
      np.array([BOTH_BAD, 1, 1, BOTH_BAD]),
      np.array([0.1, 0.2, np.nan, 0.0]),
      np.array([0.4, 0.4, np.nan, 0.5]),
    )
    self.assertEqual(benchmarks.vote_accuracy(other, found), 0.5)

  def test_best(self):
    """No pair of thresholds is better than what is found."""
    rng = np.random.default_rng(0)
    difference_p = np.round(rng.normal(size=30), 1)
    votes = Votes(
      rng.choice([-1, 0, 1, 2], 30), difference_p,
      np.round(rng.random(30), 1),
    )  # fmt: skip
    accuracy = benchmarks.vote_accuracy(
      votes, benchmarks.fit_vote_thresholds(votes)
    )
    widths, levels = np.arange(-0.05, 3, 0.1), np.arange(-0.05, 1.1, 0.1)
    best = max(
      benchmarks.vote_accuracy(votes, benchmarks.VoteThresholds(width, level))
      for width, level in itertools.product(widths, levels)
    )
    self.assertAlmostEqual(accuracy, best)

  def test_equal_rewards_without_ties(self):
    votes = Votes(np.array([BOTH_GOOD]), np.array([0.0]), np.array([0.5]))
    none = benchmarks.VoteThresholds(-1.0, 0.0)
    self.assertEqual(benchmarks.vote_accuracy(votes, none), 0.0)
