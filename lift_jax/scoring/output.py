"""Scored records: LiFT's published format with extra keys, for `lift align`."""

from collections.abc import Mapping
from typing import Any

from lift_jax.data.rubric import LABELS, Scale
from lift_jax.rewards.uncertainty import uncertainty
from lift_jax.rewards.weights import video_reward
from lift_jax.scoring.config import RewardConfig

# The published key of the answer in each dimension (critic_output JSON).
PUBLISHED_KEYS = {
  'semantic': 'semantic consistency',
  'fidelity': 'fidelity issues',
  'motion': 'motion issues',
}


def answer_key(dimension: str) -> str:
  """The key of the answer in a dimension."""
  return PUBLISHED_KEYS.get(dimension, f'{dimension} answer')


def _published_order(dimension: str) -> int:
  """Sorts as published, others after that."""
  keys = list(PUBLISHED_KEYS)
  return keys.index(dimension) if dimension in keys else len(keys)


def scored_record(
  line: Mapping[str, Any], reward: RewardConfig, scale: Scale | None = None
) -> dict[str, Any]:
  """The record of a video; one with an "error" has no score.

  Args:
    line: of the journal.
    reward: how to make a score.
    scale: dimensions, and the score of each label; None for LiFT's with the
      scores of `reward`.
  """
  scale = scale or reward.reward_map().scale()
  record = {'video': line['video'], 'caption': line['caption']}
  if 'probabilities' in line:
    soft = _expected(line['probabilities'], scale)
    if 'error' not in line:
      hard = video_reward(line['labels'], scale)
      score = hard if reward.kind == 'labels' else soft
      if reward.decimals is not None:
        score = round(score, reward.decimals)
      record['score'] = score
      for dimension in sorted(scale.dimensions, key=_published_order):
        record[answer_key(dimension)] = line['answers'][dimension]
      record |= label_fields(line['labels'], scale)
    record['probabilities'] = line['probabilities']
    record['soft_reward'] = soft
    record['uncertainty'] = uncertainty([line['probabilities']], scale)
    record['label_mass'] = line['label_mass']
    record['template'] = line['made_by']['template']
  record['critic'] = line['critic']
  record['flags'] = line.get('flags', [])
  if 'error' in line:
    record['error'] = line['error']
  return record


def label_fields(labels: Mapping[str, str], scale: Scale) -> dict[str, Any]:
  """The fields of a record for its labels by dimension; see `data.records`."""
  if scale.labels == LABELS:
    return {'labels': dict(labels)}
  ranks = {name: scale.classes.index(label) for name, label in labels.items()}
  return {'labels': dict(labels), 'ranks': ranks}


def _expected(
  probabilities: Mapping[str, Mapping[str, float]], scale: Scale
) -> float:
  """The mean over dimensions of the expected score of the label."""
  total = sum(
    probabilities[dimension][label] * scale.score(label)
    for dimension in scale.dimensions
    for label in scale.labels
  )
  return total / len(scale.dimensions)
