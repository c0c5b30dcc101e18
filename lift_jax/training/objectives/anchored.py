"""Any objective, with a penalty for leaving the reference.

L + weight * mean |v - v_reference|^2   on the same noisy latents
"""

import dataclasses

import jax.numpy as jnp

from lift_jax.training.objectives.objective import Objective, squared_distance


@dataclasses.dataclass(frozen=True)
class Anchored(Objective):
  """`objective` plus the penalty; `objective.anchor_weight` makes one.

  Attributes:
    objective: the other terms.
    weight: of the penalty, above 0.
  """

  objective: Objective
  weight: float

  needs_reference = True

  def __post_init__(self):
    # As those of the objective; fields, so that they can differ by instance.
    for name in ('unit', 'columns', 'needs_statistics', 'drift_metric'):
      object.__setattr__(self, name, getattr(self.objective, name))

  def selects(self, reward, is_real):
    return self.objective.selects(reward, is_real)

  def values(self, predictions):
    distance_b = squared_distance(predictions.policy, predictions.reference)
    return self.objective.values(predictions) | {'anchor_distance': distance_b}

  def statistics(self, values, columns):
    return self.objective.statistics(values, columns)

  def loss(self, values, columns, statistics):
    loss = self.objective.loss(values, columns, statistics)
    return loss + self.weight * jnp.mean(values['anchor_distance'])

  def metrics(self, values, columns):
    return super().metrics(values, columns) | self.objective.metrics(
      values, columns
    )
