"""VBench's totals, of published rows to two decimals."""

from absl.testing import parameterized
import pytest

from lift_jax.data import vbench_dimensions
from lift_jax.data.vbench_dimensions import DIMENSIONS, PUBLISHED

pytestmark = pytest.mark.fast


class TotalsTest(parameterized.TestCase):
  @parameterized.parameters(
    ('VBench leaderboard', 'CogVideoX-2B', (82.18, 75.83, 80.91)),
    ('VBench leaderboard', 'CogVideoX-5B', (82.76, 77.04, 81.61)),
    ('LiFT paper', 'CogVideoX-2B', (81.21, 76.40, 80.25)),
    ('LiFT paper', 'CogVideoX-5B', (81.77, 77.51, 80.91)),
    ('LiFT paper', 'CogVideoX-2B-LiFT (13B critic)', (82.83, 79.42, 82.15)),
    ('LiFT paper', 'CogVideoX-2B-LiFT (40B critic)', (83.31, 80.85, 82.82)),
  )
  def test_published(self, source, model, expected):
    (row,) = (
      row
      for row in PUBLISHED
      if row.source.startswith(source) and row.model == model
    )
    totals = vbench_dimensions.totals(row.scores)
    self.assertEqual(
      tuple(round(100 * totals[name], 2) for name in totals), expected
    )

  def test_another_model(self):
    """A row of the leaderboard that is not in the table (OpenSora 1.2)."""
    percents = (
      96.75, 97.61, 99.53, 98.50, 42.39, 56.85, 63.34,
      82.22, 51.83, 91.20, 90.08, 68.56, 42.44, 23.95, 24.54, 26.85,
    )  # fmt: skip
    scores = dict(zip(DIMENSIONS, (p / 100 for p in percents), strict=True))
    totals = vbench_dimensions.totals(scores)
    self.assertEqual(
      [round(100 * total, 2) for total in totals.values()],
      [81.35, 73.39, 79.76],
    )

  def test_bounds(self):
    for end, expected in (('low', 0.0), ('high', 1.0)):
      scores = {name: getattr(one, end) for name, one in DIMENSIONS.items()}
      for total in vbench_dimensions.totals(scores).values():
        self.assertAlmostEqual(total, expected)

  def test_missing_counts_as_0(self):
    """Its normalised score is below 0, as on the leaderboard."""
    full = {name: one.high for name, one in DIMENSIONS.items()}
    rest = {k: v for k, v in full.items() if k != 'subject_consistency'}
    lost = 1 - vbench_dimensions.totals(rest)['quality']
    self.assertAlmostEqual(lost, (1 + 0.1462 / (1 - 0.1462)) / 6.5)
