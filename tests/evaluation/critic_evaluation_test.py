"""The complete evaluation, on critics of known quality."""

import json

from absl.testing import parameterized
import numpy as np

from lift_jax.data.hra import DIMENSIONS
from lift_jax.data.rubric import Scale
from lift_jax.errors import UserError
from lift_jax.evaluation import critic_evaluation
from lift_jax.evaluation.bootstrap import BootstrapConfig
from tests.evaluation.ratings import config, ratings

REWARDS = Scale()


class EvaluateTest(parameterized.TestCase):
  def evaluate(self, evaluated, calibration_set=(), **changes):
    result = critic_evaluation.evaluate(
      evaluated, calibration_set, REWARDS, config(**changes)
    )
    json.dumps(result, allow_nan=False)  # plain values alone
    return result

  def test_calibrated(self):
    """Human labels are sampled from the critic's probabilities: T is near 1."""
    result = self.evaluate(ratings(0, 600, noise=0), ratings(1, 600, noise=0))
    for name in DIMENSIONS:
      np.testing.assert_allclose(result['temperatures'][name], 1, atol=0.15)
    before = result['all']['calibration']['before']
    self.assertLess(before['ece']['value'], 0.04)
    self.assertLess(abs(before['overconfidence']['value']), 0.03)

  def test_too_sure(self):
    """Sharpness 3 without noise: T is 3, and scaling mends the confidence."""
    result = self.evaluate(
      ratings(0, 600, noise=0, sharpness=3),
      ratings(1, 600, noise=0, sharpness=3),
    )
    for name in DIMENSIONS:
      np.testing.assert_allclose(result['temperatures'][name], 3, rtol=0.15)
    calibration = result['all']['calibration']
    self.assertGreater(calibration['before']['overconfidence']['low'], 0.1)
    self.assertGreater(calibration['before']['ece']['low'], 0.1)
    self.assertLess(calibration['after']['ece']['value'], 0.04)
    for name in ('nll', 'brier'):
      self.assertLess(
        calibration['after'][name]['value'],
        calibration['before'][name]['value'],
      )

  def test_one_temperature(self):
    one = self.evaluate(ratings(0), ratings(1), temperature='all')
    self.assertLen(set(one['temperatures'].values()), 1)
    own = self.evaluate(ratings(0), ratings(1))
    self.assertLen(set(own['temperatures'].values()), 3)

  def test_fitted_elsewhere(self):
    """The temperature depends only on the calibration set."""
    sharp = ratings(1, 300, noise=0, sharpness=4)
    for evaluated in (ratings(0), ratings(0, sharpness=9)):
      result = self.evaluate(evaluated, sharp)
      np.testing.assert_allclose(result['temperatures']['motion'], 4, rtol=0.2)

  def test_guessing(self):
    """A critic that knows nothing is not above the baselines."""
    result = self.evaluate(ratings(0, 300, noise=1000, sharpness=0.001))
    agreement = result['all']['agreement']
    self.assertLess(agreement['gain']['low'], 0)
    np.testing.assert_allclose(agreement['accuracy']['value'], 1 / 3, atol=0.06)
    reward = result['reward']['soft']
    self.assertLess(abs(reward['spearman']['value']), 0.15)
    np.testing.assert_allclose(
      reward['pairs']['without_ties']['value'], 0.5, atol=0.1
    )

  def test_reward(self):
    """Whole videos; the soft reward sees more than the labels do."""
    result = self.evaluate(ratings(0, 300, noise=0), ratings(1, 300, noise=0))
    soft, labels = result['reward']['soft'], result['reward']['labels']
    self.assertEqual(soft['clips'], 300)
    self.assertEqual(soft['pairs']['count'], 300)  # three of each prompt
    self.assertTrue(soft['pairs']['same_prompt'])
    self.assertGreater(
      soft['pairs']['without_ties']['value'],
      labels['pairs']['without_ties']['value'],
    )
    self.assertGreaterEqual(
      soft['pairs']['with_ties_fitted_here'],
      soft['pairs']['with_ties']['value'],
    )

  def test_errors(self):
    """They are wrong, and are in nothing that needs an answer."""
    whole = self.evaluate(ratings(0, 90))
    result = self.evaluate(ratings(0, 90, fail_every=10))
    section = result['dimensions']['motion']
    self.assertEqual((section['ratings'], section['errors']), (90, 9))
    self.assertEqual(sum(line[-1] for line in section['confusion']), 9)
    self.assertEqual(section['ranking']['clips'], 81)
    self.assertEqual(result['reward']['soft']['clips'], 81)
    bins = section['calibration']['before']['bins']
    self.assertEqual(sum(bin_['count'] for bin_ in bins), 81)
    self.assertLess(
      section['agreement']['accuracy']['value'],
      whole['dimensions']['motion']['agreement']['accuracy']['value'],
    )

  def test_all_errors(self):
    result = self.evaluate(ratings(0, 6, fail_every=1))
    self.assertEqual(result['all']['agreement']['accuracy']['value'], 0)
    self.assertIsNone(result['all']['calibration'])
    self.assertIsNone(result['reward'])

  def test_no_probabilities(self):
    result = self.evaluate(
      ratings(0, has_probabilities=False), ratings(1, has_probabilities=False)
    )
    self.assertIsNone(result['all']['calibration'])
    self.assertEqual(set(result['temperatures'].values()), {None})
    self.assertEqual(list(result['reward']), ['labels'])
    self.assertIsNotNone(result['reward']['labels']['kendall']['value'])

  def test_no_calibration_set(self):
    result = self.evaluate(ratings(0))
    self.assertIsNone(result['all']['calibration']['after'])
    pairs = result['reward']['soft']['pairs']
    self.assertIsNone(pairs['with_ties']['value'])
    self.assertIsNotNone(pairs['with_ties_fitted_here'])

  def test_one_dimension(self):
    only = [r for r in ratings(0) if r.dimension == 'motion']
    result = self.evaluate(only)
    self.assertEqual(list(result['dimensions']), ['motion'])
    self.assertIsNone(result['reward'])

  def test_one_rating(self):
    result = self.evaluate(ratings(0)[:1])
    self.assertIsNone(
      result['dimensions']['semantic']['ranking']['kendall']['value']
    )

  def test_repeats(self):
    """Equal settings give equal numbers."""
    first = self.evaluate(ratings(0), ratings(1))
    self.assertEqual(first, self.evaluate(ratings(0), ratings(1)))

  @parameterized.parameters(
    ({'num_bins': 0}, 'metrics.num_bins is 0'),
    ({'temperature': 'none'}, "metrics.temperature is 'none'"),
    ({'bootstrap': BootstrapConfig(0, 0.95, 0)}, 'metrics.bootstrap.draws'),
    ({'bootstrap': BootstrapConfig(9, 95.0, 0)}, 'between 0 and 1'),
  )
  def test_settings(self, changes, message):
    with self.assertRaisesRegex(UserError, message):
      config(**changes)


class WorstTest(parameterized.TestCase):
  def test_surest_first(self):
    found = critic_evaluation.worst(ratings(0, fail_every=7), 10)
    self.assertLen(found, 10)
    sure = [r.answer.probabilities[r.answer.label] for r in found]
    self.assertEqual(sure, sorted(sure, reverse=True))
    for rating in found:
      self.assertNotEqual(rating.answer.label, rating.human)

  def test_without_probabilities(self):
    found = critic_evaluation.worst(ratings(0, has_probabilities=False), 999)
    steps = [abs(r.answer.label - r.human) for r in found]
    self.assertEqual(steps, sorted(steps, reverse=True))
    self.assertEqual(set(steps), {1, 2})
