"""Numbers as text."""

from absl.testing import parameterized

from lift_jax.report import formatting


class FormattingTest(parameterized.TestCase):
  @parameterized.parameters(
    (0, '0.0 s'), (59.94, '59.9 s'), (59.96, '1 min 00 s'),
    (125.4, '2 min 05 s'), (3600, '1 h 00 min'), (7384, '2 h 03 min'),
  )  # fmt: skip
  def test_duration(self, seconds, expected):
    self.assertEqual(formatting.duration(seconds), expected)

  @parameterized.parameters(
    (0, '0'), (0.1234, '0.1234'), (12_345, '12,345'), (1.2e-4, '1.2e-4'),
    (-5e9, '-5e9'), (0.28500000000000003, '0.285'),
  )  # fmt: skip
  def test_short(self, value, expected):
    self.assertEqual(formatting.short(value), expected)

  def test_undefined(self):
    undefined = {'value': None, 'low': None, 'high': None}
    self.assertEqual(formatting.cell(undefined, str).value, '-')
    self.assertEqual(formatting.cell(None, str).value, '-')
    self.assertEqual(formatting.percentage(undefined), '-')
    self.assertEqual(formatting.with_interval(undefined), '-')
