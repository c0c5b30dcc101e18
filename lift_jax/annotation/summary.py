"""The report on a project as lines of text."""

from collections.abc import Iterator
from typing import Any

from lift_jax.annotation.quality import LEVELS


def lines(report: dict[str, Any]) -> Iterator[str]:
  """Yields the lines of `quality.report`."""
  tasks = report['tasks']
  yield ', '.join(f'{number} {name}' for name, number in tasks.items())
  for kind, by_dimension in report['agreement'].items():
    yield ''
    yield f"Krippendorff's alpha of {kind}s, with 95 % intervals"
    for dimension, found in by_dimension.items():
      values = ', '.join(f'{x} {_interval(found[x])}' for x in LEVELS)
      yield f'  {dimension}: {values}; {found["tasks"]} with two or more votes'
  yield ''
  yield 'rater: answers, skips, hours, seconds each, agreement, gold'
  for rater in report['raters']:
    seconds = '-' if rater['seconds'] is None else f'{rater["seconds"]:.0f}'
    gold = rater['gold']
    yield (
      f'  {rater["name"]}: {rater["answers"]}, {rater["skips"]}, '
      f'{rater["hours"]:.1f}, {seconds}, {_percent(rater["agreement"])}, '
      f'{_percent(gold["share"])} of {gold["labels"]}'
    )
    for dimension, shares in rater['labels'].items():
      named = ', '.join(f'{x} {_percent(n)}' for x, n in shares.items())
      yield f'    {dimension}: {named}'


def _interval(found: dict[str, float | None]) -> str:
  value, low, high = found['value'], found['low'], found['high']
  if value is None:
    return 'undefined (no variation)'
  if low is None or high is None:
    return f'{value:.3f}'
  return f'{value:.3f} [{low:.3f}, {high:.3f}]'


def _percent(share: float | None) -> str:
  return '-' if share is None else f'{100 * share:.0f} %'
