"""All metrics of a critic: agreement, calibration, ranking.

The result is a tree of plain values, the contents of `evaluation.json`: an
`Estimate` becomes {"value", "low", "high"}, an undefined value null.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any

import numpy as np

from lift_jax import config_lib
from lift_jax.data.rubric import Scale
from lift_jax.errors import UserError
from lift_jax.evaluation import calibration, critic_metrics, ranking
from lift_jax.evaluation.bootstrap import BootstrapConfig, Estimate
from lift_jax.evaluation.comparison import Rating, Table, make_table
from lift_jax.evaluation.ranking import Pairs, Ranked

Tree = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class MetricsConfig:
  """Settings of the metrics.

  Attributes:
    num_bins: confidence bins of the ECE and the reliability diagrams.
    temperature: 'dimension' fits one for each dimension, 'all' one for all.
    max_pairs: if there are more pairs of clips, this many are sampled.
    bootstrap: of the intervals; its seed also samples the pairs.
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
  calibration_set: Sequence[Rating],
  scale: Scale,
  config: MetricsConfig,
) -> Tree:
  """Evaluates a critic on ratings.

  Args:
    evaluated: the ratings that all metrics are computed on.
    calibration_set: other ratings, to fit temperatures and tie thresholds on;
      may be empty.
    scale: dimensions, labels and rewards.
    config: settings of the metrics.

  Returns:
    `dimensions`: by name, those that are rated. `all`: the same over all
    ratings. `reward`: ranking of videos by the mean over dimensions, of the
    `soft` reward and of that of the `labels`; null if no video is rated in
    every dimension.
  """
  table = make_table(evaluated, scale)
  fit_table = None
  if calibration_set:
    fit_table = make_table(calibration_set, scale)
  names = [name for name in scale.dimensions if name in table.dimension_n]
  temperatures = _temperatures(names, table, fit_table, config)
  dimensions = {}
  for name in names:
    part = table.select(table.dimension_n == name)
    fit_ranked = None
    if fit_table is not None:
      fit_ranked = _ranked(fit_table.select(fit_table.dimension_n == name))
    dimensions[name] = _agreement(part, scale, temperatures, config) | {
      'ranking': _ranking(_ranked(part), fit_ranked, config)
    }
  overall = _agreement(table, scale, temperatures, config)
  overall['accuracy_mean_of_dimensions'] = plain(
    critic_metrics.accuracy_by_dimension(table, config.bootstrap)
  )
  return {
    'classes': list(scale.classes),
    'temperatures': temperatures,
    'dimensions': dimensions,
    'all': overall,
    'reward': {
      kind: _ranking(
        rewards,
        _rewards(calibration_set, scale, kind) if calibration_set else None,
        config,
      )
      for kind in _reward_kinds(table)
      if (rewards := _rewards(evaluated, scale, kind)) is not None
    }
    or None,
  }


def plain(value: Any) -> Any:
  """Converts dataclasses to dicts, also within lists and dicts."""
  if dataclasses.is_dataclass(value):
    return dataclasses.asdict(value)
  if isinstance(value, dict):
    return {key: plain(item) for key, item in value.items()}
  if isinstance(value, list | tuple):
    return [plain(item) for item in value]
  return value


def worst(ratings: Sequence[Rating], limit: int) -> list[Rating]:
  """The most confident of the wrong answers, at most `limit`.

  Without probabilities, those furthest from the human label come first.
  """

  wrong = []
  for rating in ratings:
    answer = rating.answer
    if answer is None or answer.label == rating.human:
      continue
    confidence = (
      answer.probabilities[answer.label] if answer.probabilities else 0.0
    )
    order = -confidence, -abs(answer.label - rating.human), rating.where
    wrong.append((order, rating))
  wrong.sort(key=lambda item: item[0])
  return [rating for _, rating in wrong[:limit]]


def _temperatures(
  names: Sequence[str],
  table: Table,
  fit_table: Table | None,
  config: MetricsConfig,
) -> dict[str, float | None]:
  """The temperature of each dimension; None where there is nothing to fit."""
  temperatures = dict.fromkeys(names)
  if fit_table is None or table.probabilities_nk is None:
    return temperatures
  fit_table = fit_table.answered()
  for name in names:
    part = fit_table
    if config.temperature == 'dimension':
      part = fit_table.select(fit_table.dimension_n == name)
    if part.probabilities_nk is not None and len(part.human_n):
      temperatures[name] = calibration.fit_temperature(
        part.probabilities_nk, part.human_n
      )
  return temperatures


def _agreement(
  table: Table,
  scale: Scale,
  temperatures: dict[str, float | None],
  config: MetricsConfig,
) -> Tree:
  """Metrics of single ratings."""
  answered = table.answered()
  counts = np.bincount(table.human_n, minlength=table.num_classes)
  return {
    'ratings': len(table.human_n),
    'videos': len(np.unique(table.video_n)),
    'errors': len(table.human_n) - len(answered.human_n),
    'human': dict(zip(scale.classes, counts.tolist(), strict=True)),
    'confusion': critic_metrics.confusion(table).tolist(),
    'majority': scale.classes[critic_metrics.majority(table)],
    'agreement': plain(critic_metrics.agreement(table, config.bootstrap)),
    'calibration': _calibration(answered, temperatures, config),
  }


def _calibration(
  table: Table, temperatures: dict[str, float | None], config: MetricsConfig
) -> Tree | None:
  """Calibration before and after scaling; None without probabilities."""
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
    after = measured(
      calibration.apply_temperature(table.probabilities_nk, temperature_n)
    )
  base = calibration.calibration(
    table, calibration.base_rates(table), config.num_bins, config.bootstrap
  )
  is_likeliest_n = table.probabilities_nk.argmax(axis=1) == table.answer_n
  return {
    'before': measured(table.probabilities_nk),
    'after': after,
    'base_rates': {name: plain(base[name]) for name in ('nll', 'brier')},
    # A critic that samples its answers does not always give the likeliest.
    'answers_not_the_likeliest': int((~is_likeliest_n).sum()),
  }


def _reward_kinds(table: Table) -> tuple[str, ...]:
  """Without probabilities the soft reward equals that of the labels."""
  return ('labels',) if table.probabilities_nk is None else ('soft', 'labels')


def _ranked(table: Table) -> Ranked:
  """Clips of one dimension, ranked by the critic and by the human labels."""
  table = table.answered()
  return Ranked(
    table.reward_n,
    table.human_n,
    table.video_n,
    table.caption_n,
    table.num_videos,
  )


def _rewards(
  ratings: Sequence[Rating], scale: Scale, kind: str
) -> Ranked | None:
  """Mean rewards of videos over the dimensions: critic's and human labels'.

  Only videos that are rated, and answered by the critic, in every dimension;
  None if there are none.
  """
  by_record = {}
  for rating in ratings:
    if rating.answer is not None:
      by_record.setdefault(id(rating.scored), []).append(rating)
  complete = [
    group for group in by_record.values() if len(group) == len(scale.dimensions)
  ]
  if not complete:
    return None

  def score(rating: Rating) -> float:
    answer = rating.answer
    assert answer is not None  # `by_record` has only answered ratings
    is_soft = kind == 'soft'
    return (answer.soft_reward if is_soft else answer.score)(scale)

  reward = [[score(rating) for rating in group] for group in complete]
  human = [
    [scale.score(scale.classes[rating.human]) for rating in group]
    for group in complete
  ]
  table = make_table([group[0] for group in complete], scale)
  return Ranked(
    np.mean(reward, axis=1),
    np.mean(human, axis=1),
    table.video_n,
    table.caption_n,
    table.num_videos,
  )


def _ranking(
  ranked: Ranked, fit_ranked: Ranked | None, config: MetricsConfig
) -> Tree:
  """Rank correlations and pairwise accuracy."""
  seed = config.bootstrap.seed
  pairs = ranking.choose_pairs(ranked, config.max_pairs, seed)
  _, fitted_here = ranking.fit_tie_threshold(ranked, pairs)
  threshold, num_fit_pairs = None, 0
  if fit_ranked is not None:
    fit_pairs = ranking.choose_pairs(fit_ranked, config.max_pairs, seed)
    threshold, _ = ranking.fit_tie_threshold(fit_ranked, fit_pairs)
    num_fit_pairs = len(fit_pairs.first_p)
  numbers = ranking.pairwise(ranked, pairs, threshold, config.bootstrap)
  if not num_fit_pairs:
    numbers['with_ties'] = Estimate(None, None, None)
  return plain(ranking.correlations(ranked, config.bootstrap)) | {
    'clips': len(ranked.reward_n),
    'pairs': _describe(pairs)
    | plain(numbers)
    | {
      'with_ties_fitted_here': fitted_here if len(pairs.first_p) else None,
      'threshold': threshold,
      'threshold_pairs': num_fit_pairs,
    },
  }


def _describe(pairs: Pairs) -> Tree:
  return {
    'count': len(pairs.first_p),
    'of': pairs.num_all,
    'same_prompt': pairs.same_prompt,
  }
