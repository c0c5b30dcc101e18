"""Paired statistics: by hand, against simulations, and error rates."""

from absl.testing import parameterized
import numpy as np
import pytest

from lift_jax.comparison import statistics
from lift_jax.comparison.statistics import Quantity, StatisticsConfig, mean_of
from lift_jax.errors import UserError
from lift_jax.evaluation.bootstrap import BootstrapConfig

CONFIG = StatisticsConfig(BootstrapConfig(200, 0.95, 0), 1000, 0.05)


def _values(values_pn):
  """By (prompt, index), from one list per prompt."""
  return {
    (f'{p}', n): value
    for p, values_n in enumerate(values_pn)
    for n, value in enumerate(values_n)
  }


def _pair(base_pn, other_pn):
  prompts = {f'{p}': p for p in range(len(base_pn))}
  return tuple(mean_of(_values(one), prompts) for one in (base_pn, other_pn))


@pytest.mark.fast
class QuantityTest(parameterized.TestCase):
  def test_mean(self):
    quantity, _ = _pair([[1, 3], [5]], [[0, 0], [0]])
    weights_dp = np.array([[1, 1], [2, 0], [0, 3]])
    np.testing.assert_allclose(quantity.values(weights_dp), [3, 2, 5])

  def test_sum_of_means(self):
    """Two means of other clips, as in VBench's totals."""
    quantity = Quantity(
      np.array([0.5, 2.0]),
      np.array([[4.0, 0.0], [0.0, 3.0]]),
      np.array([[2, 0], [0, 1]]),
      constant=1.0,
    )
    np.testing.assert_allclose(
      quantity.values(np.ones((1, 2))), 1 + 0.5 * 2 + 2 * 3
    )

  def test_influence(self):
    """It is the derivative of the value by the weight of a prompt."""
    rng = np.random.default_rng(0)
    quantity = Quantity(
      np.array([0.3, -2.0]), rng.normal(size=(6, 2)), rng.integers(1, 4, (6, 2))
    )
    step = 1e-6
    weights = np.ones((6, 6)) + step * np.eye(6)
    change = quantity.values(weights) - quantity.values(np.ones((1, 6)))
    np.testing.assert_allclose(quantity.influence(), change / step, atol=1e-5)
    np.testing.assert_allclose(quantity.influence().sum(), 0, atol=1e-12)

  def test_standard_error(self):
    """Of a mean with one clip per prompt: that of the textbook."""
    values_p = np.random.default_rng(0).normal(size=40)
    quantity, _ = _pair([[x] for x in values_p], [[0]] * 40)
    self.assertAlmostEqual(
      statistics.standard_error(quantity), values_p.std(ddof=1) / 40**0.5
    )


@pytest.mark.fast
class HolmTest(parameterized.TestCase):
  def test_steps(self):
    # Limits 0.05/4, 0.05/3, 0.05/2, 0.05: the third stops all that follow.
    marks = statistics.holm(np.array([0.012, 0.04, 0.016, 0.03]), 0.05)
    self.assertEqual(marks.tolist(), [True, False, True, False])

  def test_none(self):
    marks = statistics.holm(np.array([0.03, 0.04]), 0.05)
    self.assertFalse(marks.any())


@pytest.mark.fast
class PermutationTest(parameterized.TestCase):
  def test_few_prompts(self):
    """Of 2^3 signs of three equal differences, two are as extreme."""
    base, other = _pair([[0.0]] * 3, [[1.0]] * 3)
    (p,) = statistics.permutation_test([other.minus(base)], CONFIG)
    self.assertAlmostEqual(p, 0.25, delta=0.05)

  def test_no_difference(self):
    base, other = _pair([[1.0]] * 5, [[1.0]] * 5)
    (p,) = statistics.permutation_test([other.minus(base)], CONFIG)
    self.assertEqual(p, 1)

  def test_chunks(self):
    rng = np.random.default_rng(0)
    base, other = _pair(rng.normal(size=(9, 1)), rng.normal(size=(9, 1)))
    (p,) = statistics.permutation_test([other.minus(base)], CONFIG)
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(statistics, '_CHUNK', 100)
      (q,) = statistics.permutation_test([other.minus(base)], CONFIG)
    self.assertAlmostEqual(p, q, delta=0.06)


@pytest.mark.fast
class CompareTest(parameterized.TestCase):
  def test_by_hand(self):
    base, other = _pair([[0.2, 0.4], [0.6, 0.8]], [[0.3, 0.5], [0.9, 0.9]])
    found = statistics.compare({'x': (base, other)}, CONFIG)['x']
    self.assertAlmostEqual(found.base.value, 0.5)
    self.assertAlmostEqual(found.other.value, 0.65)
    self.assertAlmostEqual(found.difference.value, 0.15)
    # Both prompts, or only one of them.
    self.assertAlmostEqual(found.difference.low, 0.1)
    self.assertAlmostEqual(found.difference.high, 0.2)
    # (1.960 + 0.842) times the standard error.
    self.assertAlmostEqual(found.detectable, 2.8016 * 0.05, places=4)
    self.assertEqual(found.num_prompts, 2)
    self.assertFalse(found.is_marked)

  def test_one_prompt(self):
    base, other = _pair([[0.2]], [[0.3]])
    found = statistics.compare({'x': (base, other)}, CONFIG)['x']
    self.assertIsNone(found.detectable)
    self.assertFalse(found.is_marked)

  def test_no_spread(self):
    base, other = _pair([[0.2]] * 3, [[0.3]] * 3)
    found = statistics.compare({'x': (base, other)}, CONFIG)['x']
    self.assertIsNone(found.detectable)

  def test_paired(self):
    """What prompts share does not widen the interval of the difference."""
    rng = np.random.default_rng(0)
    level_p1 = rng.normal(0, 10, (50, 1))
    base, other = _pair(level_p1, level_p1 + rng.normal(1, 0.1, (50, 1)))
    found = statistics.compare({'x': (base, other)}, CONFIG)['x']
    self.assertLess(found.difference.high - found.difference.low, 0.1)
    self.assertGreater(found.base.high - found.base.low, 2)


class RatesTest(parameterized.TestCase):
  """Over 50 seeds: 200 pairs, 12 metrics whose differences spread 2 points."""

  def marks(self, seed, loss, *, shuffled=False):
    """Which metrics are marked; the first one loses `loss` points."""
    rng = np.random.default_rng(seed)
    level_pm = rng.normal(60, 10, (200, 12))
    change_pm = rng.normal(0, 2, (200, 12))
    change_pm[:, 0] -= loss
    base_pm, other_pm = level_pm, level_pm + change_pm
    if shuffled:
      is_swapped_p1 = rng.random((200, 1)) < 0.5
      base_pm, other_pm = (
        np.where(is_swapped_p1, one, two)
        for one, two in ((other_pm, base_pm), (base_pm, other_pm))
      )
    config = StatisticsConfig(BootstrapConfig(20, 0.95, seed), 1000, 0.05)
    quantities = {
      f'{m}': tuple(
        Quantity(np.ones(1), one_pm[:, m : m + 1], np.ones((200, 1)))
        for one_pm in (base_pm, other_pm)
      )
      for m in range(12)
    }
    found = statistics.compare(quantities, config)
    return [
      (name, one.difference.value) for name, one in found.items()
      if one.is_marked
    ]  # fmt: skip

  def test_planted_loss(self):
    """A loss of one point in one of the metrics is found."""
    found = others = 0
    for seed in range(50):
      marked = dict(self.marks(seed, loss=1.0))
      found += marked.pop('0', 0) < 0
      others += bool(marked)
    # docs/compare.md has these rates.
    self.assertEqual(found, 50)
    self.assertLessEqual(others, 5)

  def test_shuffled(self):
    """If clips are assigned to the models at random, none is."""
    wrong = sum(bool(self.marks(s, 1.0, shuffled=True)) for s in range(50))
    self.assertLessEqual(wrong, 5)


@pytest.mark.fast
class WinRateTest(parameterized.TestCase):
  def test_by_hand(self):
    outcomes = [('a', 1), ('a', 0), ('b', 1), ('b', -1)]
    found = statistics.win_rate(outcomes, CONFIG.bootstrap)
    self.assertEqual((found.wins, found.ties, found.losses), (2, 1, 1))
    self.assertAlmostEqual(found.with_ties.value, 2.5 / 4)
    self.assertAlmostEqual(found.without_ties.value, 2 / 3)
    # Prompt b alone, and prompt a alone.
    self.assertAlmostEqual(found.with_ties.low, 0.5)
    self.assertAlmostEqual(found.with_ties.high, 0.75)

  def test_ties_only(self):
    found = statistics.win_rate([('a', 0), ('b', 0)], CONFIG.bootstrap)
    self.assertEqual(found.with_ties.value, 0.5)
    self.assertIsNone(found.without_ties.value)


@pytest.mark.fast
class ConfigTest(parameterized.TestCase):
  @parameterized.parameters((0, 0.05, 'permutations'), (1, 1.0, 'level'))
  def test_refused(self, permutations, level, message):
    with self.assertRaisesRegex(UserError, message):
      StatisticsConfig(CONFIG.bootstrap, permutations, level)
