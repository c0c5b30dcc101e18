"""Table of a critic's accuracy on pairs that people compared."""

from lift_jax.evaluation.critic_evaluation import Tree
from lift_jax.report.formatting import Row, cell, percent

# Title, key of the number, as in `evaluation.preferences`.
_ROWS = (
  ('no ties, %', 'without_ties'),
  ('with ties, %', 'with_ties'),
  ('  if all tie, %', 'human_ties'),
)


def rows(preferences: Tree) -> list[Row]:
  sections = preferences['dimensions'].values()
  return [
    Row('pairs', tuple(cell(one['count'], str) for one in sections)),
    *(
      Row(title, tuple(cell(one[key], percent) for one in sections))
      for title, key in _ROWS
    ),
  ]


def text_lines(preferences: Tree) -> list[str]:
  """The table for a terminal."""
  table = [
    [row.title, *(f'{c.value:>5} {c.interval}'.rstrip() for c in row.cells)]
    for row in rows(preferences)
  ]
  table.insert(0, ['Pairs that people compared', *preferences['dimensions']])
  widths = [max(map(len, column)) for column in zip(*table, strict=True)]
  return ['', *(
    '  '.join(
      text.ljust(width) for text, width in zip(line, widths, strict=True)
    ).rstrip()
    for line in table
  )]  # fmt: skip
