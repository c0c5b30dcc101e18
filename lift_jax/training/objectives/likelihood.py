"""Fine-tuning by likelihood without weights: on all clips, or on the best.

B examples
"""

import dataclasses

import jax.numpy as jnp

from lift_jax.errors import UserError
from lift_jax.training.objectives.objective import Objective


@dataclasses.dataclass(frozen=True)
class SFT(Objective):
  """Mean error of all clips, whatever their rewards: plain fine-tuning."""

  def loss(self, values, columns, statistics):
    return jnp.mean(values['error'])


@dataclasses.dataclass(frozen=True)
class Rejection(SFT):
  """Mean error of the clips that are good enough, and of real clips.

  Attributes:
    min_reward: of the generated clips to train on. LiFT's reward of a clip that
      is Good in every dimension is 0.9, see `rewards.weights.RewardMap`.
  """

  min_reward: float

  def __post_init__(self):
    if not 0 <= self.min_reward <= 1:
      raise UserError(
        'objective.rejection.min_reward must be between 0 and 1, as rewards are'
      )

  def selects(self, reward, is_real):
    return is_real or reward >= self.min_reward
