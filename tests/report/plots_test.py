"""Plots of critics and runs: correct numbers, and all text in the frame."""

import math

from absl.testing import parameterized
from matplotlib.collections import QuadMesh
import numpy as np

from lift_jax.evaluation.bootstrap import Estimate
from lift_jax.report import plots
from lift_jax.report.colours import BLUE
from lift_jax.report.formatting import duration
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
    # Larger shares are darker.
    brightness = [
      sum(mesh.to_rgba(share)[:3]) for share in (0, 0.3, 0.5, 0.7, 1)
    ]
    self.assertEqual(brightness[0], 3)
    self.assertEqual(brightness, sorted(brightness, reverse=True))
    self.assertLen(set(brightness), 5)

  def test_reliability_diagram(self):
    """A dot for each non-empty bin, at its confidence and accuracy."""
    figure = plots.reliability_diagram(BINS, 'n', BLUE)
    figures.assert_within(self, figure)
    dots = figures.hovers(figure)
    self.assertEqual(
      list(dots),
      [
        '5 ratings of confidence 25% to 50%: mean 40%, accuracy 60%',
        '20 ratings of confidence 75% to 100%: mean 100%, accuracy 100%',
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
