"""HTML report of a demo: what feedback changed, with clips to compare."""

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
  by_interval,
  cell,
  decimal,
  duration,
  percent,
  percentage,
  points,
  short,
  signed,
)
from lift_jax.report.svg import Plot

# CogVideoX's frame rate.
_FPS = 8

_COLUMNS = 3

Tree = dict[str, Any]

_UNDEFINED = {'value': None, 'low': None, 'high': None}

_ALL = 'all'
_ALL_NAME = 'all three'

# The base model, and what plain fine-tuning and feedback make of it.
MODELS = ('base', 'plain', 'feedback')


@dataclasses.dataclass(frozen=True)
class ShownClip:
  """A clip and its evaluation.

  Attributes:
    frames_thw3: uint8 [T, H, W, 3].
    labels: by dimension.
    rationales: a sentence by dimension.
    reward: of the labels, between 0 and 1.
  """

  frames_thw3: np.ndarray
  labels: Mapping[str, str]
  rationales: Mapping[str, str]
  reward: float


@dataclasses.dataclass(frozen=True)
class ShownPrompt:
  """Clips of one prompt and seed, by model."""

  caption: str
  clips: Mapping[str, ShownClip]


@dataclasses.dataclass(frozen=True)
class DemoContent:
  """Content of the page.

  Attributes:
    results: content of `results.json`.
    prompts: clips to show, in this order.
    curves: steps and values of metrics, by stage and name.
    configs: of each stage, as it ran.
  """

  results: Tree
  prompts: Sequence[ShownPrompt]
  curves: Mapping[str, Mapping[str, Sequence[tuple[int, float]]]]
  configs: Mapping[str, Mapping[str, Any]]


def demo_page(content: DemoContent) -> str:
  """The HTML page."""
  results = content.results
  title, text = headline(results)
  seconds = results['seconds']
  memory = results['peak_memory_gib']
  return html.render(
    'demo.html',
    title=title,
    lead=text,
    findings=findings(results['comparison']),
    counts={
      name.replace('_', ' '): number
      for name, number in results['counts'].items()
    },
    models=MODELS,
    rows=_rows(results),
    coverage=_coverage(results['comparison']),
    changes=_changes(results),
    flaws=_flaws(_by_model(results, 'flaws')),
    prompts=[_prompt(prompt) for prompt in content.prompts],
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


def headline(results: Tree) -> tuple[str, str]:
  """The main finding in a sentence, and its uncertainty.

  It compares feedback with plain fine-tuning on the same clips, as the
  difference to the base model may be due to any fine-tuning.
  """
  comparison = results['comparison']
  rates = _by_model(results, 'rates', _ALL)
  difference = _known(comparison['rates'][_ALL])['difference']
  if None in (difference['value'], *(rate['value'] for rate in rates.values())):
    return (
      'No result: the share of clips that are Good in all three dimensions is '
      'unknown',
      'The share is missing for one of the models.',
    )
  base, plain, feedback = (percentage(rates[model]) for model in MODELS)
  what = f'{feedback} of clips are Good in all three dimensions'
  title = by_interval(
    difference,
    f'Feedback beats plain fine-tuning: {what}, against {plain}',
    f'Feedback is worse than plain fine-tuning: {what}, against {plain}',
    'No significant difference between feedback and plain fine-tuning: '
    f'{what}, against {plain}',
  )
  change = f'The difference is {points(difference["value"])} points'
  if difference['low'] is None:
    text = f'{change}; without an interval, it may be due to chance.'
  else:
    low, high = points(difference['low']), points(difference['high'])
    coverage = _coverage(comparison)
    text = f'{change} ({coverage} interval: {low} to {high})' + by_interval(
      difference,
      '.',
      '.',
      '. The interval includes zero: it may be due to chance.',
    )
  return title, (
    f'{text} Before fine-tuning it was {base}. Both models were trained on '
    f'clips of the same set for the same number of steps. Measured on '
    f'{comparison["num_videos"]:,} clips of '
    f'{comparison["num_prompts"]:,} prompts that were held out from training; '
    'all models start from the same noise.'
  )


def findings(comparison: Tree) -> list[str]:
  """Further findings on feedback against plain fine-tuning, in sentences."""
  groups = {'better in': [], 'worse in': [], 'no significant change in': []}
  for dimension in DIMENSIONS:
    difference = _known(comparison['rates'][dimension])['difference']
    if difference['value'] is not None:
      groups[by_interval(difference, *groups)].append(
        f'{dimension} ({points(difference["value"])} points)'
      )
  changes = '; '.join(
    f'{group} {_listed(members)}'
    for group, members in groups.items()
    if members
  )
  lines = []
  if changes:
    lines.append(
      f'Feedback against plain fine-tuning, by the share of Good: {changes}.'
    )
  # A reward for clean images may simply stop all motion.
  still, speed = (
    _known(comparison[name])['difference'] for name in ('static_share', 'speed')
  )
  if by_interval(still, 'more', '', ''):
    lines.append(
      f'Warning: more clips are static ({points(still["value"])} points), '
      'which can raise rewards without any real improvement.'
    )
  if by_interval(speed, '', 'less', ''):
    lines.append(
      'Shapes move less from frame to frame than after plain fine-tuning. '
      'Check whether they jitter less or travel less.'
    )
  return lines


def _listed(words: list[str]) -> str:
  """'a', 'a and b', 'a, b and c'."""
  *first, last = words
  return f'{", ".join(first)} and {last}' if first else last


def _known(numbers: Tree) -> Tree:
  """Estimates, with undefined ones instead of None."""
  return {
    name: estimate or _UNDEFINED
    for name, estimate in ((name, numbers[name])
                           for name in ('before', 'after', 'difference'))
  }  # fmt: skip


def _coverage(comparison: Tree) -> str:
  """Coverage of the intervals, such as '95%'."""
  return f'{100 * comparison["bootstrap"]["coverage"]:g}%'


def _thousandths(value: float) -> str:
  return f'{value:.3f}'


def _by_model(results: Tree, *path: str) -> Tree:
  """The entries of each model at `path` in the comparisons, by model."""

  def entry(name: str, side: str) -> Any:
    section = results[name]
    for key in path:
      section = section[key]
    return _UNDEFINED if section[side] is None else section[side]

  base, plain, feedback = MODELS
  return {
    base: entry('from_base', 'before'),
    plain: entry('comparison', 'before'),
    feedback: entry('comparison', 'after'),
  }


def _numbers() -> list[tuple[str, tuple[str, ...], Format, Format]]:
  """Titles, paths in comparisons, and formats of values and differences."""
  names = {dimension: dimension for dimension in DIMENSIONS}
  rows = [
    (f'{title}: Good, %', ('rates', name), percent, points)
    for name, title in (names | {_ALL: _ALL_NAME}).items()
  ]
  return [
    *rows,
    ('mean reward', ('reward',), _thousandths, lambda value: signed(value, 3)),
    ('step, % of image side', ('speed',), percent, points),
    ('static, %', ('static_share',), percent, points),
  ]


def _rows(results: Tree) -> list[Row]:
  """Rows of all numbers: of each model, and the difference of the last two."""
  rows = []
  for title, path, write, write_difference in _numbers():
    numbers = results['comparison']
    for key in path:
      numbers = numbers[key]
    cells = [
      cell(estimate, write) for estimate in _by_model(results, *path).values()
    ]
    difference = cell(_known(numbers)['difference'], write_difference)
    rows.append(Row(title, (*cells, difference)))
  return rows


def _change(name: str, numbers: Tree) -> Change:
  return Change(
    name, {model: Estimate(**number) for model, number in numbers.items()}
  )


def _changes(results: Tree) -> list[Plot]:
  changes = [
    _change(name, _by_model(results, 'rates', name)) for name in DIMENSIONS
  ]
  changes.append(_change(_ALL_NAME, _by_model(results, 'rates', _ALL)))
  axes = [*changes, _change('reward', _by_model(results, 'reward'))]
  drawn = [
    Plot(
      change_plots.change_bars(changes, limit=1.0),
      _alt_text(changes),
      'Shares of Good, with intervals.',
    ),
    Plot(
      change_plots.label_shares(_by_model(results, 'labels')),
      'Shares of Good, Normal and Bad in each dimension',
      'Shares of all labels.',
    ),
  ]
  radar = change_plots.radar(axes)
  if radar is None:
    return drawn
  caption = 'Shares of Good and the mean reward; further out is better.'
  return [Plot(radar, _alt_text(axes), caption), *drawn]


def _alt_text(changes: Sequence[Change]) -> str:
  """The numbers of a plot, for screen readers."""
  return '; '.join(
    f'{change.name}: '
    + ', '.join(
      f'{model} '
      + ('unknown' if number.value is None else f'{number.value:.3f}')
      for model, number in change.models.items()
    )
    for change in changes
  )


def _flaws(flaws: Mapping[str, Mapping[str, float]]) -> list[Plot]:
  """Shares of clips with each kind of flaw, the most frequent first.

  Args:
    flaws: by model and kind; kinds that were not found may be missing.
  """
  kinds = {kind for shares in flaws.values() for kind in shares}
  shares = {
    kind: {model: flaws[model].get(kind, 0.0) for model in flaws}
    for kind in sorted(kinds)
  }
  changes = [
    Change(
      kind,
      {model: Estimate(share, None, None) for model, share in models.items()},
    )
    for kind, models in sorted(
      shares.items(), key=lambda item: max(item[1].values()), reverse=True
    )
    if any(models.values())
  ]
  # As many columns as fit a screen, all at the same scale.
  limit = change_plots.axis_limit(changes)
  num_rows = -(-len(changes) // _COLUMNS)
  columns = [
    changes[start : start + num_rows]
    for start in range(0, len(changes), num_rows or 1)
  ]
  return [
    Plot(change_plots.change_bars(column, limit), _alt_text(column))
    for column in columns
  ]


def _prompt(prompt: ShownPrompt) -> dict[str, Any]:
  clips = {model: _clip(clip) for model, clip in prompt.clips.items()}
  return {'caption': prompt.caption, 'clips': clips}


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
