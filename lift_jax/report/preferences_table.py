"""Table of a critic's accuracy on pairs that people compared."""

from lift_jax.evaluation.critic_evaluation import Tree
from lift_jax.report.formatting import Row, at, cell, percent, text_table

# Title, path of the number, as in `evaluation.preferences`.
_ROWS = (
  ('no ties, %', 'without_ties'),
  ('with ties, %', 'with_ties'),
  ('  if all tie, %', 'human_ties'),
  ('VideoGen-RewardBench, no ties, %', 'benchmark.without_ties'),
  ('VideoGen-RewardBench, with ties, %', 'benchmark.with_ties'),
)


def rows(preferences: Tree) -> list[Row]:
  sections = preferences['dimensions'].values()
  return [
    Row('pairs', tuple(cell(one['count'], str) for one in sections)),
    *(
      Row(title, tuple(cell(at(one, path), percent) for one in sections))
      for title, path in _ROWS
    ),
  ]


def text_lines(preferences: Tree) -> list[str]:
  """The table for a terminal."""
  lines = text_table(
    ['Pairs that people compared', *preferences['dimensions']],
    rows(preferences),
  )
  votes = preferences['votes']
  return lines + ([] if votes is None else ['', votes_line(votes)])


def votes_line(votes: Tree) -> str:
  """The accuracy of GenAI-Bench in a sentence."""
  return (
    f'GenAI-Bench: {percent(votes["accuracy"])}% of {votes["votes"]} votes, '
    f'with thresholds fitted on {votes["fitted_on"]} others'
  )
