"""Plots that compare models: what is drawn, and where."""

from absl.testing import parameterized
import numpy as np
import pytest

from lift_jax.evaluation.bootstrap import Estimate
from lift_jax.report import compare_plots

pytestmark = pytest.mark.fast


class PlotsTest(parameterized.TestCase):
  def test_radar(self):
    models = {f'model {i}': [0.1, 0.5, 0.2 * i] for i in range(5)}
    figure = compare_plots.model_radar(['a', 'b', 'c'], models)
    (axes,) = figure.axes
    self.assertLen(axes.patches, 5)  # more than there are styles
    np.testing.assert_allclose(
      sorted(line.get_ydata()[0] for line in axes.lines[2::3]),
      [0, 0.2, 0.4, 0.6, 0.8],
    )
    (legend,) = figure.legends
    self.assertEqual([t.get_text() for t in legend.texts], list(models))

  def test_intervals(self):
    figure = compare_plots.difference_intervals(
      {
        'a': (Estimate(1.0, 0.5, 1.5), True),
        'b': (Estimate(-1.0, None, None), False),
      },
      'points',
    )
    (axes,) = figure.axes
    zero, interval, first, second = axes.lines
    self.assertEqual(list(zero.get_xdata()), [0, 0])
    self.assertEqual(list(interval.get_xdata()), [0.5, 1.5])
    self.assertEqual(list(first.get_xdata()), [1.0])
    # Filled only if it is significant.
    self.assertNotEqual(
      first.get_markerfacecolor(), second.get_markerfacecolor()
    )
