"""Pictures: well-formed, within their frame, true to the numbers."""

from absl.testing import parameterized

from lift_jax.report import plots
from lift_jax.report.plots import Measured
from lift_jax.report.style import BLUE
from tests.report import pictures


def _bin(low, count, confidence=None, accuracy=None):
  return {
    'low': low, 'high': low + 0.25, 'count': count, 'confidence': confidence,
    'accuracy': accuracy,
    'accuracy_low': accuracy and accuracy / 2,
    'accuracy_high': accuracy and (1 + accuracy) / 2,
  }  # fmt: skip


BINS = [_bin(0, 0), _bin(0.25, 5, 0.4, 0.6), _bin(0.5, 0), _bin(0.75, 20, 1, 1)]

PICTURES = {
  'confusion': plots.confusion_matrix(
    [[7, 3, 0], [0, 0, 0], [120_000, 1, 5]], ['a', 'b', '<c>'],
    ['a', 'b', '<c>'], title='t',
  ),
  'reliability': plots.reliability_diagram(
    BINS, name='n', colour=BLUE, title='t'
  ),
  'no ratings': plots.reliability_diagram(
    [_bin(0, 0)], name='n', colour=BLUE, title='t'
  ),
  'intervals': plots.intervals(
    [Measured('x', 0.5, 0.0, 1.0, 0.2), Measured('y', 1.0, None, None, None)],
    reference_name='r', title='t',
  ),
  'shares': plots.shares(
    [('Good', 1.0), ('Normal', 0.0), ('Bad', 0.3)], marked='Bad', title='t'
  ),
}  # fmt: skip


class PictureTest(parameterized.TestCase):
  @parameterized.parameters(*PICTURES)
  def test_well_formed(self, name):
    pictures.assert_well_formed(self, PICTURES[name], 't')

  def test_confusion_matrix(self):
    texts = [e.text for e in _elements('confusion', 'text')]
    for text in ('70%', '30%', '7', '120,000', '100%', '<c>'):
      self.assertIn(text, texts)
    fills = [e.get('fill') for e in _elements('confusion', 'rect')]
    self.assertEqual(fills[2], '#ffffff')
    # The fuller, the darker.
    brightness = [sum(bytes.fromhex(fills[i][1:])) for i in (2, 1, 0, 6)]
    self.assertEqual(brightness, sorted(brightness, reverse=True))
    self.assertLen(set(brightness), 4)

  def test_reliability_diagram(self):
    """A dot for each bin that holds something, where its numbers say."""
    dots = _elements('reliability', 'circle')
    self.assertLen(dots, 2)
    first, last = dots
    x_axis = [float(dot.get('cx')) for dot in dots]
    y_axis = [float(dot.get('cy')) for dot in dots]
    size = (x_axis[1] - x_axis[0]) / 0.6
    self.assertAlmostEqual((y_axis[0] - y_axis[1]) / size, 0.4, places=3)
    self.assertLess(float(first.get('r')), float(last.get('r')))
    told = '5 ratings of confidence 25% to 50%: mean 40%, 60% right'
    self.assertEqual(first[0].text, told)
    bars = _elements('reliability', 'rect')
    heights = [float(bar.get('height')) for bar in bars]
    self.assertAlmostEqual(heights[1] / heights[0], 4, places=3)

  def test_intervals(self):
    texts = [e.text for e in _elements('intervals', 'text')]
    for text in ('x', '50.0%', 'y', '100.0%', 'r'):
      self.assertIn(text, texts)

  def test_shares(self):
    good, normal, bad = _elements('shares', 'rect')
    self.assertAlmostEqual(
      float(bad.get('width')) / float(good.get('width')), 0.3
    )
    self.assertIsNone(bad.get('fill-opacity'))
    self.assertIsNotNone(normal.get('fill-opacity'))


def _elements(picture, name):
  return pictures.elements(PICTURES[picture], name)
