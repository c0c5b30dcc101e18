"""A critic's rewards against pairs of clips that people compared.

A pair is evaluated in each dimension that people compared it in, and over all
('overall'): by the mean of the rewards of all dimensions, and by the sum of the
normalised ones if a normalization is given. The accuracies are those that
`ranking` describes, and next to them those of `benchmarks`. A clip that the
critic gave no answer about makes its pairs wrong.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import math
from typing import NamedTuple

import numpy as np

from lift_jax.data.pair_records import PairRecord, settle
from lift_jax.data.rubric import Scale
from lift_jax.data.splits import normalize_caption
from lift_jax.errors import UserError
from lift_jax.evaluation import benchmarks, ranking
from lift_jax.evaluation.bootstrap import BootstrapConfig
from lift_jax.evaluation.critic_evaluation import Tree, plain
from lift_jax.evaluation.normalization import Normalization
from lift_jax.evaluation.ranking import Compared
from lift_jax.evaluation.scores import ScoredRecord

OVERALL = 'overall'
NORMALIZED = 'overall, normalised'

_ORDER = {'first': 1, 'same': 0, 'second': -1}
_VOTES = {
  ('first', ''): benchmarks.FIRST,
  ('second', ''): benchmarks.SECOND,
  ('same', 'good'): benchmarks.BOTH_GOOD,
  ('same', 'bad'): benchmarks.BOTH_BAD,
}


class ScoredPair(NamedTuple):
  """A pair that people compared, and the critic's records of its clips."""

  pair: PairRecord
  first: ScoredRecord
  second: ScoredRecord


@dataclasses.dataclass(frozen=True)
class Column:
  """What pairs are compared in.

  Attributes:
    preference: of people, None if a pair was not compared in it.
    reward: of the critic; NaN without an answer.
  """

  preference: Callable[[PairRecord], str | None]
  reward: Callable[[ScoredRecord], float]


def columns(
  scale: Scale, normalization: Normalization | None = None
) -> dict[str, Column]:
  """What pairs are compared in, by name."""
  found = {
    OVERALL: Column(
      lambda pair: pair.overall, lambda one: mean_reward(one, scale)
    )
  }
  if normalization is not None:
    found[NORMALIZED] = Column(
      lambda pair: pair.overall,
      lambda one: normalization.overall(one, scale),
    )
  for name in scale.dimensions:
    found[name] = Column(
      lambda pair, name=name: pair.dimensions.get(name),
      lambda one, name=name: _reward(one, name, scale),
    )
  return found


def mean_reward(record: ScoredRecord, scale: Scale) -> float:
  """The mean over dimensions of the soft reward; NaN if one is missing."""
  rewards = [_reward(record, name, scale) for name in scale.dimensions]
  return math.fsum(rewards) / len(rewards)


def _reward(record: ScoredRecord, name: str, scale: Scale) -> float:
  answer = record.answers.get(name)
  return math.nan if answer is None else answer.soft_reward(scale)


def evaluate_preferences(
  records: Sequence[PairRecord],
  scored: Sequence[ScoredRecord],
  scale: Scale,
  config: BootstrapConfig,
  *,
  tuning: Sequence[PairRecord] = (),
  normalization: Normalization | None = None,
) -> Tree:
  """Evaluates a critic on pairs.

  Several votes about a pair are settled first, except for the accuracies of
  benchmarks, which count each vote.

  Args:
    records: comparisons.
    scored: the critic's answers.
    scale: dimensions, labels and rewards.
    config: of the intervals, which resample videos.
    tuning: other comparisons to fit thresholds on; pairs that are in `records`
      too are left out. Without any, the threshold of ties is fitted on
      `records`, and the four votes of GenAI-Bench are not evaluated.
    normalization: of the critic.

  Returns:
    `pairs`: how many there are. `not_scored`: those with a clip that has no
    score, which are left out. `tuning`: pairs that thresholds were fitted on.
    `dimensions`: the accuracies by dimension, and `OVERALL`, as far as people
    compared pairs in it. `votes`: the accuracy on four votes, or null.

  Raises:
    UserError: no pair has scores.
  """
  settled = settle(records)
  pairs, not_scored = scored_pairs(settled, scored)
  if not pairs:
    raise UserError(
      f'no pair has scores for both clips: {settled[0].where} is about '
      f'{settled[0].caption[:40]!r}; run lift score on the clips of the pairs, '
      'with these captions'
    )
  votes, _ = scored_pairs(records, scored)
  own = {record.key for record in records}
  tuning = [record for record in tuning if record.key not in own]
  tuning_pairs, _ = scored_pairs(settle(tuning), scored)
  dimensions = {}
  for name, column in columns(scale, normalization).items():
    compared = compare(pairs, column)
    if compared is not None:
      dimensions[name] = _measured(
        compared, compare(tuning_pairs, column), config
      ) | {'benchmark': _benchmark(votes, column)}
  return {
    'pairs': len(settled),
    'not_scored': not_scored,
    'tuning': len(tuning_pairs),
    'dimensions': dimensions,
    'votes': _four_votes(votes, scored_pairs(tuning, scored)[0], scale),
  }


def scored_pairs(
  records: Sequence[PairRecord], scored: Sequence[ScoredRecord]
) -> tuple[list[ScoredPair], list[str]]:
  """The pairs with records of both clips, and where the others are."""
  by_clip = {
    (record.video, normalize_caption(record.caption)): record
    for record in scored
  }
  pairs, not_scored = [], []
  for record in records:
    caption = normalize_caption(record.caption)
    first, second = (by_clip.get((video, caption)) for video in record.videos)
    if first is None or second is None:
      not_scored.append(record.where)
    else:
      pairs.append(ScoredPair(record, first, second))
  return pairs, not_scored


def compare(pairs: Sequence[ScoredPair], column: Column) -> Compared | None:
  """The order of people and of the critic; None if people compared no pair.

  Videos are numbered by all pairs, so that critics that scored the same pairs
  share their bootstrap.
  """
  videos: Mapping[str, int] = {
    video: number
    for number, video in enumerate(
      dict.fromkeys(video for one in pairs for video in one.pair.videos)
    )
  }
  rows = [
    (
      _ORDER[preference],
      column.reward(one.first) - column.reward(one.second),
      *(videos[video] for video in one.pair.videos),
    )
    for one in pairs
    if (preference := column.preference(one.pair)) is not None
  ]
  if not rows:
    return None
  order_p, difference_p, first_p, second_p = map(
    np.array, zip(*rows, strict=True)
  )
  return Compared(order_p, difference_p, first_p, second_p, len(videos))


def _measured(
  compared: Compared, tuning: Compared | None, config: BootstrapConfig
) -> Tree:
  threshold, fitted_here = ranking.best_threshold(compared)
  if tuning is not None:
    threshold, _ = ranking.best_threshold(tuning)
  numbers = ranking.agreement(compared, threshold, config)
  return plain(numbers) | {
    'count': len(compared.order_p),
    'without_answer': int(np.isnan(compared.difference_p).sum()),
    'threshold': threshold,
    'with_ties_fitted_here': fitted_here,
  }


def _benchmark(votes: Sequence[ScoredPair], column: Column) -> Tree:
  """The accuracies of VideoGen-RewardBench."""
  rows = [
    (_ORDER[preference], column.reward(one.first) - column.reward(one.second))
    for one in votes
    if (preference := column.preference(one.pair)) is not None
  ]
  order_p, difference_p = map(np.array, zip(*rows, strict=True))
  found = plain(benchmarks.videogen_accuracy(order_p, difference_p))
  return {
    'votes': len(rows),
    **{key: None if np.isnan(one) else one for key, one in found.items()},
  }


def _four_votes(
  votes: Sequence[ScoredPair], tuning: Sequence[ScoredPair], scale: Scale
) -> Tree | None:
  """The accuracy of GenAI-Bench; None without such votes and others to fit."""
  evaluated, fitted = _votes(votes, scale), _votes(tuning, scale)
  if evaluated is None or fitted is None:
    return None
  thresholds = benchmarks.fit_vote_thresholds(fitted)
  return {
    'votes': len(evaluated.vote_p),
    'fitted_on': len(fitted.vote_p),
    'accuracy': benchmarks.vote_accuracy(evaluated, thresholds),
    **plain(thresholds),
  }


def _votes(
  pairs: Sequence[ScoredPair], scale: Scale
) -> benchmarks.Votes | None:
  """None if there are none, or no tie says whether both are good or bad."""
  votes = [_VOTES.get((one.pair.overall, one.pair.both)) for one in pairs]
  if None in votes or not {benchmarks.BOTH_GOOD, benchmarks.BOTH_BAD} & {
    *votes
  }:
    return None
  first_p, second_p = (
    np.array([mean_reward(getattr(one, which), scale) for one in pairs])
    for which in ('first', 'second')
  )
  return benchmarks.Votes(
    np.array(votes), first_p - second_p, (first_p + second_p) / 2
  )
