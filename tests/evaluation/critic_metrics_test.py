"""Accuracy and F1, by hand and by brute force."""

import dataclasses

from absl.testing import parameterized
import numpy as np

from lift_jax.evaluation import critic_metrics
from lift_jax.evaluation.bootstrap import BootstrapConfig
from tests.evaluation.tables import random_table

CONFIG = BootstrapConfig(draws=20, coverage=0.9, seed=0)


def _f1(human, answer):
  """Macro-F1 by its definition, over the classes that anyone names."""
  scores = []
  for name in set(human) | (set(answer) - {-1}):
    pairs = list(zip(human, answer, strict=True))
    hits = sum(true == said == name for true, said in pairs)
    named = sum(said == name for _, said in pairs)
    there = sum(true == name for true, _ in pairs)
    precision = hits / named if named else 0
    recall = hits / there if there else 0
    both = precision + recall
    scores.append(2 * precision * recall / both if both else 0)
  return sum(scores) / len(scores)


class AgreementTest(parameterized.TestCase):
  def test_confusion(self):
    table = dataclasses.replace(
      random_table(num=6, num_videos=6),
      human_n=np.array([0, 0, 1, 2, 2, 2]),
      answer_n=np.array([0, 1, -1, 2, 2, 0]),
    )
    expected = [[1, 1, 0, 0], [0, 0, 0, 1], [1, 0, 2, 0]]
    self.assertEqual(critic_metrics.confusion(table).tolist(), expected)
    self.assertEqual(critic_metrics.majority(table), 2)
    numbers = critic_metrics.agreement(table, CONFIG)
    self.assertAlmostEqual(numbers['accuracy'].value, 3 / 6)
    self.assertAlmostEqual(numbers['baseline_accuracy'].value, 3 / 6)
    self.assertAlmostEqual(numbers['gain'].value, 0)
    # F1 of 0: 2/(2+1+1), of 1: 0, of 2: 4/(4+0+1); always 2: 6/(6+3), else 0.
    self.assertAlmostEqual(numbers['macro_f1'].value, (0.5 + 0 + 0.8) / 3)
    self.assertAlmostEqual(numbers['baseline_macro_f1'].value, (2 / 3) / 3)

  @parameterized.parameters(*range(5))
  def test_brute_force(self, seed):
    table = random_table(seed, num=80)
    numbers = critic_metrics.agreement(table, CONFIG)
    self.assertAlmostEqual(
      numbers['macro_f1'].value,
      _f1(table.human_n.tolist(), table.answer_n.tolist()),
      places=12,
    )
    self.assertAlmostEqual(
      numbers['accuracy'].value, (table.human_n == table.answer_n).mean()
    )

  def test_absent_class(self):
    """Classes that nobody names do not count."""
    table = dataclasses.replace(
      random_table(num=4, num_videos=4),
      human_n=np.array([0, 2, 2, 2]), answer_n=np.array([0, 2, 2, -1]),
    )  # fmt: skip
    value = critic_metrics.agreement(table, CONFIG)['macro_f1'].value
    self.assertAlmostEqual(value, (1 + 4 / 5) / 2)

  def test_mean_of_dimensions(self):
    """As the LiFT paper averages: dimensions count alike."""
    table = random_table(num=90)
    is_right_n = table.human_n == table.answer_n
    expected = np.mean(
      [
        is_right_n[table.dimension_n == name].mean()
        for name in np.unique(table.dimension_n)
      ]
    )
    number = critic_metrics.accuracy_by_dimension(table, CONFIG)
    self.assertAlmostEqual(number.value, expected)
    self.assertLess(number.low, number.value)
