"""Calibration numbers by hand, and the temperature against an optimiser."""

from absl.testing import parameterized
import numpy as np
import scipy.optimize
import scipy.special
import scipy.stats

from lift_jax.evaluation import calibration
from lift_jax.evaluation.bootstrap import BootstrapConfig
from tests.evaluation.tables import random_table

CONFIG = BootstrapConfig(draws=20, coverage=0.9, seed=0)


class TemperatureTest(parameterized.TestCase):
  @parameterized.product(seed=(0, 1, 2), sharpness=(0.3, 1.0, 4.0))
  def test_greatest_likelihood(self, seed, sharpness):
    table = random_table(seed, errors=0)
    # Far from the floor, so that a reference without one can be compared with.
    logits_nk = sharpness * np.log(np.maximum(table.probabilities_nk, 0.02))
    probabilities_nk = scipy.special.softmax(logits_nk, axis=1)

    def loss(temperature):
      scaled_nk = scipy.special.log_softmax(logits_nk / temperature, axis=1)
      return -scaled_nk[np.arange(len(logits_nk)), table.human_n].mean()

    best = scipy.optimize.minimize_scalar(
      loss, bounds=(0.05, 20), method='bounded', options={'xatol': 1e-9}
    )
    fitted = calibration.fit_temperature(probabilities_nk, table.human_n)
    np.testing.assert_allclose(fitted, best.x, rtol=1e-4)
    scaled_nk = calibration.apply_temperature(probabilities_nk, fitted)
    np.testing.assert_allclose(
      calibration.nll(scaled_nk, table.human_n).mean(), best.fun, rtol=1e-9
    )

  def test_known(self):
    """Labels are sampled from p, the critic claims p^3: T is 3."""
    rng = np.random.default_rng(0)
    logits_nk = rng.normal(0, 1, (20_000, 3))
    draws_nk = logits_nk + rng.gumbel(size=logits_nk.shape)
    given_nk = scipy.special.softmax(3 * logits_nk, axis=1)
    fitted = calibration.fit_temperature(given_nk, draws_nk.argmax(axis=1))
    np.testing.assert_allclose(fitted, 3, rtol=0.05)

  @parameterized.parameters(
    # Always right, always wrong, always undecided.
    ([0.7, 0.2, 0.1], 0, 0.05),
    ([0.7, 0.2, 0.1], 2, 20.0),
    ([1 / 3, 1 / 3, 1 / 3], 1, 1.0),
  )
  def test_bounds(self, row, human, temperature):
    fitted = calibration.fit_temperature(
      np.tile(row, (5, 1)), np.full(5, human)
    )
    self.assertEqual(fitted, temperature)

  def test_temper(self):
    probabilities_nk = np.array([[0.64, 0.32, 0.04], [0.0, 1.0, 0.0]])
    np.testing.assert_allclose(
      calibration.apply_temperature(probabilities_nk, 1),
      probabilities_nk,
      atol=3e-7,
    )
    root = np.sqrt(probabilities_nk[0])
    scaled_nk = calibration.apply_temperature(
      probabilities_nk, np.array([2, 1])
    )
    np.testing.assert_allclose(scaled_nk[0], root / root.sum())
    np.testing.assert_allclose(scaled_nk[1], probabilities_nk[1], atol=3e-7)


class CalibrationTest(parameterized.TestCase):
  def test_by_hand(self):
    table = random_table(num=4, num_videos=4, errors=0)
    probabilities_nk = np.array(
      [[0.9, 0.1, 0], [0.85, 0.1, 0.05], [0.5, 0.5, 0], [0.1, 0.5, 0.4]]
    )
    human_n = np.array([0, 2, 0, 1])
    table = _replace(table, human_n=human_n, probabilities_nk=probabilities_nk)
    numbers = calibration.calibration(table, probabilities_nk, 10, CONFIG)
    # (0.8, 0.9] holds 0.9 right and 0.85 wrong: |0.5 - 0.875|; (0.4, 0.5] two
    # of 0.5, both right.
    self.assertAlmostEqual(
      numbers['ece'].value, (2 * 0.375 + 2 * 0.5) / 4, places=12
    )
    self.assertAlmostEqual(
      numbers['nll'].value, -np.log([0.9, 0.05, 0.5, 0.5]).mean()
    )
    self.assertAlmostEqual(
      numbers['brier'].value,
      np.mean([0.02, 0.85**2 + 0.01 + 0.95**2, 0.5, 0.01 + 0.25 + 0.16]),
    )
    self.assertAlmostEqual(numbers['overconfidence'].value, 2.75 / 4 - 3 / 4)
    bins = calibration.reliability(probabilities_nk, human_n, 10)
    self.assertEqual(
      [bin_.count for bin_ in bins], [0] * 4 + [2, 0, 0, 0, 2, 0]
    )
    self.assertAlmostEqual(bins[8].confidence, 0.875)
    self.assertEqual(bins[8].accuracy, 0.5)
    self.assertIsNone(bins[0].accuracy)

  @parameterized.parameters(1, 5, 15)
  def test_ece_by_its_definition(self, num_bins):
    table = random_table(5, errors=0)
    probabilities_nk = table.probabilities_nk
    confidence_n = probabilities_nk.max(axis=1)
    is_right_n = probabilities_nk.argmax(axis=1) == table.human_n
    expected = 0.0
    for index in range(num_bins):
      is_in_n = (confidence_n > index / num_bins) & (
        confidence_n <= (index + 1) / num_bins
      )
      if is_in_n.any():
        gap = is_right_n[is_in_n].mean() - confidence_n[is_in_n].mean()
        expected += is_in_n.mean() * abs(gap)
    numbers = calibration.calibration(table, probabilities_nk, num_bins, CONFIG)
    self.assertAlmostEqual(numbers['ece'].value, expected, places=12)

  def test_certain_and_wrong(self):
    """A probability of 0 costs much, not everything."""
    nll_n = calibration.nll(np.array([[1.0, 0.0, 0.0]]), np.array([2]))
    np.testing.assert_allclose(nll_n, 15.94, atol=0.01)

  def test_wilson(self):
    """Against scipy."""
    for right, count in ((0, 5), (5, 5), (3, 10), (70, 100)):
      interval = scipy.stats.binomtest(right, count).proportion_ci(
        method='wilson'
      )
      np.testing.assert_allclose(
        calibration._wilson(right / count, count),
        (interval.low, interval.high),
        atol=1e-12,
      )

  def test_base_rates(self):
    """No forecast that is the same for all does better."""
    table = random_table(1, errors=0)
    base_nk = calibration.base_rates(table)
    best = calibration.nll(base_nk, table.human_n).mean()
    rng = np.random.default_rng(0)
    for share_k in rng.dirichlet(np.ones(3), 20):
      other_nk = np.tile(share_k, (len(base_nk), 1))
      self.assertLess(best, calibration.nll(other_nk, table.human_n).mean())


def _replace(table, **changes):
  return type(table)(**{**vars(table), **changes})
