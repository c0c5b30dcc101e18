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


class RadarTest(parameterized.TestCase):
  def polygons(self, figure):
    """The radii of the corners of each polygon."""
    before, after = figure.axes[0].patches
    return {
      'before': before.get_xy()[:-1, 1].tolist(),
      'after': after.get_xy()[:-1, 1].tolist(),
    }

  def test_corners(self):
    """Clockwise from the top, with the values as radii."""
    figure = change_plots.radar(
      [
        change('a', 1.0, 0.5), change('b', 0.0, 1.0), change('c', 0.25, 1.0),
        change('d', 0.5, 0.75),
      ]
    )  # fmt: skip
    figures.assert_within(self, figure)
    drawn = self.polygons(figure)
    self.assertEqual(drawn['before'], [1.0, 0.0, 0.25, 0.5])
    self.assertEqual(drawn['after'], [0.5, 1.0, 1.0, 0.75])
    # Their positions in pixels.
    (axes,) = figure.axes
    figure.draw_without_rendering()
    _, after = axes.patches
    corners = axes.transData.transform(after.get_xy()[:-1])
    middle = axes.transData.transform((0, 0))
    radius = axes.bbox.width / 2
    for corner, value, side in zip(
      corners, (0.5, 1, 1, 0.75), ((0, 1), (1, 0), (0, -1), (-1, 0)),
      strict=True,
    ):  # fmt: skip
      np.testing.assert_allclose(
        corner, middle + radius * value * np.array(side), atol=0.01
      )

  def test_five(self):
    changes = [change(f'axis {i}', 0.2 * i, 0.6) for i in range(5)]
    figure = change_plots.radar(changes)
    figures.assert_within(self, figure)
    _, after = figure.axes[0].patches
    angles = after.get_xy()[:-1, 0]
    np.testing.assert_allclose(angles, np.radians([0, 72, 144, 216, 288]))
    drawn = self.polygons(figure)
    self.assertEqual(drawn['after'], [0.6] * 5)
    self.assertEqual(drawn['before'], [0.2 * i for i in range(5)])
    self.assertContainsSubset([f'axis {i}' for i in range(5)],
                              figures.texts(figure))  # fmt: skip
    self.assertIn('axis 3 before: 0.600', figures.hovers(figure))

  @parameterized.parameters((None, 0.2), (0.1, None))
  def test_unknown(self, before, after):
    """An axis that lacks a value is omitted; two axes make no plot."""
    changes = [
      change('a', 0.1, 0.2), change('b', before, after), change('c', 0.1, 0.2),
      change('d', 0.1, 0.2),
    ]  # fmt: skip
    figure = change_plots.radar(changes)
    self.assertLen(self.polygons(figure)['before'], 3)
    self.assertNotIn('b', figures.texts(figure))
    self.assertIsNone(change_plots.radar(changes[:3]))


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

  def test_radar(self):
    figure = change_plots.radar(self.changes())
    figures.assert_within(self, figure)
    polygons = figure.axes[0].patches
    radii = [polygon.get_xy()[0, 1] for polygon in polygons]
    self.assertEqual(radii, [*self.models.values()])
    self.assertStyles(polygons)

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
