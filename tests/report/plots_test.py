"""Plots: true to the numbers, with all of their text in the frame."""

import math

from absl.testing import parameterized
from matplotlib.collections import QuadMesh
import numpy as np

from lift_jax.evaluation.bootstrap import Estimate
from lift_jax.report import plots
from lift_jax.report.colours import BLUE
from lift_jax.report.formatting import duration
from lift_jax.report.plots import Change
from tests.report import figures


def _bin(low, count, confidence=None, accuracy=None):
  return {
    'low': low, 'high': low + 0.25, 'count': count, 'confidence': confidence,
    'accuracy': accuracy,
    'accuracy_low': accuracy and accuracy / 2,
    'accuracy_high': accuracy and (1 + accuracy) / 2,
  }  # fmt: skip


BINS = [_bin(0, 0), _bin(0.25, 5, 0.4, 0.6), _bin(0.5, 0), _bin(0.75, 20, 1, 1)]


class CriticPlotsTest(parameterized.TestCase):
  def test_confusion_matrix(self):
    figure = plots.confusion_matrix(
      [[7, 3, 0], [0, 0, 0], [120_000, 1, 5]], ['a', 'b', '<c>'],
      ['a', 'b', '<c>'],
    )  # fmt: skip
    figures.assert_within(self, figure)
    texts = figures.texts(figure)
    for text in ('70%', '30%', '7', '120,000', '100%', '<c>'):
      self.assertIn(text, texts)
    (mesh,) = figure.findobj(QuadMesh)
    shares = mesh.get_array().ravel().tolist()
    np.testing.assert_allclose(shares[:7], [0.7, 0.3, 0, 0, 0, 0, 0.99995],
                               atol=1e-4)  # fmt: skip
    # The fuller, the darker.
    brightness = [
      sum(mesh.to_rgba(share)[:3]) for share in (0, 0.3, 0.5, 0.7, 1)
    ]
    self.assertEqual(brightness[0], 3)
    self.assertEqual(brightness, sorted(brightness, reverse=True))
    self.assertLen(set(brightness), 5)

  def test_reliability_diagram(self):
    """A dot for each bin that holds something, where its numbers say."""
    figure = plots.reliability_diagram(BINS, 'n', BLUE)
    figures.assert_within(self, figure)
    dots = figures.hovers(figure)
    self.assertEqual(
      list(dots),
      [
        '5 ratings of confidence 25% to 50%: mean 40%, 60% right',
        '20 ratings of confidence 75% to 100%: mean 100%, 100% right',
      ],
    )
    first, last = dots.values()
    self.assertEqual(first.get_xydata().tolist(), [[0.4, 0.6]])
    self.assertEqual(last.get_xydata().tolist(), [[1, 1]])
    self.assertLess(first.get_markersize(), last.get_markersize())
    (axes,) = figure.axes
    _, interval, _ = figures.lines(axes)
    self.assertEqual(interval, [[0.4, 0.3], [0.4, 0.8]])
    (histogram,) = axes.child_axes
    bars = [(bar.get_x(), bar.get_width(), bar.get_height())
            for bar in histogram.patches]  # fmt: skip
    self.assertEqual(bars, [(0.25, 0.25, 5), (0.75, 0.25, 20)])

  def test_reliability_diagram_without_ratings(self):
    figure = plots.reliability_diagram([_bin(0, 0)], 'n', BLUE)
    figures.assert_within(self, figure)
    self.assertEmpty(figures.hovers(figure))

  def test_intervals(self):
    figure = plots.intervals(
      {
        'x': (Estimate(0.5, 0.0, 1.0), 0.2),
        'y': (Estimate(1.0, None, None), None),
      },
      'r',
    )
    figures.assert_within(self, figure)
    self.assertContainsSubset(
      ('x', '50.0%', 'y', '100.0%', 'r'), figures.texts(figure)
    )
    (axes,) = figure.axes
    self.assertEqual(figures.lines(axes), [[[0, 0], [1, 0]]])
    values, references = axes.lines[:2]
    self.assertEqual(values.get_xydata().tolist(), [[0.5, 0], [1, 1]])
    self.assertEqual(references.get_xydata()[0].tolist(), [0.2, 0])

  def test_bars(self):
    figure = plots.bars(
      {'Good': 1.0, 'Normal': 0.0, 'Bad': 0.3}, '{:.0%}'.format,
      size=(112, 13), left=47, marked='Bad',
    )  # fmt: skip
    figures.assert_within(self, figure)
    good, normal, bad = figure.axes[0].patches
    widths = [bar.get_width() for bar in (good, normal, bad)]
    self.assertEqual(widths, [1, 0, 0.3])
    self.assertEqual(bad.get_alpha(), 1)
    self.assertLess(normal.get_alpha(), 1)
    self.assertContainsSubset(('Good', '100%', '0%', '30%'),
                              figures.texts(figure))  # fmt: skip


def change(name, before, after, half=None):
  return Change(
    name,
    *(
      Estimate(value, None, None)
      if half is None or value is None
      else Estimate(value, value - half, value + half)
      for value in (before, after)
    ),
  )


def shares(good, normal, bad):
  return {'Good': good, 'Normal': normal, 'Bad': bad}


class RadarTest(parameterized.TestCase):
  def polygons(self, figure):
    """Corners of each, as distances from the middle."""
    before, after = figure.axes[0].patches
    return {
      'before': before.get_xy()[:-1, 1].tolist(),
      'after': after.get_xy()[:-1, 1].tolist(),
    }

  def test_corners(self):
    """Clockwise from the top, as far out as the values say."""
    figure = plots.radar(
      [
        change('a', 1.0, 0.5), change('b', 0.0, 1.0), change('c', 0.25, 1.0),
        change('d', 0.5, 0.75),
      ]
    )  # fmt: skip
    figures.assert_within(self, figure)
    drawn = self.polygons(figure)
    self.assertEqual(drawn['before'], [1.0, 0.0, 0.25, 0.5])
    self.assertEqual(drawn['after'], [0.5, 1.0, 1.0, 0.75])
    # Where they come to lie, in pixels.
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
    figure = plots.radar(changes)
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
    """An axis that lacks a value is left out; two axes are no plot."""
    changes = [
      change('a', 0.1, 0.2), change('b', before, after), change('c', 0.1, 0.2),
      change('d', 0.1, 0.2),
    ]  # fmt: skip
    figure = plots.radar(changes)
    self.assertLen(self.polygons(figure)['before'], 3)
    self.assertNotIn('b', figures.texts(figure))
    self.assertIsNone(plots.radar(changes[:3]))


class ChangeBarsTest(parameterized.TestCase):
  def test_lengths(self):
    figure = plots.change_bars(
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
    self.assertEqual(plots.axis_limit([change('a', most, None)]), expected)

  def test_limit_holds_intervals(self):
    self.assertEqual(plots.axis_limit([change('a', 0.03, 0.01, 0.03)]), 0.1)


class LabelSharesTest(parameterized.TestCase):
  def test_segments(self):
    """Side by side from good to bad, in all as long as the bar."""
    figure = plots.label_shares(
      {'a': shares(0.5, 0.25, 0.25)}, {'a': shares(0.9, 0.1, 0.0)}
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


class CurveTest(parameterized.TestCase):
  @parameterized.parameters(
    ([(0, 1.0), (10, 0.5), (20, 0.25)],), ([(7, 3.0)],), ([],),
    ([(0, 1e-7), (1, 2e-7)],), ([(0, -5e9), (100_000, 5e9)],),
    ([(0, 2.0), (1, 2.0), (2, 2.0)],), ([(0, 0.0), (5, 0.0)],),
    ([(0, 1.0), (0, 2.0)],), ([(i, math.sin(i)) for i in range(500)],),
    ([(0, math.nan), (1, math.inf)],),
    ([(0, 0.30000000000000004), (1, 0.3)],),
  )  # fmt: skip
  def test_drawn(self, points):
    figure = plots.curve('loss', points)
    figures.assert_within(self, figure)
    texts = figures.texts(figure)
    self.assertIn('loss', texts)
    for text in texts:
      self.assertNotRegex(text, 'nan|inf$')

  def test_points(self):
    points = [(0, 1.0), (10, 0.5), (40, 0.0)]
    (axes,) = plots.curve('loss', points).axes
    self.assertEqual(figures.lines(axes), [[list(point) for point in points]])
    self.assertEqual(axes.get_xlim(), (0, 40))
    self.assertContainsSubset(
      ('0', '0.5', '1'), [text.get_text() for text in axes.get_yticklabels()]
    )

  def test_one_point(self):
    (axes,) = plots.curve('loss', [(7, 3.0)]).axes
    (line,) = axes.lines
    self.assertEqual(line.get_xydata().tolist(), [[7, 3]])
    self.assertEqual(line.get_marker(), 'o')

  def test_smooth_line(self):
    points = [(i, float(i % 2)) for i in range(61)]
    (axes,) = plots.curve('loss', points).axes
    raw, smooth = axes.lines
    self.assertEqual(raw.get_xydata().tolist(), [list(p) for p in points])
    self.assertLess(raw.get_alpha(), 1)
    np.testing.assert_allclose(
      smooth.get_ydata(), plots.smooth(raw.get_ydata(), 4)
    )
    (axes,) = plots.curve('loss', points[:60]).axes
    self.assertLen(axes.lines, 1)

  def test_not_finite(self):
    points = [(0, 1.0), (1, math.nan), (2, math.inf), (3, 3.0)]
    figure = plots.curve('loss', points)
    self.assertEqual(figures.lines(figure.axes[0]), [[[0, 1], [3, 3]]])
    self.assertIn('2 not finite, 3 at the end', figures.texts(figure))

  def test_smooth(self):
    values = np.random.default_rng(0).normal(size=23)
    smoothed = plots.smooth(values, 4)
    for index in range(23):
      near = values[max(0, index - 2) : index + 3]
      self.assertAlmostEqual(smoothed[index], near.mean())


class DurationsTest(parameterized.TestCase):
  def test_bars(self):
    figure = plots.bars(
      {'a': 30.0, 'pretrain_critic': 120.0}, duration, size=(110, 18), left=80
    )
    figures.assert_within(self, figure)
    short, long = figure.axes[0].patches
    self.assertEqual((short.get_width(), long.get_width()), (30, 120))
    self.assertEqual(short.get_alpha(), 1)
    self.assertIn('2 min 00 s', figures.texts(figure))

  def test_no_time(self):
    figure = plots.bars({'a': 0.0}, duration, size=(110, 18), left=80)
    figures.assert_within(self, figure)
