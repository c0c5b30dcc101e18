"""Scored records: LiFT's published format with extra keys, for `lift align`."""

from collections.abc import Mapping
from typing import Any

from lift_jax.data.hra import DIMENSIONS, LABELS
from lift_jax.rewards.weights import RewardMap, video_reward
from lift_jax.scoring.config import RewardConfig

# The published key of the answer in each dimension (critic_output JSON).
PUBLISHED_KEYS = {
  'semantic': 'semantic consistency',
  'fidelity': 'fidelity issues',
  'motion': 'motion issues',
}


def scored_record(
  line: Mapping[str, Any], reward: RewardConfig
) -> dict[str, Any]:
  """The record of a video; one with an "error" has no score.

  Args:
    line: of the journal.
    reward: the score of each label.
  """
  reward_map = reward.reward_map()
  record = {'video': line['video'], 'caption': line['caption']}
  if 'probabilities' in line:
    soft = _expected(line['probabilities'], reward_map)
    if 'error' not in line:
      hard = video_reward(line['labels'], reward_map)
      score = hard if reward.kind == 'labels' else soft
      if reward.decimals is not None:
        score = round(score, reward.decimals)
      record['score'] = score
      for dimension, key in PUBLISHED_KEYS.items():
        record[key] = line['answers'][dimension]
      record['labels'] = line['labels']
    record['probabilities'] = line['probabilities']
    record['soft_reward'] = soft
    record['label_mass'] = line['label_mass']
  record['critic'] = line['critic']
  record['flags'] = line.get('flags', [])
  if 'error' in line:
    record['error'] = line['error']
  return record


def _expected(
  probabilities: Mapping[str, Mapping[str, float]], reward_map: RewardMap
) -> float:
  """The mean over dimensions of the expected score of the label."""
  total = sum(
    probabilities[dimension][label] * reward_map.score(label)
    for dimension in DIMENSIONS
    for label in LABELS
  )
  return total / len(DIMENSIONS)
