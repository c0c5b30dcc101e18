"""Tables of a comparison, on terminals and pages."""

from absl.testing import parameterized
import pytest

from lift_jax.data.vbench_dimensions import PUBLISHED
from lift_jax.report import compare_table
from tests.report.comparison_results import comparison, row, win_rate

pytestmark = pytest.mark.fast


class TextTest(parameterized.TestCase):
  def test_lines(self):
    lines = compare_table.text_lines(
      comparison(
        row('a', 0.5, 0.6, 'better'),
        row('b', 0.5, 0.45),
        row('c', 0.5, 0.25, 'lower', group='Other', is_share=False),
      )
    )
    self.assertEqual(
      lines,
      [
        f'{"":<33}   before    after   change  95% interval',
        'Group',
        f'{"  a, %":<33}     50.0     60.0    +10.0  [+5.0, +15.0]    ▲',
        f'{"  b, %":<33}     50.0     45.0     −5.0  [−10.0, 0.0]',
        'Other',
        f'{"  c":<33}    0.500    0.250   −0.250  [−0.300, −0.200] ▽',
        'significant: ▲ better, ▼ worse, △ higher, ▽ lower',
      ],
    )

  def test_width(self):
    _, _, line, _ = compare_table.text_lines(
      comparison(row('x' * 99, 1.0, 0.0, 'better'), model='y' * 99)
    )
    self.assertLessEqual(len(line), 80)


class RowsTest(parameterized.TestCase):
  def test_cells(self):
    group, one = compare_table.rows(
      comparison(row('a', 0.5, 0.6, 'better', win_rate=win_rate(3, 0, 1)))
    )
    self.assertEqual((group.title, group.cells), ('Group', ()))
    self.assertEqual(
      [(cell.value, cell.interval) for cell in one.cells],
      [
        ('50.0', '[45.0, 55.0]'), ('60.0', '[55.0, 65.0]'),
        ('+10.0', '[+5.0, +15.0]'), ('▲ better', ''), ('4.0', ''),
        ('75.0', '[65.0, 85.0]'), ('75.0', '[65.0, 85.0]'), ('200', ''),
      ],
    )  # fmt: skip

  def test_unknown(self):
    _, one = compare_table.rows(comparison(row('a', 0.5, 0.6, detectable=None)))
    self.assertEqual(
      [cell.value for cell in one.cells[3:7]],
      ['not shown', '-', '-', '-'],
    )

  def test_published(self):
    """A model without all dimensions has no totals."""
    rows = compare_table.published_rows([{'scene': 0.5}], PUBLISHED[:1])
    cells = {row.title: [cell.value for cell in row.cells] for row in rows}
    self.assertEqual(cells['scene'], ['50.00', '51.14'])
    self.assertEqual(cells['color'], ['-', '79.41'])
    self.assertEqual(cells['Total'], ['-', '80.91'])
