"""Assembles what was measured of several models into one comparison."""

from collections.abc import Mapping, Sequence
import dataclasses
from typing import Any

import numpy as np

from lift_jax.comparison.clip_sets import ClipSet, Key
from lift_jax.comparison.metric_files import MetricFile
from lift_jax.comparison.metrics import HIGHER, NEITHER, Metric
from lift_jax.comparison.statistics import (
  PairedDifference,
  Quantity,
  StatisticsConfig,
  compare,
  mean_of,
  win_rate,
)
from lift_jax.comparison.vbench_results import VBenchResults
from lift_jax.data import vbench_dimensions
from lift_jax.data.pair_records import PairRecord, settle
from lift_jax.data.rubric import Scale
from lift_jax.data.vbench_dimensions import TOTALS
from lift_jax.errors import UserError
from lift_jax.evaluation.bootstrap import BootstrapConfig
from lift_jax.evaluation.scores import ScoredRecord

Tree = dict[str, Any]

VBENCH_TOTALS = 'VBench totals'
VBENCH_GROUP = 'VBench'
CRITIC, HELD_OUT = 'critic', 'held_out'
_CRITIC_TITLES = {CRITIC: 'Critic', HELD_OUT: 'Held-out critic'}
REWARD = 'reward'


@dataclasses.dataclass(frozen=True)
class MetricValues:
  """A metric of every model.

  Attributes:
    metric: what was measured.
    values: of each model, by clip; a clip without a value is left out of the
      comparison for both models.
    scores: of each model, where they are not just the means of the values.
  """

  metric: Metric
  values: tuple[Mapping[Key, float], ...]
  scores: tuple[float, ...] | None = None

  def of(self, *models: int) -> 'MetricValues':
    """The same of some of the models."""
    return dataclasses.replace(
      self,
      values=tuple(self.values[model] for model in models),
      scores=self.scores and tuple(self.scores[model] for model in models),
    )

  def common_keys(self, model: int) -> list[Key]:
    """Clips with a value of the base and of another model."""
    base, other = self.values[0], self.values[model]
    return [key for key in base if key in other]


def vbench_measured(results: Sequence[VBenchResults]) -> list[MetricValues]:
  """The dimensions that all models have results of."""
  return [
    MetricValues(
      Metric(name, name.replace('_', ' '), VBENCH_GROUP, HIGHER),
      tuple(one.dimensions[name].clips for one in results),
      tuple(one.dimensions[name].score for one in results),
    )
    for name in vbench_dimensions.DIMENSIONS
    if results and all(name in one.dimensions for one in results)
  ]


def critic_measured(
  kind: str,
  sets: Sequence[ClipSet],
  records: Sequence[Sequence[ScoredRecord]],
  scale: Scale,
) -> list[MetricValues]:
  """The rewards of a critic, by dimension and their mean.

  Args:
    kind: `CRITIC` or `HELD_OUT`.
    sets: the clips of each model.
    records: the scores of each model's clips; those with an error count as no
      value.
    scale: dimensions, and scores of the labels.

  Raises:
    UserError: a scored video that is none of the clips, a clip that is not
      scored, or scores of several critics.
  """
  _check_one_critic(kind, records)
  values: dict[str, list[dict[Key, float]]] = {
    name: [] for name in (*scale.dimensions, REWARD)
  }
  for found, scored in zip(sets, records, strict=True):
    by_path = {clip.path: clip.key for clip in found.clips.values()}
    for name in values:
      values[name].append({})
    done = set()
    for record in scored:
      if record.path not in by_path:
        raise UserError(
          f'{record.where}: no clip of {found.folder}; score the clips of its '
          'manifest'
        )
      key = by_path[record.path]
      done.add(key)
      rewards = {
        name: answer.soft_reward(scale)
        for name, answer in record.answers.items()
      }
      if len(rewards) == len(scale.dimensions):
        rewards[REWARD] = float(np.mean(list(rewards.values())))
      for name, reward in rewards.items():
        values[name][-1][key] = reward
    if missing := [key for key in found.clips if key not in done]:
      video = found.clips[missing[0]].video
      raise UserError(
        f'{scored[0].file}: no score for {len(missing)} of '
        f'{len(found.clips)} clips, such as {video}; score all of them'
      )
  title = _CRITIC_TITLES[kind]
  return [
    MetricValues(
      Metric(f'{kind}_{name}', f'{title}: {name}', title, HIGHER),
      tuple(by_model),
    )
    for name, by_model in values.items()
    if all(by_model)
  ]


def _check_one_critic(
  kind: str, records: Sequence[Sequence[ScoredRecord]]
) -> None:
  """Raises UserError unless one critic scored the clips of all models."""
  first_by_critic = {}
  for scored in records:
    for record in scored:
      if record.critic:
        first_by_critic.setdefault(record.critic, record)
  if len(first_by_critic) > 1:
    one, other, *_ = first_by_critic.values()
    raise UserError(
      f'{one.where} and {other.where} are scores of different critics; score '
      f'the clips of all models with one {_CRITIC_TITLES[kind].lower()}'
    )


def given_measured(files: Sequence[MetricFile]) -> list[MetricValues]:
  """The metrics that were computed elsewhere, from each model's file."""
  return [
    MetricValues(metric, tuple(file.values[name] for file in files))
    for name, metric in (files[0].metrics.items() if files else ())
  ]


def check_held_out(
  trained: Sequence[Sequence[ScoredRecord]],
  held_out: Sequence[Sequence[ScoredRecord]],
) -> None:
  """Raises UserError if the held-out critic is the other one."""
  names = [
    {record.critic for scored in records for record in scored if record.critic}
    for records in (trained, held_out)
  ]
  if shared := names[0] & names[1]:
    raise UserError(
      f'{held_out[0][0].file}: scores of the critic {min(shared)!r}, which '
      'critic.files has too; hold out another one'
    )


def compare_model(
  measured: Sequence[MetricValues],
  model: int,
  config: StatisticsConfig,
  *,
  allow_missing: bool = False,
) -> list[Tree]:
  """Rows of the comparison of a model with the first one.

  Args:
    measured: at least one metric.
    model: index of the model.
    config: of the statistics.
    allow_missing: whether VBench's totals are computed even if dimensions are
      missing, which then have the score 0.

  Returns:
    For each metric, and VBench's totals if their dimensions are measured, the
    fields of a `PairedDifference` and of its `Metric`, with

      mark       'better' or 'worse', 'higher' or 'lower' where that is not the
                 question, or '' if no difference is significant
      num_clips  of each model
      win_rate   of paired clips, None where it makes no sense
  """
  usable = [one for one in measured if one.common_keys(model)]
  names = dict.fromkeys(name for one in usable for name, _ in one.values[0])
  prompts = {name: index for index, name in enumerate(names)}
  pairs = {
    one.metric.name: (
      _quantity(one, 0, model, prompts),
      _quantity(one, model, model, prompts),
    )
    for one in usable
  }
  totals = _totals(pairs, allow_missing)
  compared = compare(totals | pairs, config)
  rows = []
  for name in totals:
    metric = Metric(name, name.capitalize(), VBENCH_TOTALS, HIGHER)
    num_clips = sum(
      len(one.common_keys(model))
      for one in usable
      if one.metric.name in vbench_dimensions.coefficients(name)
    )
    rows.append(_row(metric, compared[name], num_clips, None))
  for one in usable:
    keys = one.common_keys(model)
    rate = None
    if one.metric.better != NEITHER:
      outcomes = [
        (key[0], _outcome(one, key, model) * one.metric.better) for key in keys
      ]
      rate = dataclasses.asdict(win_rate(outcomes, config.bootstrap))
    rows.append(_row(one.metric, compared[one.metric.name], len(keys), rate))
  return rows


def _quantity(
  one: MetricValues, which: int, model: int, prompts: Mapping[str, int]
) -> Quantity:
  """The mean of one model over the clips that it shares with another."""
  keys = one.common_keys(model)
  values = one.values[which]
  quantity = mean_of({key: values[key] for key in keys}, prompts)
  if one.scores is None:
    return quantity
  mean = quantity.sum_pk.sum() / quantity.count_pk.sum()
  return dataclasses.replace(quantity, constant=one.scores[which] - mean)


def _totals(
  pairs: Mapping[str, tuple[Quantity, Quantity]], allow_missing: bool
) -> dict[str, tuple[Quantity, Quantity]]:
  """VBench's totals; none unless their dimensions are measured."""
  totals = {}
  for total in reversed(TOTALS):
    shares = vbench_dimensions.coefficients(total)
    measured = shares.keys() & pairs.keys()
    if measured and (allow_missing or len(measured) == len(shares)):
      base, other = (
        _total({name: pairs[name][side] for name in sorted(measured)}, shares)
        for side in (0, 1)
      )
      totals[total] = (base, other)
  return totals


def _total(
  quantities: Mapping[str, Quantity], shares: Mapping[str, float]
) -> Quantity:
  """The weighted sum of normalised scores; of those missing the score is 0."""
  dimensions = vbench_dimensions.DIMENSIONS
  slopes = {
    name: share / (dimensions[name].high - dimensions[name].low)
    for name, share in shares.items()
  }
  constant = -sum(
    slope * dimensions[name].low for name, slope in slopes.items()
  )
  constant += sum(
    slopes[name] * one.constant for name, one in quantities.items()
  )
  return Quantity(
    np.array([slopes[name] for name in quantities]),
    np.concatenate([one.sum_pk for one in quantities.values()], axis=1),
    np.concatenate([one.count_pk for one in quantities.values()], axis=1),
    constant,
  )


def _outcome(one: MetricValues, key: Key, model: int) -> int:
  base, other = one.values[0][key], one.values[model][key]
  return (other > base) - (other < base)


def _row(
  metric: Metric, found: PairedDifference, num_clips: int, rate: Tree | None
) -> Tree:
  mark = ''
  if found.is_marked and found.difference.value is not None:
    is_higher = found.difference.value > 0
    if metric.better == NEITHER:
      mark = 'higher' if is_higher else 'lower'
    else:
      mark = 'better' if is_higher == (metric.better > 0) else 'worse'
  return {
    **dataclasses.asdict(metric),
    **dataclasses.asdict(found),
    'mark': mark,
    'num_clips': num_clips,
    'win_rate': rate,
  }


def people_results(
  sets: Sequence[ClipSet],
  records: Sequence[PairRecord],
  compared: Sequence[tuple[int, int]],
  config: BootstrapConfig,
) -> list[dict[str, Tree]]:
  """Win rates of models against others, by dimension.

  Several votes on a pair become one by their majority.

  Args:
    sets: clips of each model.
    records: pairs of their clips.
    compared: indices of a base and of the model that wins or loses.
    config: of the intervals.

  Raises:
    UserError: a pair of other clips, or of two clips of one model.
  """
  owners = {
    clip.path: (index, clip)
    for index, found in enumerate(sets)
    for clip in found.clips.values()
  }
  outcomes: dict[tuple[int, int], dict[str, list[tuple[str, int]]]] = {
    pair: {} for pair in compared
  }
  for record in settle(records):
    for video, path in zip(record.videos, record.paths, strict=True):
      if path not in owners:
        raise UserError(
          f'{record.where}: {video} is no clip of the models compared; give '
          'pairs of their clips'
        )
    (first, clip), (second, other) = (owners[path] for path in record.paths)
    if first == second or clip.key[0] != other.key[0]:
      raise UserError(
        f'{record.where}: not two clips of one prompt by two models; give such '
        'pairs'
      )
    signs = {'first': 1, 'same': 0, 'second': -1}
    preferences = {'overall': record.overall, **record.dimensions}
    for pair, sign in (((second, first), 1), ((first, second), -1)):
      if pair in outcomes:
        for name, preference in preferences.items():
          rated = outcomes[pair].setdefault(name, [])
          rated.append((clip.key[0], sign * signs[preference]))
  return [
    {
      name: dataclasses.asdict(win_rate(rated, config))
      for name, rated in of_pair.items()
    }
    for of_pair in outcomes.values()
  ]
