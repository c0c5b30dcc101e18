"""Table of a critic's evaluation, for reports and terminals.

There is one column per dimension and one for all. In the rows about the order
of clips, the last column is about videos ranked by their reward.
"""

from lift_jax.evaluation.critic_evaluation import Tree
from lift_jax.report.formatting import Row, at, cell, decimal, percent

# Title, path of the number within a section, and its format; or a heading.
_ROWS = (
  ('Labels', None, None),
  ('accuracy, %', 'agreement.accuracy', percent),
  ('  one label only, %', 'agreement.baseline_accuracy', percent),
  ('  gain over that', 'agreement.gain', percent),
  ('macro-F1, %', 'agreement.macro_f1', percent),
  ('Confidence', None, None),
  ('too sure by, %', 'calibration.before.overconfidence', percent),
  ('ECE, %', 'calibration.before.ece', percent),
  ('  scaled', 'calibration.after.ece', percent),
  ('NLL', 'calibration.before.nll', decimal),
  ('  scaled', 'calibration.after.nll', decimal),
  ('  of base rates', 'calibration.base_rates.nll', decimal),
  ('Brier score', 'calibration.before.brier', decimal),
  ('  scaled', 'calibration.after.brier', decimal),
  ('  of base rates', 'calibration.base_rates.brier', decimal),
  ('temperature', 'temperature', decimal),
  ('Order of clips', None, None),
  ('Spearman', 'ranking.spearman', decimal),
  ('Kendall tau-b', 'ranking.kendall', decimal),
  ('pairs, no ties, %', 'ranking.pairs.without_ties', percent),
  ('pairs, with ties, %', 'ranking.pairs.with_ties', percent),
  ('  if all tie, %', 'ranking.pairs.human_ties', percent),
)


def columns(result: Tree) -> list[str]:
  return [*result['dimensions'], 'all']


def main_reward(result: Tree) -> Tree | None:
  """The ranking of videos by the soft reward, or by labels if there is none."""
  reward = result['reward'] or {}
  return reward.get('soft') or reward.get('labels')


def rows(result: Tree) -> list[Row]:
  """All rows, including headings."""
  sections = [
    section | {'temperature': result['temperatures'][name]}
    for name, section in result['dimensions'].items()
  ]
  sections.append(result['all'] | {'ranking': main_reward(result)})
  return [
    Row(title)
    if path is None or write is None
    else Row(
      title, tuple(cell(at(section, path), write) for section in sections)
    )
    for title, path, write in _ROWS
  ]


def text_lines(result: Tree) -> list[str]:
  """The table for a terminal, up to 100 columns wide with three dimensions."""
  table = rows(result)
  names = columns(result)
  title_width = 2 + max(len(row.title) for row in table)
  lines: list[str] = [' ' * title_width]
  written: list[list[str]] = [
    [f'{cell.value:>5} {cell.interval}'.rstrip() for cell in row.cells]
    for row in table
  ]
  for index, name in enumerate(names):
    width = max(len(cells[index]) for cells in written if cells)
    lines[0] += f'{name:<{width + 2}}'
    for cells in written:
      if cells:
        cells[index] = f'{cells[index]:<{width + 2}}'
  for row, cells in zip(table, written, strict=True):
    if not cells:
      lines.append('')
    lines.append(f'{row.title:<{title_width}}{"".join(cells)}')
  return [line.rstrip() for line in lines]
