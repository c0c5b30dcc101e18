"""Pieces of pages that stand on more than one of them."""

from collections.abc import Mapping

from lift_jax.report.critic_table import Cell, percent
from lift_jax.report.html import Html, join, tag

# Of an estimate, as files of results hold it: 'value', 'low' and 'high'.
Numbers = Mapping[str, float | None]


def badge(label: str) -> Html:
  """A label, coloured by how good it is."""
  return tag('span', label, class_=f'label {label}')


def written(cell: Cell) -> Html:
  """A number and its interval."""
  if not cell.interval:
    return tag('span', cell.value)
  return join((cell.value, ' ', tag('span', cell.interval, class_='interval')))


def verdict(estimate: Numbers, above: str, below: str, unclear: str) -> str:
  """Which of three it is: surely above 0, surely below, or neither."""
  low, high = estimate['low'], estimate['high']
  if low is None:
    return unclear
  return above if low > 0 else below if high < 0 else unclear


def percentage(estimate: Numbers) -> str:
  return f'{percent(estimate["value"])}%'


def share(estimate: Numbers) -> str:
  """Such as '85.6% (82.1 to 88.9)'."""
  text = percentage(estimate)
  if estimate['low'] is None:
    return text
  low, high = percent(estimate['low']), percent(estimate['high'])
  return f'{text} ({low} to {high})'
