"""Table of several critics on the same ratings and pairs."""

from collections.abc import Mapping

from lift_jax.evaluation.critic_evaluation import Tree
from lift_jax.report.formatting import (
  Cell,
  Row,
  cell,
  decimal,
  percent,
  signed,
  text_table,
)


def columns(critics: Tree) -> list[str]:
  """The critics; each but the first has a column of differences, too."""
  first, *others = critics['critics']
  return [first, *(text for name in others for text in (name, '− first'))]


def rows(critics: Tree) -> list[Row]:
  return [
    row
    for part in ('ratings', 'pairs')
    for row in _rows(critics['critics'], critics[part], part)
  ]


def _rows(names: list[str], section: Tree, part: str) -> list[Row]:
  if not section['count']:
    return []
  counts = tuple(
    Cell(str(section['count'])) if index == 0 else Cell('')
    for index in range(2 * len(names) - 1)
  )
  found = [Row(part, counts)]
  for title, by_critic in section['metrics'].items():
    is_share = title != 'Spearman'
    cells = []
    for name in names:
      estimate = by_critic.get(name)
      cells.append(cell(estimate, percent if is_share else decimal))
      if name != names[0]:
        cells.append(_difference(estimate, is_share))
    found.append(Row(title + (', %' if is_share else ''), tuple(cells)))
  return found


def _difference(
  estimate: Mapping[str, Tree | None] | None, is_share: bool
) -> Cell:
  difference = estimate and estimate['minus_first']
  scale, decimals = (100, 1) if is_share else (1, 2)
  return cell(difference, lambda value: signed(scale * value, decimals))


def text_lines(critics: Tree) -> list[str]:
  """The table for a terminal."""
  return text_table(['Critics', *columns(critics)], rows(critics))
