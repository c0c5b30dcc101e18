"""A critic's rewards against pairs of clips that people compared.

A pair is evaluated in each dimension that people compared it in, and over all
('overall', by the mean of the rewards of all dimensions), with the accuracies
that `ranking` describes. A clip that the critic gave no answer about makes its
pairs wrong.
"""

from collections.abc import Iterator, Sequence
import math

import numpy as np

from lift_jax.data.pair_records import PairRecord, settle
from lift_jax.data.rubric import Scale
from lift_jax.data.splits import normalize_caption
from lift_jax.errors import UserError
from lift_jax.evaluation import ranking
from lift_jax.evaluation.bootstrap import BootstrapConfig
from lift_jax.evaluation.critic_evaluation import Tree, plain
from lift_jax.evaluation.ranking import Compared
from lift_jax.evaluation.scores import ScoredRecord

OVERALL = 'overall'

_ORDER = {'first': 1, 'same': 0, 'second': -1}


def evaluate_preferences(
  records: Sequence[PairRecord],
  scored: Sequence[ScoredRecord],
  scale: Scale,
  config: BootstrapConfig,
) -> Tree:
  """Evaluates a critic on pairs; several votes about one are settled first.

  Args:
    records: comparisons.
    scored: the critic's answers.
    scale: dimensions, labels and rewards.
    config: of the intervals, which resample videos.

  Returns:
    `pairs`: how many there are. `not_scored`: those with a clip that has no
    score, which are left out. `dimensions`: the accuracies by dimension, and
    `OVERALL`, as far as people compared pairs in it.

  Raises:
    UserError: no pair has scores.
  """
  settled = settle(records)
  by_clip = {
    (record.video, normalize_caption(record.caption)): record
    for record in scored
  }
  pairs, not_scored = [], []
  for record in settled:
    caption = normalize_caption(record.caption)
    clips = [by_clip.get((video, caption)) for video in record.videos]
    first, second = clips
    if first is None or second is None:
      not_scored.append(record.where)
    else:
      pairs.append((record, first, second))
  if not pairs:
    raise UserError(
      f'no pair has scores for both clips: {settled[0].where} is about '
      f'{settled[0].caption[:40]!r}; run lift score on the clips of the pairs, '
      'with these captions'
    )
  videos = {
    video: number
    for number, video in enumerate(
      dict.fromkeys(v for record, *_ in pairs for v in record.videos)
    )
  }
  dimensions = {}
  for name in (OVERALL, *scale.dimensions):
    # Of each pair: what people prefer, the difference of rewards, the videos.
    rows = [
      (order, difference, *(videos[video] for video in record.videos))
      for record, order, difference in _compared(pairs, name, scale)
    ]
    if rows:
      order_p, difference_p, first_p, second_p = map(
        np.array, zip(*rows, strict=True)
      )
      dimensions[name] = _measured(
        Compared(order_p, difference_p, first_p, second_p, len(videos)), config
      )
  return {
    'pairs': len(settled),
    'not_scored': not_scored,
    'dimensions': dimensions,
  }


def _compared(
  pairs: Sequence[tuple[PairRecord, ScoredRecord, ScoredRecord]],
  name: str,
  scale: Scale,
) -> Iterator[tuple[PairRecord, int, float]]:
  for record, first, second in pairs:
    preference = record.overall
    if name != OVERALL:
      preference = record.dimensions.get(name)
    if preference is not None:
      difference = _reward(first, name, scale) - _reward(second, name, scale)
      yield record, _ORDER[preference], difference


def _reward(record: ScoredRecord, name: str, scale: Scale) -> float:
  """NaN without an answer."""
  names = scale.dimensions if name == OVERALL else (name,)
  answers = [record.answers.get(dimension) for dimension in names]
  rewards = [math.nan if a is None else a.soft_reward(scale) for a in answers]
  return math.fsum(rewards) / len(rewards)


def _measured(compared: Compared, config: BootstrapConfig) -> Tree:
  threshold, fitted_here = ranking.best_threshold(compared)
  numbers = ranking.agreement(compared, threshold, config)
  return plain(numbers) | {
    'count': len(compared.order_p),
    'without_answer': int(np.isnan(compared.difference_p).sum()),
    # Fitted on these very pairs, as VideoGen-RewardBench does.
    'threshold': threshold,
    'with_ties_fitted_here': fitted_here,
  }
