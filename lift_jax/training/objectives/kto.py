"""Kahneman-Tversky optimisation of diffusion models (arXiv 2404.04465).

Clips are desirable or not; no pairs are needed. With errors e of the policy and
r of the reference, a clip's gain is g = r - e and

  kl = max(0, mean of g over the batch)                 without gradient
  L  = mean [ weight (1 - sigmoid(s beta (g - kl))) ]

with s = 1 for desirable clips and -1 for others, and the weight of the class.
Real clips contribute `real_weight` times their error.

B examples
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


@dataclasses.dataclass(frozen=True)
class KTO(Objective):
  """Loss of desirable, undesirable and real clips; see the module.

  Attributes:
    beta: strength of the comparison with the reference.
    min_reward: of a desirable clip.
    desirable_weight: of desirable clips.
    undesirable_weight: of the others.
    real_weight: of the error of real clips.
  """

  beta: float
  min_reward: float
  desirable_weight: float
  undesirable_weight: float
  real_weight: float

  columns = ('reward', 'is_real')
  needs_reference = True
  needs_statistics = True
  drift_metric = 'desirable_change'

  def __post_init__(self):
    if self.beta <= 0:
      raise UserError('objective.kto.beta must be above 0')
    weights = (self.desirable_weight, self.undesirable_weight, self.real_weight)
    if min(weights) < 0:
      raise UserError(
        'objective.kto.desirable_weight, undesirable_weight and real_weight '
        'must not be below 0'
      )

  def selects(self, reward, is_real):
    return self.real_weight > 0 or not is_real

  def statistics(self, values, columns):
    is_real_b = columns['is_real']
    total = jnp.sum(jnp.where(is_real_b, 0, _gain(values)))
    mean = total / jnp.maximum(jnp.sum(~is_real_b), 1)
    return {'kl': jnp.maximum(mean, 0)}

  def loss(self, values, columns, statistics):
    loss_b = self._loss(_gain(values), columns, statistics)
    real_b = self.real_weight * values['error']
    return jnp.mean(jnp.where(columns['is_real'], real_b, loss_b))

  def metrics(self, values, columns):
    is_desirable_b, is_real_b = self._is_desirable(columns), columns['is_real']
    groups = {
      'desirable': is_desirable_b & ~is_real_b,
      'undesirable': ~is_desirable_b & ~is_real_b,
    }
    statistics, gain_b = self.statistics(values, columns), _gain(values)
    # How strongly each generated clip pulls.
    slope_b = jax.grad(
      lambda gain_b: jnp.sum(self._loss(gain_b, columns, statistics))
    )(gain_b)
    metrics = super().metrics(values, columns) | {
      **statistics,
      'effective_sample_share': effective_sample_share(
        jnp.abs(slope_b), ~is_real_b
      ),
    }
    change_b = -gain_b
    for name, is_member_b in groups.items():
      metrics |= group_mean(f'{name}_change', change_b, is_member_b)
    return metrics

  def _loss(self, gain_b, columns, statistics) -> jax.Array:
    """Loss of generated clips [B]."""
    is_desirable_b = self._is_desirable(columns)
    sign_b = jnp.where(is_desirable_b, 1.0, -1.0)
    weight_b = jnp.where(
      is_desirable_b, self.desirable_weight, self.undesirable_weight
    )
    margin_b = self.beta * (gain_b - statistics['kl'])
    return weight_b * jax.nn.sigmoid(-sign_b * margin_b)

  def _is_desirable(self, columns) -> jax.Array:
    return columns['reward'] >= self.min_reward


def _gain(values) -> jax.Array:
  return values['reference_error'] - values['error']
