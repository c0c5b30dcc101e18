"""Pictures of before and after: true to the numbers."""

import math

from absl.testing import parameterized

from lift_jax.evaluation.bootstrap import Estimate
from lift_jax.report import change_plots
from lift_jax.report.change_plots import Change
from tests.report import pictures


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
  def polygons(self, picture):
    return {
      polygon.get('class'): pictures.points(polygon)
      for polygon in pictures.elements(picture, 'polygon')
    }

  def test_corners(self):
    """Clockwise from the top, as far out as the values say."""
    picture = change_plots.radar(
      [
        change('a', 1.0, 0.5), change('b', 0.0, 1.0), change('c', 0.25, 1.0),
        change('d', 0.5, 0.75),
      ],
      title='t',
    )  # fmt: skip
    pictures.assert_well_formed(self, picture, 't')
    drawn = self.polygons(picture)
    top, right, bottom, left = drawn['ring']  # the last of them is the whole
    middle = (top[0], right[1])
    radius = middle[1] - top[1]
    self.assertEqual(right, (middle[0] + radius, middle[1]))
    self.assertEqual(bottom, (middle[0], middle[1] + radius))
    self.assertEqual(left, (middle[0] - radius, middle[1]))
    for name, values in {
      'before': (1.0, 0.0, 0.25, 0.5), 'after': (0.5, 1.0, 1.0, 0.75)
    }.items():  # fmt: skip
      expected = [
        (middle[0] + radius * value * x, middle[1] + radius * value * y)
        for value, (x, y) in zip(
          values, ((0, -1), (1, 0), (0, 1), (-1, 0)), strict=True
        )
      ]
      self.assertEqual(drawn[name], expected)

  def test_five(self):
    changes = [change(f'axis {i}', 0.2 * i, 0.6) for i in range(5)]
    picture = change_plots.radar(changes, title='t')
    pictures.assert_well_formed(self, picture, 't')
    drawn = self.polygons(picture)
    middle, radius = (164, 148), 100
    for index, (x, y) in enumerate(drawn['after']):
      angle = math.radians(72 * index - 90)
      self.assertAlmostEqual(x, middle[0] + 60 * math.cos(angle), delta=0.01)
      self.assertAlmostEqual(y, middle[1] + 60 * math.sin(angle), delta=0.01)
    for index, corner in enumerate(drawn['before']):
      self.assertAlmostEqual(
        math.dist(corner, middle), radius * 0.2 * index, delta=0.02
      )
    self.assertContainsSubset([f'axis {i}' for i in range(5)],
                              pictures.texts(picture))  # fmt: skip

  @parameterized.parameters((None, 0.2), (0.1, None))
  def test_unknown(self, before, after):
    """An axis that lacks a value is left out; two axes are no picture."""
    changes = [
      change('a', 0.1, 0.2), change('b', before, after), change('c', 0.1, 0.2),
      change('d', 0.1, 0.2),
    ]  # fmt: skip
    picture = change_plots.radar(changes, title='t')
    self.assertLen(self.polygons(picture)['before'], 3)
    self.assertNotIn('b', pictures.texts(picture))
    self.assertIsNone(change_plots.radar(changes[:3], title='t'))


class BarsTest(parameterized.TestCase):
  def test_lengths(self):
    picture = change_plots.bars(
      [
        change('a', 0.1, 0.4, 0.05),
        change('b', 0.2, None),
        change('<c>', 0, 0.5),
      ],
      title='t',
      limit=0.5,
    )
    pictures.assert_well_formed(self, picture, 't')
    widths = [
      float(bar.get('width')) for bar in pictures.elements(picture, 'rect')[2:]
    ]
    full = widths[-1]
    ticks = [
      float(line.get('x1'))
      for line in pictures.elements(picture, 'line')
      if line.get('x1') == line.get('x2')
    ]
    self.assertEqual(full, ticks[2] - ticks[0])
    self.assertGreater(full, change_plots.WIDTH / 2)
    for width, expected in zip(widths, (0.2, 0.8, 0.4, 0, 1), strict=True):
      self.assertAlmostEqual(width / full, expected, places=3)
    texts = pictures.texts(picture)
    self.assertEqual(texts[:5], ['before', 'after', '0%', '25%', '50%'])
    self.assertEqual(texts[5:8], ['a', '10.0%', '40.0%'])
    self.assertEqual(texts[8:11], ['b', '20.0%', '-'])
    whiskers = [
      line
      for line in pictures.elements(picture, 'line')
      if line.get('y1') == line.get('y2')
    ]
    self.assertLen(whiskers, 2)
    for whisker in whiskers:
      length = float(whisker.get('x2')) - float(whisker.get('x1'))
      self.assertAlmostEqual(length / full, 0.2, places=3)

  @parameterized.parameters(
    (0.03, 0.05), (0.1, 0.1), (0.11, 0.2), (0.51, 1.0), (1.0, 1.0),
    (None, 1.0),
  )  # fmt: skip
  def test_limit(self, most, expected):
    self.assertEqual(change_plots.limit_of([change('a', most, None)]), expected)

  def test_limit_holds_intervals(self):
    self.assertEqual(
      change_plots.limit_of([change('a', 0.03, 0.01, 0.03)]), 0.1
    )


class LabelSharesTest(parameterized.TestCase):
  def test_segments(self):
    """Side by side from good to bad, in all as long as the bar."""
    picture = change_plots.label_shares(
      {'a': shares(0.5, 0.25, 0.25)}, {'a': shares(0.9, 0.1, 0.0)}, title='t'
    )
    pictures.assert_well_formed(self, picture, 't')
    segments = [
      (float(bar.get('x')), float(bar.get('width')), bar[0].text)
      for bar in pictures.elements(picture, 'rect')
    ]
    full = sum(width for _, width, _ in segments[:3])
    self.assertAlmostEqual(
      sum(width for _, width, _ in segments[3:]), full, delta=0.02
    )
    self.assertEqual(
      [told for _, _, told in segments],
      ['Good 50.0%', 'Normal 25.0%', 'Bad 25.0%', 'Good 90.0%', 'Normal 10.0%',
       'Bad 0.0%'],
    )  # fmt: skip
    for index in (0, 1):
      x, width, _ = segments[index]
      self.assertAlmostEqual(x + width, segments[index + 1][0], delta=0.02)
    self.assertAlmostEqual(segments[0][1] / full, 0.5, places=3)
    # What does not fit is left to the title.
    self.assertEqual(
      pictures.texts(picture),
      ['a', 'before', 'Good 50%', '25%', '25%', 'after', 'Good 90%'],
    )
