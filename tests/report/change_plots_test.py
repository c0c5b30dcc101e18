"""Plots that compare models show the numbers that they are given."""

from absl.testing import parameterized
import numpy as np

from lift_jax.evaluation.bootstrap import Estimate
from lift_jax.report import change_plots
from lift_jax.report.change_plots import Change
from tests.report import figures


def change(name, before, after, half=None):
  return Change(
    name,
    {
      model: Estimate(value, None, None)
      if half is None or value is None
      else Estimate(value, value - half, value + half)
      for model, value in {'before': before, 'after': after}.items()
    },
  )


def shares(good, normal, bad):
  return {'Good': good, 'Normal': normal, 'Bad': bad}


class ChangeBarsTest(parameterized.TestCase):
  def test_lengths(self):
    figure = change_plots.change_bars(
      [
        change('a', 0.1, 0.4, 0.05),
        change('b', 0.2, None),
        change('<c>', 0, 0.5),
      ],
      limit=0.5,
    )
    figures.assert_within(self, figure)
    (axes,) = figure.axes
    self.assertEqual(axes.get_xlim(), (0, 0.5))
    bars = sorted(
      (bar.get_y() + bar.get_height() / 2, bar.get_x(), bar.get_width())
      for bar in axes.patches
    )
    np.testing.assert_allclose(
      bars,
      [
        (-0.2, 0, 0.1),
        (0.2, 0, 0.4),
        (0.8, 0, 0.2),
        (1.8, 0, 0),
        (2.2, 0, 0.5),
      ],
    )
    whiskers = [line.get_xydata() for line in axes.lines]
    np.testing.assert_allclose(
      whiskers,
      [[(0.05, -0.2), (0.15, -0.2)], [(0.35, 0.2), (0.45, 0.2)]],
    )
    told = {
      (round(text.get_position()[1], 1), text.get_text()) for text in axes.texts
    }
    self.assertEqual(
      told,
      {(-0.2, '10.0%'), (0.2, '40.0%'), (0.8, '20.0%'), (1.2, '-'),
       (1.8, '0.0%'), (2.2, '50.0%')},
    )  # fmt: skip
    self.assertContainsSubset(
      ('before', 'after', '0%', '25%', '50%', 'a', 'b', '<c>'),
      figures.texts(figure),
    )

  @parameterized.parameters(
    (0.03, 0.05), (0.1, 0.1), (0.11, 0.2), (0.51, 1.0), (1.0, 1.0),
    (None, 1.0),
  )  # fmt: skip
  def test_limit(self, most, expected):
    self.assertEqual(
      change_plots.axis_limit([change('a', most, None)]), expected
    )

  def test_limit_holds_intervals(self):
    self.assertEqual(
      change_plots.axis_limit([change('a', 0.03, 0.01, 0.03)]), 0.1
    )


class LabelSharesTest(parameterized.TestCase):
  def test_segments(self):
    """Stacked from Good to Bad, together as long as the bar."""
    figure = change_plots.label_shares(
      {
        'before': {'a': shares(0.5, 0.25, 0.25)},
        'after': {'a': shares(0.9, 0.1, 0.0)},
      }
    )
    figures.assert_within(self, figure)
    (axes,) = figure.axes
    segments = {
      (round(bar.get_y(), 2), bar.get_gid().removeprefix('hover: ')): (
        bar.get_x(), bar.get_x() + bar.get_width()
      )
      for bar in axes.patches
    }  # fmt: skip
    np.testing.assert_allclose(
      list(segments.values()),
      [(0, 0.5), (0, 0.9), (0.5, 0.75), (0.9, 1), (0.75, 1), (1, 1)],
    )
    self.assertEqual(
      [told for _, told in sorted(segments)],
      ['Bad 25.0%', 'Good 50.0%', 'Normal 25.0%', 'Bad 0.0%', 'Good 90.0%',
       'Normal 10.0%'],
    )  # fmt: skip
    # What does not fit is left to the title.
    self.assertEqual(
      [text.get_text() for text in axes.texts],
      ['a', 'Good 50%', 'Good 90%', '25%', '', '25%', ''],
    )
    self.assertEqual(
      [text.get_text() for text in axes.get_yticklabels()], ['before', 'after']
    )


class ThreeModelsTest(parameterized.TestCase):
  """Each has a bar, in order, and a style of its own."""

  models = {'base': 0.1, 'plain': 0.2, 'feedback': 0.4}

  def assertStyles(self, patches):
    styles = {
      (patch.get_edgecolor(), patch.get_linestyle(), patch.get_fill())
      for patch in patches
    }
    self.assertLen(styles, 3)

  def changes(self):
    estimates = {
      name: Estimate(value, None, None) for name, value in self.models.items()
    }
    return [Change(name, estimates) for name in 'abc']

  def test_bars(self):
    figure = change_plots.change_bars(self.changes(), limit=0.5)
    figures.assert_within(self, figure)
    bars = figure.axes[0].patches
    middles = sorted(bar.get_y() + bar.get_height() / 2 for bar in bars)
    np.testing.assert_allclose(middles[:3], [-0.8 / 3, 0, 0.8 / 3], atol=1e-9)
    by_height = sorted(bars, key=lambda bar: bar.get_y())
    widths = [bar.get_width() for bar in by_height]
    np.testing.assert_allclose(widths, [*self.models.values()] * 3)
    self.assertStyles(by_height[:3])

  def test_labels(self):
    figure = change_plots.label_shares(
      {
        name: {'a': shares(good, 0.5, 0.5 - good)}
        for name, good in self.models.items()
      }
    )
    figures.assert_within(self, figure)
    (axes,) = figure.axes
    self.assertEqual(
      [text.get_text() for text in axes.get_yticklabels()], [*self.models]
    )
    good = [bar.get_width() for bar in axes.patches[:3]]
    np.testing.assert_allclose(good, [*self.models.values()])
