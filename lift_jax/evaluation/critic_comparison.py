"""Several critics on the same ratings and pairs of clips.

All of them are evaluated on what every one has scored, and see the same
resamples of videos, so that the interval of a difference is a paired one.

D resamples, V videos, N ratings.
"""

from collections.abc import Mapping, Sequence
import functools

import numpy as np

from lift_jax.data.hra import HRARecord
from lift_jax.data.pair_records import PairRecord, settle
from lift_jax.data.rubric import Scale
from lift_jax.evaluation import bootstrap, preferences, ranking
from lift_jax.evaluation.bootstrap import BootstrapConfig, Metrics, ratio
from lift_jax.evaluation.comparison import Rating, Table, join, make_table
from lift_jax.evaluation.critic_evaluation import Tree, plain
from lift_jax.evaluation.normalization import Normalization
from lift_jax.evaluation.scores import ScoredRecord

Critics = Mapping[str, Sequence[ScoredRecord]]


def compare_critics(
  critics: Critics,
  human: Sequence[HRARecord],
  pairs: Sequence[PairRecord],
  scale: Scale,
  config: BootstrapConfig,
  normalizations: Mapping[str, Normalization] | None = None,
) -> Tree:
  """Compares the first critic with each other one.

  Args:
    critics: records by name, of two or more.
    human: ratings of people; may be empty.
    pairs: pairs that people compared, which are settled first; may be empty.
    scale: dimensions, labels and rewards.
    config: of the intervals.
    normalizations: of critics by name; others have no normalised metrics.

  Returns:
    `critics`: their names. `ratings` and `pairs`: `count`, and `metrics`: for
    each critic by name its value with an interval, and `minus_first`, the
    difference from the first critic. A count of 0 has no metrics.
  """
  ratings = _common_ratings(critics, human, scale)
  scored = _common_pairs(critics, settle(pairs))
  num_ratings = len(next(iter(ratings.values())))
  num_pairs = len(next(iter(scored.values())))
  result: Tree = {
    'critics': list(critics),
    'ratings': {'count': num_ratings, 'metrics': {}},
    'pairs': {'count': num_pairs, 'metrics': {}},
  }
  if num_ratings:
    tables = {name: make_table(own, scale) for name, own in ratings.items()}
    result['ratings']['metrics'] = _paired(
      {name: _rating_metrics(table) for name, table in tables.items()},
      next(iter(tables.values())).num_videos,
      num_ratings,
      config,
    )
  if num_pairs:
    result['pairs']['metrics'] = _paired(
      {
        name: _pair_metrics(own, scale, (normalizations or {}).get(name))
        for name, own in scored.items()
      },
      len({v for one in next(iter(scored.values())) for v in one.pair.videos}),
      num_pairs,
      config,
    )
  return result


def _common_ratings(
  critics: Critics, human: Sequence[HRARecord], scale: Scale
) -> dict[str, list[Rating]]:
  """The ratings of each critic, in the same order."""
  if not human:
    return {name: [] for name in critics}
  by_critic = {
    name: {
      (one.video, one.dimension, one.where): one
      for one in join(human, records, scale).ratings
    }
    for name, records in critics.items()
  }
  first, *others = by_critic.values()
  keys = [key for key in first if all(key in other for other in others)]
  return {name: [own[key] for key in keys] for name, own in by_critic.items()}


def _common_pairs(
  critics: Critics, pairs: Sequence[PairRecord]
) -> dict[str, list[preferences.ScoredPair]]:
  by_critic = {
    name: {
      one.pair.where: one for one in preferences.scored_pairs(pairs, records)[0]
    }
    for name, records in critics.items()
  }
  first, *others = by_critic.values()
  keys = [key for key in first if all(key in other for other in others)]
  return {name: [own[key] for key in keys] for name, own in by_critic.items()}


def _rating_metrics(table: Table) -> Metrics:
  """Accuracies, and the rank correlation of rewards and labels."""
  names = list(dict.fromkeys(table.dimension_n.tolist()))
  parts = [table.select(table.dimension_n == name) for name in names]
  sums = [
    bootstrap.per_video(
      np.column_stack(
        [np.ones(len(part.human_n)), part.answer_n == part.human_n]
      ),
      part.video_n,
      part.num_videos,
    )
    for part in parts
  ]

  def metrics(weights_dv: np.ndarray) -> dict[str, np.ndarray]:
    accuracies = []
    for sums_v2 in sums:
      count_d, right_d = (weights_dv @ sums_v2).T
      accuracies.append(ratio(right_d, count_d))
    correlations = []
    for part in parts:
      answered = part.answered()
      correlations.append(
        ranking.spearman(
          answered.reward_n,
          answered.human_n,
          weights_dv[:, answered.video_n],
        )
      )
    by_name = dict(zip(names, accuracies, strict=True))
    return {
      'accuracy': np.mean(accuracies, axis=0),
      **{f'accuracy, {name}': found for name, found in by_name.items()},
      'Spearman': np.mean(correlations, axis=0),
    }

  return metrics


def _pair_metrics(
  pairs: Sequence[preferences.ScoredPair],
  scale: Scale,
  normalization: Normalization | None,
) -> Metrics:
  """Accuracies of pairs, with the tie threshold that is best on them."""
  parts = {}
  for name, column in preferences.columns(scale, normalization).items():
    compared = preferences.compare(pairs, column)
    if compared is not None:
      threshold, _ = ranking.best_threshold(compared)
      parts[name] = ranking.agreement_metrics(compared, threshold)

  def metrics(weights_dv: np.ndarray) -> dict[str, np.ndarray]:
    values = {}
    for name, part in parts.items():
      found = part(weights_dv)
      values[f'no ties, {name}'] = found['without_ties']
      values[f'with ties, {name}'] = found['with_ties']
    return values

  return metrics


def _paired(
  by_critic: Mapping[str, Metrics],
  num_videos: int,
  width: int,
  config: BootstrapConfig,
) -> Tree:
  """Estimates of each critic by metric, and of its difference to the first."""
  first, *others = by_critic

  def minus_first(name: str, weights_dv: np.ndarray) -> dict[str, np.ndarray]:
    base, found = by_critic[first](weights_dv), by_critic[name](weights_dv)
    return {key: found[key] - base[key] for key in found if key in base}

  # The same seed makes the same resamples of every call.
  measure = functools.partial(
    bootstrap.estimates, num_videos=num_videos, width=width, config=config
  )
  values = {name: measure(metrics) for name, metrics in by_critic.items()}
  differences = {
    name: measure(functools.partial(minus_first, name)) for name in others
  }
  keys = dict.fromkeys(key for found in values.values() for key in found)
  return {
    key: {
      name: plain(values[name][key])
      | {'minus_first': plain(differences.get(name, {}).get(key))}
      for name in by_critic
      if key in values[name]
    }
    for key in keys
  }
