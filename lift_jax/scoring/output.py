"""Ratings as LiFT publishes them, with more beside; `lift align` takes them."""

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
  """What is written of a video.

  A record with an "error" has no score: nothing is made up for it.

  Args:
    line: of the journal.
    reward: what the labels are worth.
  """
  worth = reward.worth()
  record = {'video': line['video'], 'caption': line['caption']}
  if 'probabilities' in line:
    soft = _expected(line['probabilities'], worth)
    if 'error' not in line:
      labels = video_reward(line['labels'], worth)
      score = labels if reward.kind == 'labels' else soft
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
  probabilities: Mapping[str, Mapping[str, float]], worth: RewardMap
) -> float:
  """The mean over dimensions of the expected worth of the label."""
  total = sum(
    probabilities[dimension][label] * worth.score(label)
    for dimension in DIMENSIONS
    for label in LABELS
  )
  return total / len(DIMENSIONS)
