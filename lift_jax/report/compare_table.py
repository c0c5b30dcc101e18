"""Tables of a comparison of video models, for terminals and pages."""

from collections.abc import Mapping, Sequence
from typing import Any

from lift_jax.data import vbench_dimensions
from lift_jax.report.formatting import (
  Cell,
  Format,
  Row,
  cell,
  percent,
  points,
  signed,
)

Tree = dict[str, Any]

_MARKS = {
  'better': '▲ better', 'worse': '▼ worse', 'higher': '△ higher',
  'lower': '▽ lower', '': '',
}  # fmt: skip


def _formats(row: Tree) -> tuple[Format, Format]:
  """Of values, and of differences."""
  if row['is_share']:
    return percent, points
  return (lambda value: f'{value:.3f}'), (lambda value: signed(value, 3))


def _title(row: Tree) -> str:
  return f'{row["title"]}, %' if row['is_share'] else row['title']


def rows(comparison: Tree) -> list[Row]:
  """Rows of the page: values, difference, mark, win rates, number of clips."""
  found, group = [], None
  for row in comparison['rows']:
    if row['group'] != group:
      group = row['group']
      found.append(Row(group))
    write, write_difference = _formats(row)
    found.append(
      Row(
        f'  {_title(row)}',
        (
          cell(row['base'], write),
          cell(row['other'], write),
          cell(row['difference'], write_difference),
          Cell(_MARKS[row['mark']] or 'not shown'),
          cell(row['detectable'], write),
          _win_rate(row['win_rate'], 'with_ties'),
          _win_rate(row['win_rate'], 'without_ties'),
          Cell(f'{row["num_clips"]:,}'),
        ),
      )
    )
  return found


def _win_rate(rate: Tree | None, kind: str) -> Cell:
  return Cell('-') if rate is None else cell(rate[kind], percent)


def people_rows(people: Mapping[str, Tree]) -> list[Row]:
  """Rows of pairs that people compared: counts and win rates."""
  return [
    Row(
      name,
      (
        *(Cell(f'{rate[kind]:,}') for kind in ('wins', 'ties', 'losses')),
        cell(rate['with_ties'], percent),
        cell(rate['without_ties'], percent),
      ),
    )
    for name, rate in people.items()
  ]


def published_rows(
  scores: Sequence[Mapping[str, float]],
  published: Sequence[vbench_dimensions.PublishedRow],
) -> list[Row]:
  """VBench's dimensions and totals of these models, then of published ones."""
  columns = [*scores, *(row.scores for row in published)]
  totals = [
    vbench_dimensions.totals(column)
    if column.keys() == vbench_dimensions.DIMENSIONS.keys()
    else {}
    for column in columns
  ]
  written = [
    Row(
      name.replace('_', ' '),
      tuple(_score(column.get(name)) for column in columns),
    )
    for name in vbench_dimensions.DIMENSIONS
  ]
  return written + [
    Row(name.capitalize(), tuple(_score(column.get(name)) for column in totals))
    for name in vbench_dimensions.TOTALS
  ]


def _score(score: float | None) -> Cell:
  return Cell('-' if score is None else f'{100 * score:.2f}')


def text_lines(comparison: Tree) -> list[str]:
  """The comparison as a table of up to 80 columns."""
  base, other = (comparison[key][:8] for key in ('base', 'model'))
  coverage = f'{100 * comparison["coverage"]:g}% interval'
  lines = [f'{"":<33}{base:>9}{other:>9}{"change":>9}  {coverage}']
  group = None
  for row in comparison['rows']:
    if row['group'] != group:
      group = row['group']
      lines.append(group)
    write, write_difference = _formats(row)
    change = cell(row['difference'], write_difference)
    values = [cell(row[side], write).value for side in ('base', 'other')]
    text = ''.join(f'{value:>9}' for value in (*values, change.value))
    title = f'  {_title(row)}'[:33]
    mark = _MARKS[row['mark']][:1]
    lines.append(f'{title:<33}{text}  {change.interval:<16} {mark}'.rstrip())
  marks = ', '.join(mark for mark in _MARKS.values() if mark)
  return [*lines, f'significant: {marks}']
