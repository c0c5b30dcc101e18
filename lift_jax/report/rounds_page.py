"""HTML report of `lift rounds`: what the guards saw after each round."""

from collections.abc import Mapping, Sequence
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from lift_jax.report import html
from lift_jax.report.colours import BLUE, MUTED, VERMILION
from lift_jax.report.formatting import Row, cell, short
from lift_jax.report.svg import Plot, new_axes, set_hover, styled

_TITLES = {
  'reward': 'reward of the training critic',
  'held_out_reward': 'reward of the held-out critic',
  'frame_difference': 'mean frame difference, relative',
  'static_share': 'share of static clips',
  'diversity': 'distance of clips of a prompt, relative',
  'anchor_distance': 'distance of velocities',
  'implicit_accuracy': 'accuracy on held-out pairs',
  'winner_change': 'error of winners over reference',
}
# Numbers that are a change since base or the last good round.
_CHANGES = ('reward', 'held_out_reward', 'frame_difference', 'diversity')

Tree = Mapping[str, Any]


def rounds_page(results: Tree) -> str:
  """The HTML page.

  Args:
    results: content of rounds.json.
  """
  rounds = results['rounds']
  names = [
    name
    for name in _TITLES
    if any(name == guard['name'] for one in rounds for guard in one['guards'])
  ]
  return html.render(
    'rounds.html',
    title=_headline(results),
    lead=f'The model is that of {results["model"]["of"].replace("_", " ")}: '
    + ' with '.join([results['model']['path'], *results['model']['adapters']]),
    broken=[
      f'Round {one["number"]} was rolled back: {reason}.'
      for one in rounds
      for reason in one['broken']
    ],
    columns=[_column(one) for one in rounds],
    rows=[_row(name, rounds) for name in names],
    plots=[Plot(_curve(name, rounds), _TITLES[name]) for name in names],
    seed=results['seed'],
  )


def _headline(results: Tree) -> str:
  count = len(results['rounds'])
  rounds = f'{count} round{"" if count == 1 else "s"}'
  back = sum(one['rolled_back'] for one in results['rounds'])
  return f'{rounds}, {back} rolled back; {results["state"]}'


def _column(one: Tree) -> str:
  return f'round {one["number"]}' + (', rolled back' * one['rolled_back'])


def _row(name: str, rounds: Sequence[Tree]) -> Row:
  return Row(_TITLES[name], tuple(_cell(name, one) for one in rounds))


def _cell(name: str, one: Tree):
  guard = _guard(name, one)
  write = _signed if name in _CHANGES else short
  return cell(None if guard is None else dict(guard['value']), write)


def _signed(value: float) -> str:
  return f'{value:+.3f}'


def _guard(name: str, one: Tree) -> Tree | None:
  return next((g for g in one['guards'] if g['name'] == name), None)


@styled
def _curve(name: str, rounds: Sequence[Tree]) -> Figure:
  """A guard over rounds, with intervals and limits; broken ones in red."""
  axes = new_axes((186, 88), (16, 18, 28, 42))
  axes.set_title(_TITLES[name])
  axes.set_xlabel('round', loc='left')
  axes.xaxis.set_major_locator(MaxNLocator(integer=True))
  axes.yaxis.set_major_locator(MaxNLocator(4))
  axes.yaxis.set_major_formatter(lambda value, _: short(value))
  axes.grid(axis='y')
  axes.set_xlim(0.5, len(rounds) + 0.5)
  for one in rounds:
    guard = _guard(name, one)
    if guard is None:
      continue
    value, x = guard['value'], one['number']
    colour = VERMILION if guard['broken'] else BLUE
    if value['low'] is not None:
      axes.plot((x, x), (value['low'], value['high']), c=colour, lw=1.6)
    (dot,) = axes.plot(x, value['value'], 'o', c=colour, ms=5)
    set_hover(dot, guard['broken'] or f'round {x}: {short(value["value"])}')
    for limit in (guard['lowest'], guard['highest']):
      if limit is not None:
        axes.plot((x - 0.4, x + 0.4), (limit, limit), c=MUTED, ls=(0, (4, 3)))
  return axes.figure
