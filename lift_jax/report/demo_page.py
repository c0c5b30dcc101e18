"""HTML report of a demo: what feedback changed, with clips to compare."""

import base64
from collections.abc import Mapping, Sequence
import dataclasses
import json
from typing import Any

import numpy as np

from lift_jax.data.gif import encode_gif
from lift_jax.evaluation.bootstrap import Estimate
from lift_jax.report import change_plots, html, plots
from lift_jax.report.change_plots import Change
from lift_jax.report.formatting import (
  Row,
  by_interval,
  cell,
  decimal,
  duration,
  percent,
  percentage,
  points,
  short,
)
from lift_jax.report.svg import Plot

# CogVideoX's frame rate.
_FPS = 8

_COLUMNS = 3

Tree = dict[str, Any]

# The base model, and what plain fine-tuning and feedback make of it.
MODELS = BASE, PLAIN, FEEDBACK = 'base', 'plain', 'feedback'


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
    compared: see `compare_page.sections`.
    prompts: clips to show, in this order.
    curves: steps and values of metrics, by stage and name.
    configs: of each stage, as it ran.
  """

  results: Tree
  compared: Tree
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
    counts={
      name.replace('_', ' '): number
      for name, number in results['counts'].items()
    },
    compared=content.compared,
    labels=_labels(results['labels']),
    flaws=_flaws(results['flaws']),
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
  comparison, row = _row(results, PLAIN, FEEDBACK)
  _, from_base = _row(results, BASE, FEEDBACK)
  difference = row['difference']
  rates = from_base['base'], row['base'], row['other']
  if None in (difference['value'], *(rate['value'] for rate in rates)):
    return (
      'No result: the share of clips that are Good in all three dimensions is '
      'unknown',
      'The share is missing for one of the models.',
    )
  base, plain, feedback = map(percentage, rates)
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
    coverage = f'{100 * comparison["coverage"]:g}%'
    text = f'{change} ({coverage} interval: {low} to {high})' + by_interval(
      difference,
      '.',
      '.',
      '. The interval includes zero: it may be due to chance.',
    )
  return title, (
    f'{text} Before fine-tuning it was {base}. Both models were trained on '
    f'clips of the same set for the same number of steps. Measured on '
    f'{row["num_clips"]:,} clips of {row["num_prompts"]:,} prompts that were '
    'held out from training; all models start from the same noise.'
  )


def _row(results: Tree, base: str, model: str) -> tuple[Tree, Tree]:
  """A comparison, and its row of the clips that are Good in all dimensions.

  That is the decisive metric.
  """
  (comparison,) = (
    one
    for one in results['comparisons']
    if (one['base'], one['model']) == (base, model)
  )
  decisive = comparison['decisive']
  (row,) = (row for row in comparison['rows'] if row['name'] == decisive)
  return comparison, row


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


def _labels(labels: Mapping[str, Tree]) -> Plot:
  return Plot(
    change_plots.label_shares(labels),
    'Shares of Good, Normal and Bad in each dimension',
    'Shares of all labels.',
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
