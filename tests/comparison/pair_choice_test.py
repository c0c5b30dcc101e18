"""Which pairs a report shows."""

from absl.testing import parameterized
import pytest

from lift_jax.comparison.metrics import DIVERSITY, HIGHER, LOWER, Metric
from lift_jax.comparison.model_comparison import MetricValues
from lift_jax.comparison.pair_choice import choose_pairs

pytestmark = pytest.mark.fast

KEYS = [(name, 0) for name in 'abcdef']


def _measured(name, better, gains):
  base = dict.fromkeys(KEYS, 0.5)
  other = {key: 0.5 + gain for key, gain in zip(KEYS, gains, strict=True)}
  return MetricValues(Metric(name, name, 'g', better), (base, other))


class ChoiceTest(parameterized.TestCase):
  def choose(self, measured, count=1, keys=KEYS):
    pairs = choose_pairs(measured, 1, keys, count, seed=0)
    return {
      (pair.key[0], *reason) for pair in pairs for reason in pair.reasons
      if reason[1] != 'random'
    }  # fmt: skip

  def test_extremes(self):
    measured = [
      _measured('x', HIGHER, (0, 0.1, 0.3, -0.2, -0.1, 0)),
      _measured('y', LOWER, (0.4, 0, 0, 0, 0, -0.1)),
    ]
    self.assertEqual(
      self.choose(measured),
      {
        ('c', 'x', 'gain'), ('d', 'x', 'loss'),
        ('f', 'y', 'gain'), ('a', 'y', 'loss'),
      },
    )  # fmt: skip

  def test_no_more_than_there_are(self):
    measured = [_measured('x', HIGHER, (0, 0.1, 0, 0, 0, 0))]
    self.assertEqual(self.choose(measured, count=9), {('b', 'x', 'gain')})

  def test_each_pair_once(self):
    measured = [
      _measured(name, HIGHER, (0.1, 0, 0, 0, 0, -0.1)) for name in 'xy'
    ]
    pairs = choose_pairs(measured, 1, KEYS, 6, seed=0)
    self.assertLen({pair.key for pair in pairs}, len(pairs))
    self.assertLen(pairs, 6)

  def test_random(self):
    first, again, other = (
      [pair.key for pair in choose_pairs([], 1, KEYS, 3, seed)]
      for seed in (0, 0, 1)
    )
    self.assertEqual(first, again)
    self.assertNotEqual(first, other)

  @parameterized.parameters('temporal_flickering', DIVERSITY.name)
  def test_not_of_these_clips(self, name):
    measured = [_measured(name, HIGHER, (1, 0, 0, 0, 0, 0))]
    self.assertEmpty(self.choose(measured))

  def test_clips_that_one_model_lacks(self):
    measured = [_measured('x', HIGHER, (1, 0.5, 0, 0, 0, 0))]
    self.assertEqual(self.choose(measured, keys=KEYS[1:]), {('b', 'x', 'gain')})
