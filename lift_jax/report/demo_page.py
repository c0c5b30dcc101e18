"""The page about a demo: what feedback changed, with the clips beside it."""

import base64
from collections.abc import Mapping, Sequence
import dataclasses
import json
from typing import Any

import numpy as np

from lift_jax.data.gif import encode_gif
from lift_jax.data.hra import DIMENSIONS
from lift_jax.evaluation.bootstrap import Estimate
from lift_jax.report import change_plots, html, plots
from lift_jax.report.change_plots import Change
from lift_jax.report.formatting import (
  Format,
  Row,
  cell,
  decimal,
  duration,
  percent,
  percentage,
  points,
  short,
  signed,
  verdict,
)
from lift_jax.report.svg import Plot

# As CogVideoX generates.
_FPS = 8

_COLUMNS = 3

Tree = dict[str, Any]

_UNDEFINED = {'value': None, 'low': None, 'high': None}

_ALL = 'all'
_ALL_NAME = 'all three'


@dataclasses.dataclass(frozen=True)
class ShownClip:
  """A clip, and what the judge says of it.

  Attributes:
    frames_thw3: uint8 [T, H, W, 3].
    labels: of each dimension.
    rationales: a sentence for each dimension.
    reward: of the labels, between 0 and 1.
  """

  frames_thw3: np.ndarray
  labels: Mapping[str, str]
  rationales: Mapping[str, str]
  reward: float


@dataclasses.dataclass(frozen=True)
class ClipPair:
  """What became of one prompt and one seed, before and after."""

  caption: str
  before: ShownClip
  after: ShownClip


@dataclasses.dataclass(frozen=True)
class DemoContent:
  """What the page shows.

  Attributes:
    results: what `results.json` holds.
    pairs: clips to show, in this order.
    curves: by stage and name, the steps and values of a number.
    configs: of each stage, as it ran.
  """

  results: Tree
  pairs: Sequence[ClipPair]
  curves: Mapping[str, Mapping[str, Sequence[tuple[int, float]]]]
  configs: Mapping[str, Mapping[str, Any]]


def demo_page(content: DemoContent) -> str:
  """The whole page."""
  results = content.results
  comparison = results['comparison']
  title, text = headline(comparison)
  seconds = results['seconds']
  memory = results['peak_memory_gib']
  return html.render(
    'demo.html',
    title=title,
    lead=text,
    findings=findings(comparison),
    counts={
      name.replace('_', ' '): number
      for name, number in results['counts'].items()
    },
    rows=_rows(comparison),
    coverage=_coverage(comparison),
    changes=_changes(comparison),
    flaws=_flaws(comparison['flaws']),
    pairs=[_pair(pair) for pair in content.pairs],
    critic=_critic(results['critic']),
    curves={
      stage: [_curve(name, values) for name, values in series.items()]
      for stage, series in content.curves.items()
    },
    seconds=duration(sum(seconds.values())),
    durations=_durations(seconds) if seconds else None,
    memory='-' if memory is None else f'{memory:.1f} GiB',
    seed=results['seed'],
    versions=results['versions'],
    configs={
      stage: json.dumps(config, indent=1, default=str)
      for stage, config in content.configs.items()
    },
  )


def headline(comparison: Tree) -> tuple[str, str]:
  """The finding in a sentence, and how sure it is."""
  rates = _known(comparison['rates'][_ALL])
  before, after, difference = (
    rates[name] for name in ('before', 'after', 'difference')
  )
  if None in (before['value'], after['value'], difference['value']):
    return (
      'Nothing can be said: clips Good in all three dimensions were not '
      'counted',
      'The shares before and after are not both known.',
    )
  first, then = percentage(before), percentage(after)
  what = f'{then} of clips are Good in all three dimensions'
  title = verdict(
    difference,
    f'Feedback helped: {what}, up from {first}',
    f'Feedback did harm: {what}, down from {first}',
    f'No clear change: {what}, {first} before',
  )
  change = f'The difference is {points(difference["value"])} points'
  if difference['low'] is None:
    text = f'{change}; without an interval, it may be chance.'
  else:
    low, high = points(difference['low']), points(difference['high'])
    of = _coverage(comparison)
    text = f'{change} ({of} interval: {low} to {high})' + verdict(
      difference,
      '.',
      '.',
      '. The interval includes zero: chance alone may have made it.',
    )
  return title, (
    f'{text} Measured on {comparison["num_videos"]:,} clips of '
    f'{comparison["num_prompts"]:,} prompts that training never saw, each '
    'drawn twice from the same noise.'
  )


def findings(comparison: Tree) -> list[str]:
  """What else the numbers come to, in sentences."""
  groups = {'better in': [], 'worse in': [], 'no clear change in': []}
  for dimension in DIMENSIONS:
    difference = _known(comparison['rates'][dimension])['difference']
    if difference['value'] is not None:
      groups[verdict(difference, *groups)].append(
        f'{dimension} ({points(difference["value"])} points)'
      )
  told = '; '.join(
    f'{group} {_listed(members)}'
    for group, members in groups.items()
    if members
  )
  lines = [f'By the share of Good: {told}.'] if told else []
  # What is rewarded for looking clean may simply stop moving.
  still, speed = (
    _known(comparison[name])['difference'] for name in ('static_share', 'speed')
  )
  if verdict(still, 'more', '', ''):
    lines.append(
      f'Beware: more clips are static ({points(still["value"])} points), '
      'which can please a critic without any gain.'
    )
  if verdict(speed, '', 'less', ''):
    lines.append(
      'Steps from frame to frame are shorter than before. See whether shapes '
      'tremble less or move less.'
    )
  return lines


def _listed(words: list[str]) -> str:
  """'a', 'a and b', 'a, b and c'."""
  *first, last = words
  return f'{", ".join(first)} and {last}' if first else last


def _known(numbers: Tree) -> Tree:
  """Estimates of which none is None."""
  return {
    name: estimate or _UNDEFINED
    for name, estimate in ((name, numbers[name])
                           for name in ('before', 'after', 'difference'))
  }  # fmt: skip


def _coverage(comparison: Tree) -> str:
  """Of the intervals, such as '95%'."""
  return f'{100 * comparison["bootstrap"]["coverage"]:g}%'


def _thousandths(value: float) -> str:
  return f'{value:.3f}'


def _numbers(comparison: Tree) -> list[tuple[str, Tree, Format, Format]]:
  """Names, numbers, and how to write them and their differences."""
  rates = comparison['rates']
  names = {dimension: dimension for dimension in DIMENSIONS}
  rows = [
    (f'{told}: Good, %', rates[name], percent, points)
    for name, told in (names | {_ALL: _ALL_NAME}).items()
  ]
  return rows + [
    ('mean reward', comparison['reward'], _thousandths,
     lambda value: signed(value, 3)),
    ('step, % of the side', comparison['speed'], percent, points),
    ('static, %', comparison['static_share'], percent, points),
  ]  # fmt: skip


def _rows(comparison: Tree) -> list[Row]:
  """The table of all numbers before, after, and their differences."""
  rows = []
  for name, numbers, write, write_difference in _numbers(comparison):
    writers = (write, write, write_difference)
    cells = map(cell, _known(numbers).values(), writers)
    rows.append(Row(name, tuple(cells)))
  return rows


def _change(name: str, numbers: Tree) -> Change:
  known = _known(numbers)
  return Change(
    name, Estimate(**known['before']), Estimate(**known['after'])
  )  # fmt: skip


def _changes(comparison: Tree) -> list[Plot]:
  rates = comparison['rates']
  changes = [_change(name, rates[name]) for name in DIMENSIONS]
  changes.append(_change(_ALL_NAME, rates[_ALL]))
  axes = [*changes, _change('reward', comparison['reward'])]
  labels = comparison['labels']
  drawn = [
    Plot(
      change_plots.change_bars(changes, limit=1.0),
      _told(changes),
      'Shares of Good with their intervals.',
    ),
    Plot(
      change_plots.label_shares(labels['before'], labels['after']),
      'Shares of Good, Normal and Bad in each dimension',
      'All labels; each bar is all clips.',
    ),
  ]
  radar = change_plots.radar(axes)
  if radar is None:
    return drawn
  caption = 'Shares of Good and the mean reward; further out is better.'
  return [Plot(radar, _told(axes), caption), *drawn]


def _told(changes: Sequence[Change]) -> str:
  """The numbers of a plot, for those who do not see it."""
  return '; '.join(
    f'{change.name} '
    + ' then '.join(
      'unknown' if estimate.value is None else f'{estimate.value:.3f}'
      for estimate in (change.before, change.after)
    )
    for change in changes
  )


def _flaws(flaws: Mapping[str, Mapping[str, float]]) -> list[Plot]:
  """How many clips have each kind, the most frequent first."""
  before, after = flaws['before'], flaws['after']
  # A kind that is not listed was not found.
  shares = {
    kind: (before.get(kind, 0.0), after.get(kind, 0.0))
    for kind in dict.fromkeys((*before, *after))
  }
  changes = [
    Change(kind, *(Estimate(share, None, None) for share in both))
    for kind, both in sorted(
      shares.items(), key=lambda item: max(item[1]), reverse=True
    )
    if any(both)
  ]
  # As many columns as a screen has room for, all to one scale.
  limit = change_plots.axis_limit(changes)
  num_rows = -(-len(changes) // _COLUMNS)
  columns = [
    changes[start : start + num_rows]
    for start in range(0, len(changes), num_rows or 1)
  ]
  return [
    Plot(change_plots.change_bars(column, limit), _told(column))
    for column in columns
  ]


def _pair(pair: ClipPair) -> dict[str, Any]:
  return {
    'caption': pair.caption,
    'clips': {'before': _clip(pair.before), 'after': _clip(pair.after)},
  }


def _clip(clip: ShownClip) -> dict[str, Any]:
  return {
    'gif': base64.b64encode(encode_gif(clip.frames_thw3, _FPS)).decode(),
    'reward': decimal(clip.reward),
    'labels': clip.labels,
    'rationales': clip.rationales,
  }


def _critic(critic: Mapping[str, Mapping[str, Tree | None]]) -> list[Row]:
  kinds = ('accuracy', 'macro_f1', 'ece')
  return [
    Row(name, tuple(cell(numbers[kind], percent) for kind in kinds))
    for name, numbers in critic.items()
  ]


def _curve(name: str, values: Sequence[tuple[int, float]]) -> Plot:
  title = name
  if finite := plots.finite_points(values):
    (start, first), (end, last) = finite[0], finite[-1]
    title = (
      f'{name} over steps {short(start)} to {short(end)}: from {short(first)} '
      f'to {short(last)}'
    )
  return Plot(plots.curve(name, values), title)


def _durations(seconds: Mapping[str, float]) -> Plot:
  return Plot(
    plots.bars(seconds, duration, size=(110, 18), left=80),
    '; '.join(f'{name} {duration(value)}' for name, value in seconds.items()),
  )
