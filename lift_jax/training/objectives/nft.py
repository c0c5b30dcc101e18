"""Negative-aware fine-tuning (DiffusionNFT, arXiv 2509.16117), on velocities.

On clips that the reference sampled itself. `optimality` p in [0, 1] says how
good a clip is among those of its prompt. With velocities v of the policy, u of
the reference and v* of the truth, and beta b,

  v+ = b v + (1 - b) u       is trained towards v* of good clips,
  v- = (1 + b) u - b v       towards v* of bad ones:

  L = mean [ scale (p D(v+) + (1 - p) D(v-)) / b ]
  D(v) = |x0(v) - x0|^2 / m,  m = mean of |x0(v) - x0|, without gradient,

where x0(v) is the clean latent that a velocity predicts, and both the square
and m are means over a clip's latents. Here the sampling policy is the
reference: it is constant during a run, so one run is one epoch of the paper.

Real clips, which the policy did not sample, are left out: where v+ reaches v*,
v has gone 1 / b times as far from u, which for them is far beyond what is real.

B examples
"""

import dataclasses

import jax
import jax.numpy as jnp

from lift_jax.errors import UserError
from lift_jax.training.objectives.objective import Objective

# Least m, in x0.
_MIN_DISTANCE = 1e-5


@dataclasses.dataclass(frozen=True)
class NFT(Objective):
  """Loss of positive and negative branches; see the module.

  Attributes:
    beta: b, how far the branches lie from the reference.
    scale: factor of the loss; 5 in the paper's code.
  """

  beta: float
  scale: float

  columns = ('optimality',)
  needs_reference = True

  def __post_init__(self):
    if self.beta <= 0 or self.scale <= 0:
      raise UserError(
        'objective.nft.beta and objective.nft.scale must be above 0'
      )

  def selects(self, reward, is_real):
    return not is_real

  def values(self, predictions):
    policy, reference, target = (
      x.astype(jnp.float32)
      for x in (predictions.policy, predictions.reference, predictions.target)
    )
    positive, negative = branches(policy, reference, self.beta)
    scale_b = predictions.schedule.x0_error_scale(predictions.timesteps_b)
    return predictions.errors() | {
      'positive': _distance(positive - target, scale_b),
      'negative': _distance(negative - target, scale_b),
    }

  def loss(self, values, columns, statistics):
    p_b = columns['optimality']
    loss_b = p_b * values['positive'] + (1 - p_b) * values['negative']
    return jnp.mean(loss_b) * self.scale / self.beta

  def metrics(self, values, columns):
    return super().metrics(values, columns) | {
      'optimality': jnp.mean(columns['optimality']),
      'positive': jnp.mean(values['positive']),
      'negative': jnp.mean(values['negative']),
    }


def branches(
  policy: jax.Array, reference: jax.Array, beta: float
) -> tuple[jax.Array, jax.Array]:
  """The positive and the negative velocity."""
  return (
    beta * policy + (1 - beta) * reference,
    (1 + beta) * reference - beta * policy,
  )


def _distance(error: jax.Array, scale_b: jax.Array) -> jax.Array:
  """D of velocity errors [B, ...]: [B]."""
  axes = range(1, error.ndim)
  square_b = jnp.square(scale_b) * jnp.mean(jnp.square(error), axis=axes)
  mean_b = scale_b * jnp.mean(jnp.abs(error), axis=axes)
  mean_b = jax.lax.stop_gradient(jnp.maximum(mean_b, _MIN_DISTANCE))
  return square_b / mean_b
