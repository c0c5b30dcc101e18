"""Formats numbers and estimates for reports."""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
from typing import Any

# An estimate as in result files: 'value', 'low' and 'high'.
Estimate = Mapping[str, float | None]

Format = Callable[[float], str]


@dataclasses.dataclass(frozen=True)
class Cell:
  """A number as text.

  Attributes:
    value: such as '85.6', or '-' if undefined.
    interval: such as '[82.1, 88.9]', or ''.
  """

  value: str
  interval: str = ''


@dataclasses.dataclass(frozen=True)
class Row:
  """A table row; without cells it is the heading of a group."""

  title: str
  cells: tuple[Cell, ...] = ()


def cell(number: Any, write: Format) -> Cell:
  """A number, or an estimate with its interval."""
  if isinstance(number, dict):
    if number['value'] is None:
      return Cell('-')
    if number['low'] is None:
      return Cell(write(number['value']))
    interval = f'[{write(number["low"])}, {write(number["high"])}]'
    return Cell(write(number['value']), interval)
  return Cell('-' if number is None else write(number))


def at(section: Any, path: str) -> Any:
  """The value at a path such as 'ranking.pairs'; None if it is missing."""
  for key in path.split('.'):
    section = section.get(key) if section else None
  return section


def text_table(columns: Sequence[str], rows: Sequence[Row]) -> list[str]:
  """A table for a terminal, after a blank line.

  Args:
    columns: their names, that of the titles first.
    rows: with as many cells as there are other columns.
  """
  table = [
    list(columns),
    *(
      [row.title, *(f'{c.value:>5} {c.interval}'.rstrip() for c in row.cells)]
      for row in rows
    ),
  ]
  widths = [max(map(len, column)) for column in zip(*table, strict=True)]
  return ['', *(
    '  '.join(
      text.ljust(width) for text, width in zip(line, widths, strict=True)
    ).rstrip()
    for line in table
  )]  # fmt: skip


def percent(value: float) -> str:
  return f'{100 * value:.1f}'


def decimal(value: float) -> str:
  return f'{value:.2f}'


def signed(value: float, decimals: int) -> str:
  """A number with its sign, or zero without one."""
  # Adding zero turns minus zero into zero.
  value = round(value, decimals) + 0.0
  return f'{value:{"+" if value else ""}.{decimals}f}'.replace('-', '\u2212')


def points(value: float) -> str:
  """A difference of shares, in percentage points."""
  return signed(100 * value, 1)


def percentage(estimate: Estimate) -> str:
  value = estimate['value']
  return '-' if value is None else f'{percent(value)}%'


def with_interval(estimate: Estimate) -> str:
  """An estimate such as '85.6% (82.1 to 88.9)'."""
  text = percentage(estimate)
  low, high = estimate['low'], estimate['high']
  if low is None or high is None:
    return text
  return f'{text} ({percent(low)} to {percent(high)})'


def by_interval(
  estimate: Estimate, above: str, below: str, unclear: str
) -> str:
  """The text for an interval above zero, below zero, or including zero."""
  low, high = estimate['low'], estimate['high']
  if low is None or high is None:
    return unclear
  return above if low > 0 else below if high < 0 else unclear


def short(value: float) -> str:
  """A number in about eight characters: '0.1234', '12,345' or '1.2e-4'."""
  if 1e3 <= abs(value) < 1e6:
    return f'{value:,.0f}'
  if value and not 1e-3 <= abs(value) < 1e6:
    digits, exponent = f'{value:.2e}'.split('e')
    return f'{float(digits):g}e{int(exponent)}'
  return f'{value:.4g}'


def duration(seconds: float) -> str:
  """A duration such as '2 min 05 s'."""
  if seconds < 59.95:
    return f'{seconds:.1f} s'
  minutes, rest = divmod(round(seconds), 60)
  hours, minutes = divmod(minutes, 60)
  if hours:
    return f'{hours} h {minutes:02d} min'
  return f'{minutes} min {rest:02d} s'
