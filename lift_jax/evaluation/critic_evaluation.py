"""Everything that is measured about a critic, in one go.

The result is a tree of plain values, which is what `evaluation.json` holds: an
`Estimate` becomes {"value", "low", "high"}, and what is not defined null.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from lift_jax import config_lib
from lift_jax.data.hra import DIMENSIONS
from lift_jax.errors import UserError
from lift_jax.evaluation import calibration, critic_metrics, ranking
from lift_jax.evaluation.bootstrap import BootstrapConfig, Estimate
from lift_jax.evaluation.comparison import Rating, Table, make_table
from lift_jax.evaluation.ranking import Pairs, Ranked
from lift_jax.evaluation.scores import CLASSES, Answer
from lift_jax.rewards.weights import RewardMap

Tree = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class MetricsConfig:
  """How to measure.

  Attributes:
    num_bins: of confidence, for the ECE and the reliability diagrams.
    temperature: 'dimension' fits one for each dimension, 'all' one for all.
    max_pairs: of more pairs of clips, so many are drawn.
    bootstrap: of the intervals; its seed also draws the pairs.
  """

  num_bins: int
  temperature: str
  max_pairs: int
  bootstrap: BootstrapConfig

  def __post_init__(self):
    config_lib.check_choice(
      'metrics.temperature', self.temperature, ('dimension', 'all')
    )
    for name, value in (
      ('num_bins', self.num_bins),
      ('max_pairs', self.max_pairs),
      ('bootstrap.draws', self.bootstrap.draws),
    ):
      if value < 1:
        raise UserError(f'metrics.{name} is {value}; it must be 1 or more')
    if not 0 < self.bootstrap.coverage < 1:
      raise UserError(
        f'metrics.bootstrap.coverage is {self.bootstrap.coverage:g}; it must '
        'be between 0 and 1'
      )


def evaluate(
  evaluated: Sequence[Rating],
  aside: Sequence[Rating],
  reward_map: RewardMap,
  config: MetricsConfig,
) -> Tree:
  """Measures a critic on some ratings.

  Args:
    evaluated: what every number is about.
    aside: other ratings, for temperatures and thresholds of ties; may be empty.
    reward_map: from labels to rewards.
    config: how to measure.

  Returns:
    `dimensions`: by name, those that are rated. `all`: the same over all
    ratings. `reward`: how whole videos are ranked, by the `soft` reward and by
    that of the `labels`, or null if none is rated in every dimension.
  """
  table = make_table(evaluated, reward_map)
  table_aside = make_table(aside, reward_map) if aside else None
  names = [name for name in DIMENSIONS if name in table.dimension_n]
  temperatures = _temperatures(names, table, table_aside, config)
  dimensions = {}
  for name in names:
    part = table.select(table.dimension_n == name)
    part_aside = table_aside and table_aside.select(
      table_aside.dimension_n == name
    )
    dimensions[name] = _agreement(part, temperatures, config) | {
      'ranking': _ranking(
        _ranked(part), part_aside and _ranked(part_aside), config
      )
    }
  overall = _agreement(table, temperatures, config)
  overall['accuracy_mean_of_dimensions'] = plain(
    critic_metrics.accuracy_by_dimension(table, config.bootstrap)
  )
  return {
    'classes': list(CLASSES),
    'temperatures': temperatures,
    'dimensions': dimensions,
    'all': overall,
    'reward': {
      kind: _ranking(
        rewards,
        _rewards(aside, reward_map, kind) if aside else None,
        config,
      )
      for kind in _reward_kinds(table)
      if (rewards := _rewards(evaluated, reward_map, kind)) is not None
    }
    or None,
  }


def plain(value: Any) -> Any:
  """Dataclasses as dicts, anywhere within lists and dicts."""
  if dataclasses.is_dataclass(value):
    return dataclasses.asdict(value)
  if isinstance(value, dict):
    return {key: plain(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [plain(item) for item in value]
  return value


def worst(ratings: Sequence[Rating], limit: int) -> list[Rating]:
  """The surest of the answers that people disagree with.

  Where an answer has no probabilities, the one further off comes first.
  """

  def key(rating: Rating) -> tuple:
    answer = rating.answer
    surest = answer.probabilities[answer.label] if answer.probabilities else 0.0
    return -surest, -abs(answer.label - rating.human), rating.where

  wrong = [
    rating
    for rating in ratings
    if rating.answer is not None and rating.answer.label != rating.human
  ]
  return sorted(wrong, key=key)[:limit]


def _temperatures(
  names: Sequence[str],
  table: Table,
  aside: Table | None,
  config: MetricsConfig,
) -> dict[str, float | None]:
  """The temperature of each dimension; None where there is nothing to fit."""
  temperatures = dict.fromkeys(names)
  if (
    aside is None
    or table.probabilities_nk is None
    or aside.probabilities_nk is None
  ):
    return temperatures
  aside = aside.answered()
  for name in names:
    part = aside
    if config.temperature == 'dimension':
      part = aside.select(aside.dimension_n == name)
    if len(part.human_n):
      temperatures[name] = calibration.fit_temperature(
        part.probabilities_nk, part.human_n
      )
  return temperatures


def _agreement(
  table: Table, temperatures: dict[str, float | None], config: MetricsConfig
) -> Tree:
  """Everything about single ratings."""
  answered = table.answered()
  counts = np.bincount(table.human_n, minlength=len(CLASSES))
  return {
    'ratings': len(table.human_n),
    'videos': len(np.unique(table.video_n)),
    'errors': len(table.human_n) - len(answered.human_n),
    'human': dict(zip(CLASSES, counts.tolist(), strict=True)),
    'confusion': critic_metrics.confusion(table).tolist(),
    'majority': CLASSES[critic_metrics.majority(table)],
    'agreement': plain(critic_metrics.agreement(table, config.bootstrap)),
    'calibration': _calibration(answered, temperatures, config),
  }


def _calibration(
  table: Table, temperatures: dict[str, float | None], config: MetricsConfig
) -> Tree | None:
  """Calibration before and after scaling; null without probabilities."""
  if table.probabilities_nk is None or not len(table.human_n):
    return None

  def measured(probabilities_nk: np.ndarray) -> Tree:
    numbers = calibration.calibration(
      table, probabilities_nk, config.num_bins, config.bootstrap
    )
    bins = calibration.reliability(
      probabilities_nk, table.human_n, config.num_bins
    )
    return plain(numbers) | {'bins': plain(bins)}

  own = {name: temperatures[name] for name in np.unique(table.dimension_n)}
  after = None
  if None not in own.values():
    temperature_n = np.array([own[name] for name in table.dimension_n])
    after = measured(calibration.temper(table.probabilities_nk, temperature_n))
  base = calibration.calibration(
    table, calibration.base_rates(table), config.num_bins, config.bootstrap
  )
  is_surest_n = table.probabilities_nk.argmax(axis=1) == table.answer_n
  return {
    'before': measured(table.probabilities_nk),
    'after': after,
    'base_rates': {name: plain(base[name]) for name in ('nll', 'brier')},
    # A critic that samples its answers does not always give the likeliest.
    'answers_not_the_likeliest': int((~is_surest_n).sum()),
  }


def _reward_kinds(table: Table) -> tuple[str, ...]:
  """Without probabilities the soft reward is that of the labels."""
  return ('labels',) if table.probabilities_nk is None else ('soft', 'labels')


def _ranked(table: Table) -> Ranked:
  """Clips of one dimension, ranked by the critic and by people's labels."""
  table = table.answered()
  return Ranked(
    table.reward_n,
    table.human_n,
    table.video_n,
    table.caption_n,
    table.num_videos,
  )


def _rewards(
  ratings: Sequence[Rating], reward_map: RewardMap, kind: str
) -> Ranked | None:
  """Whole videos: the critic's reward, and that of people's labels.

  Only those that people rated in every dimension and the critic answered to;
  None if there are none.
  """
  by_record = {}
  for rating in ratings:
    if rating.answer is not None:
      by_record.setdefault(id(rating.scored), []).append(rating)
  whole = [
    group for group in by_record.values() if len(group) == len(DIMENSIONS)
  ]
  if not whole:
    return None

  def score(answer: Answer) -> float:
    is_soft = kind == 'soft'
    return (answer.soft_reward if is_soft else answer.score)(reward_map)

  reward = [[score(rating.answer) for rating in group] for group in whole]
  human = [
    [reward_map.score(CLASSES[rating.human]) for rating in group]
    for group in whole
  ]
  table = make_table([group[0] for group in whole], reward_map)
  return Ranked(
    np.mean(reward, axis=1),
    np.mean(human, axis=1),
    table.video_n,
    table.caption_n,
    table.num_videos,
  )


def _ranking(
  ranked: Ranked, aside: Ranked | None, config: MetricsConfig
) -> Tree:
  """Everything about the order of clips."""
  seed = config.bootstrap.seed
  pairs = ranking.choose_pairs(ranked, config.max_pairs, seed)
  _, fitted_here = ranking.fit_tie_threshold(ranked, pairs)
  threshold, num_aside = None, 0
  if aside is not None:
    pairs_aside = ranking.choose_pairs(aside, config.max_pairs, seed)
    threshold, _ = ranking.fit_tie_threshold(aside, pairs_aside)
    num_aside = len(pairs_aside.first_p)
  numbers = ranking.pairwise(ranked, pairs, threshold, config.bootstrap)
  if not num_aside:
    numbers['with_ties'] = Estimate(None, None, None)
  return plain(ranking.correlations(ranked, config.bootstrap)) | {
    'clips': len(ranked.reward_n),
    'pairs': _describe(pairs)
    | plain(numbers)
    | {
      'with_ties_fitted_here': fitted_here if len(pairs.first_p) else None,
      'threshold': threshold,
      'threshold_pairs': num_aside,
    },
  }


def _describe(pairs: Pairs) -> Tree:
  return {
    'count': len(pairs.first_p),
    'of': pairs.num_all,
    'same_prompt': pairs.same_prompt,
  }
