"""The page about a demo: what feedback changed, with the clips beside it."""

import base64
from collections.abc import Callable, Mapping, Sequence
import dataclasses
import json
from typing import Any

import numpy as np

from lift_jax.data.gif import encode_gif
from lift_jax.data.hra import DIMENSIONS
from lift_jax.evaluation.bootstrap import Estimate
from lift_jax.report import change_plots, critic_table, curve_plots
from lift_jax.report.change_plots import Change
from lift_jax.report.critic_table import decimal, percent
from lift_jax.report.html import Html, join, page, table, tag
from lift_jax.report.parts import badge, percentage, verdict, written

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
  return page(
    title,
    tag('h1', title),
    tag('p', text, class_='lead'),
    tag('ul', *(tag('li', line) for line in findings(comparison)),
        class_='findings'),
    _about(results),
    tag('h2', 'Before and after'),
    _table(comparison),
    _figures(comparison),
    _flaws(comparison['flaws']),
    tag('h2', 'See for yourself'),
    _clips(content.pairs),
    tag('h2', 'The critic that gave the rewards'),
    _critic(results['critic']),
    tag('h2', 'How training went'),
    _curves(content.curves),
    tag('h2', 'Where the time went'),
    _cost(results),
    tag('h2', 'To do it again'),
    _settings(results, content.configs),
  )  # fmt: skip


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
  change = f'The difference is {_points(difference["value"])} points'
  if difference['low'] is None:
    text = f'{change}; without an interval, it may be chance.'
  else:
    low, high = _points(difference['low']), _points(difference['high'])
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
        f'{dimension} ({_points(difference["value"])} points)'
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
      f'Beware: more clips are static ({_points(still["value"])} points), '
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


def _about(results: Tree) -> Html:
  counts = ', '.join(
    f'{name.replace("_", " ")} {number:,}'
    for name, number in results['counts'].items()
  )
  return tag(
    'p',
    'A small text-to-video model drew clips of moving shapes, many of them '
    'flawed. Simulated people rated some, a critic learnt from them and rated '
    'the rest, and the model was fine-tuned on its own clips, each weighted by '
    'its reward, beside clean ones (LiFT, arXiv 2412.04814). ',
    f'Counts: {counts}. ' if counts else None,
    'A program that measures the pixels judged the clips below; neither the '
    'model nor the critic has seen its verdicts of them.',
    class_='about',
  )


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


def _points(value: float) -> str:
  return _signed(100 * value, 1)


def _signed(value: float, decimals: int) -> str:
  """With its sign, but for what rounds to nothing."""
  # Adding zero turns minus zero into zero.
  value = round(value, decimals) + 0.0
  return f'{value:{"+" if value else ""}.{decimals}f}'.replace('-', '\u2212')


def _thousandths(value: float) -> str:
  return f'{value:.3f}'


_Write = Callable[[float], str]


def _rows(comparison: Tree) -> list[tuple[str, Tree, _Write, _Write]]:
  """Names, numbers, and how to write them and their differences."""
  rates = comparison['rates']
  names = {dimension: dimension for dimension in DIMENSIONS}
  rows = [
    (f'{told}: Good, %', rates[name], percent, _points)
    for name, told in (names | {_ALL: _ALL_NAME}).items()
  ]
  return rows + [
    ('mean reward', comparison['reward'], _thousandths,
     lambda value: _signed(value, 3)),
    ('step, % of the side', comparison['speed'], percent, _points),
    ('static, %', comparison['static_share'], percent, _points),
  ]  # fmt: skip


def _table(comparison: Tree) -> Html:
  rows = []
  for name, numbers, write, write_difference in _rows(comparison):
    writers = (write, write, write_difference)
    cells = [
      written(critic_table.cell(estimate, writer))
      for estimate, writer in zip(
        _known(numbers).values(), writers, strict=True
      )
    ]
    rows.append((name, *cells))
  return join(
    (
      tag(
        'div',
        table(('', 'before', 'after', 'difference'), rows),
        class_='scroll',
      ),
      tag(
        'p',
        f'In brackets intervals of {_coverage(comparison)}, from drawing '
        'prompts with replacement. Differences of shares are in points. The '
        'reward is the mean score of a clip’s labels; the step is how far a '
        'shape goes from one frame to the next; in a static clip nothing '
        'moves.',
        class_='about',
      ),
    )
  )


def _change(name: str, numbers: Tree) -> Change:
  known = _known(numbers)
  return Change(
    name, Estimate(**known['before']), Estimate(**known['after'])
  )  # fmt: skip


def _figures(comparison: Tree) -> Html:
  rates = comparison['rates']
  changes = [_change(name, rates[name]) for name in DIMENSIONS]
  changes.append(_change(_ALL_NAME, rates[_ALL]))
  axes = [*changes, _change('reward', comparison['reward'])]
  labels = comparison['labels']
  radar = change_plots.radar(axes, title=_told(axes))
  drawn = (
    (radar, 'Shares of Good and the mean reward; further out is better.'),
    (
      change_plots.bars(changes, title=_told(changes), limit=1.0),
      'Shares of Good with their intervals.',
    ),
    (
      change_plots.label_shares(
        labels['before'],
        labels['after'],
        title='Shares of Good, Normal and Bad in each dimension',
      ),
      'All labels; each bar is all clips.',
    ),
  )
  return tag(
    'div',
    *(
      tag('figure', picture, tag('figcaption', caption))
      for picture, caption in drawn
      if picture is not None
    ),
    class_='row figures',
  )


def _told(changes: Sequence[Change]) -> str:
  """The numbers of a picture, for those who do not see it."""
  return '; '.join(
    f'{change.name} '
    + ' then '.join(
      'unknown' if estimate.value is None else f'{estimate.value:.3f}'
      for estimate in (change.before, change.after)
    )
    for change in changes
  )


def _flaws(flaws: Mapping[str, Mapping[str, float]]) -> Html | None:
  """How many clips have each kind, the most frequent first."""
  before, after = flaws['before'], flaws['after']
  # A kind that is not listed was not found.
  shares = {
    kind: (before.get(kind, 0.0), after.get(kind, 0.0))
    for kind in dict.fromkeys((*before, *after))
  }
  shares = {kind: both for kind, both in shares.items() if any(both)}
  if not shares:
    return None
  changes = [
    Change(kind, *(Estimate(share, None, None) for share in both))
    for kind, both in sorted(
      shares.items(), key=lambda item: max(item[1]), reverse=True
    )
  ]
  # As many columns as a screen has room for, all to one scale.
  rows = -(-len(changes) // _COLUMNS)
  columns = [changes[i : i + rows] for i in range(0, len(changes), rows)]
  limit = change_plots.limit_of(changes)
  return join(
    (
      tag('h2', 'What is wrong with clips'),
      tag('p', 'Shares of clips that have each kind of fault.', class_='about'),
      tag(
        'div',
        *(
          tag(
            'figure',
            change_plots.bars(column, title=_told(column), limit=limit),
          )
          for column in columns
        ),
        class_='row',
      ),
    )
  )


def _clips(pairs: Sequence[ClipPair]) -> Html:
  if not pairs:
    return tag('p', 'No clips were kept.')
  return join(
    (
      tag(
        'p',
        'Each pair has one prompt and one seed. What the judge says of the '
        'pixels stands below each clip.',
        class_='about',
      ),
      tag('div', *map(_pair, pairs), class_='clips'),
    )
  )


def _pair(pair: ClipPair) -> Html:
  return tag(
    'article',
    tag('h3', pair.caption),
    tag(
      'div',
      _clip('before', pair.caption, pair.before),
      _clip('after', pair.caption, pair.after),
      class_='pair',
    ),
    class_='card',
  )


def _clip(name: str, caption: str, clip: ShownClip) -> Html:
  data = base64.b64encode(encode_gif(clip.frames_thw3, _FPS)).decode()
  verdicts = (
    tag(
      'li',
      badge(label),
      ' ',
      tag('strong', dimension),
      tag('div', clip.rationales[dimension], class_='muted'),
    )
    for dimension, label in clip.labels.items()
  )
  return tag(
    'div',
    tag('p', tag('strong', name),
        tag('span', f', reward {decimal(clip.reward)}', class_='muted')),
    tag('img', src=f'data:image/gif;base64,{data}', alt=f'{name}: {caption}'),
    tag('ul', *verdicts, class_='verdicts'),
  )  # fmt: skip


def _critic(critic: Mapping[str, Mapping[str, Tree | None]]) -> Html:
  kinds = {'accuracy': 'accuracy, %', 'macro_f1': 'macro-F1, %',
           'ece': 'ECE, %'}  # fmt: skip
  rows = [
    (
      name,
      *(written(critic_table.cell(numbers[kind], percent)) for kind in kinds),
    )
    for name, numbers in critic.items()
  ]
  return join(
    (
      tag('div', table(('', *kinds.values()), rows), class_='scroll'),
      tag(
        'p',
        'On clips that it has not learnt from. Accuracy is how often it names '
        'the right label; macro-F1 counts rare labels as much as common ones; '
        'ECE is how far its confidence is off on average, less is better.',
        class_='about',
      ),
    )
  )


def _curves(
  curves: Mapping[str, Mapping[str, Sequence[tuple[int, float]]]],
) -> Html:
  parts = []
  for stage, series in curves.items():
    figures = (
      tag('figure', curve_plots.curve(name, points))
      for name, points in series.items()
    )
    parts += [
      tag('h3', stage, class_='stage'),
      tag('div', *figures, class_='row'),
    ]
  return join(parts) if parts else tag('p', 'No numbers were kept.')


def _cost(results: Tree) -> Html:
  seconds = list(results['seconds'].items())
  total = curve_plots.duration(sum(value for _, value in seconds))
  memory = results['peak_memory_gib']
  told = '-' if memory is None else f'{memory:.1f} GiB'
  return join(
    (
      tag('p', f'In all {total}; peak memory {told}.'),
      tag(
        'figure',
        curve_plots.durations(
          seconds,
          title='; '.join(
            f'{name} {curve_plots.duration(value)}' for name, value in seconds
          ),
        ),
      )
      if seconds
      else None,
    )
  )


def _settings(results: Tree, configs: Mapping[str, Mapping[str, Any]]) -> Html:
  versions = ', '.join(
    f'{name} {version}' for name, version in results['versions'].items()
  )
  return join(
    (
      tag('p', f'Seed {results["seed"]}; {versions}.'),
      *(
        tag(
          'details',
          tag('summary', f'Config of {stage}'),
          tag('pre', json.dumps(config, indent=1, default=str)),
        )
        for stage, config in configs.items()
      ),
    )
  )
