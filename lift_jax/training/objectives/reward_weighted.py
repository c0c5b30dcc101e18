"""Reward-weighted likelihood (LiFT, equation 3) as a diffusion loss.

  L = E_synthetic[ r(x, z) e(x, z) ] + lambda E_real[ e(x, z) ],
  e = mean (v_theta(x_t, t, z) - v)^2

The error in velocity is the reference's error in x0 divided by 1 - a, as
x0_hat - x0 = -sqrt(1 - a) (v_theta - v). Computed directly, it loses no
precision at the last timestep (pure noise) or at the first (almost clean).

B batch
"""

import dataclasses

import jax
import jax.numpy as jnp

from lift_jax.errors import UserError
from lift_jax.training.objectives.objective import (
  Objective,
  effective_sample_share,
  group_mean,
)

# Upper ends of the reward ranges whose errors are logged separately; the ten
# scores that LiFT's labels can give cover all of them.
REWARD_EDGES = (0.1, 0.3, 0.5, 0.7, 1.0)


@dataclasses.dataclass(frozen=True)
class RewardWeighted(Objective):
  """Batch mean of weight * error; the weights are not normalised.

  Attributes:
    real_weight: lambda, the likelihood weight of real videos.
  """

  real_weight: float

  # Rewards are in [0, 1]; real videos were filmed, not generated.
  columns = ('reward', 'is_real')

  def __post_init__(self):
    if self.real_weight < 0:
      raise UserError(
        'objective.reward_weighted.real_weight must not be below 0'
      )

  def loss(self, values, columns, statistics):
    del statistics
    return jnp.mean(self._weights(columns) * values['error'])

  def metrics(self, values, columns):
    reward_b, is_real_b = columns['reward'], columns['is_real']
    metrics = super().metrics(values, columns) | {
      'reward': jnp.mean(reward_b),
      'effective_sample_share': effective_sample_share(self._weights(columns)),
    }
    groups = {'real': is_real_b}
    low = -1.0
    for high in REWARD_EDGES:
      is_inside_b = (reward_b > low) & (reward_b <= high)
      groups[f'reward_to_{high}'] = is_inside_b & ~is_real_b
      low = high
    for name, is_member_b in groups.items():
      metrics |= group_mean(f'loss/{name}', values['error'], is_member_b)
    return metrics

  def _weights(self, columns) -> jax.Array:
    """Weight of each example: its reward, or lambda for a real video."""
    reward_b = columns['reward'].astype(jnp.float32)
    return jnp.where(columns['is_real'], self.real_weight, reward_b)
