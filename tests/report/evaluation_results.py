"""What the evaluation of a critic comes to, for its page."""

import dataclasses

from lift_jax.evaluation import critic_evaluation
from lift_jax.rewards.weights import RewardMap
from tests.evaluation.ratings import config


def result_of(evaluated, aside=(), **more):
  metrics = config()
  return {
    'synthetic': False,
    'critic': 'c',
    'settings': {'metrics': dataclasses.asdict(metrics)},
    'counts': {'ratings_aside': len(aside)},
    **critic_evaluation.evaluate(evaluated, aside, RewardMap(), metrics),
    'left_out': {
      'rated_not_scored': [], 'scored_not_rated': [], 'errors': [],
      'skipped': [],
    },
  } | more  # fmt: skip
