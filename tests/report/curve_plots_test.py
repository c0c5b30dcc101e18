"""Pictures of a run: true to the numbers, whatever these are."""

import math

from absl.testing import parameterized
import numpy as np

from lift_jax.report import curve_plots
from tests.report import pictures


def line(points):
  return curve_plots.curve('loss', points)


class CurveTest(parameterized.TestCase):
  @parameterized.parameters(
    ([(0, 1.0), (10, 0.5), (20, 0.25)],), ([(7, 3.0)],), ([],),
    ([(0, 1e-7), (1, 2e-7)],), ([(0, -5e9), (100_000, 5e9)],),
    ([(0, 2.0), (1, 2.0), (2, 2.0)],), ([(0, 0.0), (5, 0.0)],),
    ([(0, 1.0), (0, 2.0)],), ([(i, math.sin(i)) for i in range(500)],),
    ([(0, math.nan), (1, math.inf)],),
    ([(0, 0.30000000000000004), (1, 0.3)],),
  )  # fmt: skip
  def test_well_formed(self, points):
    picture = line(points)
    title = pictures.elements(picture, 'title')[0].text
    pictures.assert_well_formed(self, picture, title)
    self.assertStartsWith(title, 'loss')
    for text in pictures.texts(picture):
      self.assertNotRegex(text, 'nan|inf$')

  def test_places(self):
    picture = line([(0, 1.0), (10, 0.5), (40, 0.0)])
    (drawn,) = pictures.elements(picture, 'polyline')
    (x0, y0), (x1, y1), (x2, y2) = pictures.points(drawn)
    self.assertAlmostEqual((x1 - x0) / (x2 - x0), 0.25, places=3)
    self.assertAlmostEqual((y1 - y0) / (y2 - y0), 0.5, places=3)
    self.assertLess(y0, y2)
    for tick, (x, y) in (('0', (x0, y2)), ('1', (x2, y0))):
      places = [
        (float(element.get('x')), float(element.get('y')))
        for element in pictures.elements(picture, 'text')
        if element.text == tick
      ]
      self.assertTrue(any(place[0] == x or place[1] == y for place in places))

  def test_smooth_line(self):
    points = [(i, float(i % 2)) for i in range(61)]
    kinds = [
      drawn.get('class')
      for drawn in pictures.elements(line(points), 'polyline')
    ]
    self.assertEqual(kinds, ['raw', 'smooth'])
    self.assertLen(pictures.elements(line(points[:60]), 'polyline'), 1)

  def test_not_finite(self):
    points = [(0, 1.0), (1, math.nan), (2, math.inf), (3, 3.0)]
    picture = line(points)
    (drawn,) = pictures.elements(picture, 'polyline')
    self.assertLen(pictures.points(drawn), 2)
    self.assertIn('2 not finite, 3 at the end', pictures.texts(picture))

  def test_smooth(self):
    values = np.random.default_rng(0).normal(size=23)
    smoothed = curve_plots.smooth(values, 4)
    for index in range(23):
      near = values[max(0, index - 2) : index + 3]
      self.assertAlmostEqual(smoothed[index], near.mean())


class DurationsTest(parameterized.TestCase):
  @parameterized.parameters(
    (0, '0.0 s'), (59.94, '59.9 s'), (59.96, '1 min 00 s'),
    (125.4, '2 min 05 s'), (3600, '1 h 00 min'), (7384, '2 h 03 min'),
  )  # fmt: skip
  def test_text(self, seconds, expected):
    self.assertEqual(curve_plots.duration(seconds), expected)

  def test_bars(self):
    picture = curve_plots.durations(
      [('a', 30.0), ('train_critic on ratings', 120.0)], title='t'
    )
    pictures.assert_well_formed(self, picture, 't')
    short, long = pictures.elements(picture, 'rect')
    self.assertAlmostEqual(
      float(long.get('width')) / float(short.get('width')), 4, places=2
    )
    self.assertIn('2 min 00 s', pictures.texts(picture))

  def test_no_time(self):
    pictures.assert_well_formed(
      self, curve_plots.durations([('a', 0.0)], title='t'), 't'
    )
