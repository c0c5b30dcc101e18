"""The interface between an objective of `lift align` and the training step.

The step samples noisy latents, runs the network on them, and applies the
gradients; the objective turns predictions into a loss. It does so in two parts:
what it needs of each example (`values`), and the loss of many of them (`loss`).
So the micro-batches of an accumulated step can be processed in sequence, while
metrics and statistics still cover the full batch.

  loss = objective.loss(values, columns, statistics)
  values     = objective.values(predictions)           per example
  statistics = objective.statistics(values, columns)   of the full batch

B examples  P pairs, 2 P = B; an example is a latent video [F, h, w, C]
"""

import abc
from collections.abc import Mapping
import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from lift_jax.diffusion.schedule import Schedule

# Number of examples that share caption, timestep and noise, by unit.
UNIT_SIZES = {'clip': 1, 'pair': 2}


@dataclasses.dataclass(frozen=True)
class Predictions:
  """Velocities on the same noisy latents, all [B, F, h, w, C].

  Attributes:
    noisy: the input latents.
    timesteps_b: int32, their timesteps.
    target: the true velocity.
    policy: prediction of the network in training.
    reference: prediction of the reference, without gradient; None unless the
      objective needs it.
    schedule: the noise schedule.
  """

  noisy: jax.Array
  timesteps_b: jax.Array
  target: jax.Array
  policy: jax.Array
  reference: jax.Array | None
  schedule: Schedule

  def errors(self) -> dict[str, jax.Array]:
    """Velocity errors, fp32 [B]: 'error', and with a reference two more.

    'reference_error' is that of the reference; 'anchor_distance' is the squared
    distance between the two predictions.
    """
    errors = {'error': squared_distance(self.policy, self.target)}
    if self.reference is not None:
      errors['reference_error'] = squared_distance(self.reference, self.target)
      errors['anchor_distance'] = squared_distance(self.policy, self.reference)
    return errors


def squared_distance(one: jax.Array, other: jax.Array) -> jax.Array:
  """Mean squared difference of each example in fp32, [B, ...] to [B]."""
  difference = one.astype(jnp.float32) - other.astype(jnp.float32)
  return jnp.mean(jnp.square(difference), axis=range(1, difference.ndim))


def group_mean(
  name: str, value_b: jax.Array, is_member_b: jax.Array
) -> dict[str, jax.Array]:
  """Metrics that `metrics.summarize` makes the mean of the members of."""
  return {
    f'sum/{name}': jnp.sum(jnp.where(is_member_b, value_b, 0)),
    f'count/{name}': jnp.sum(is_member_b),
  }


def effective_sample_share(
  weight_b: jax.Array, is_member_b: jax.Array | bool = True
) -> jax.Array:
  """(sum w)^2 / (B sum w^2) over the members, which B counts.

  It is 1 for equal weights, and 1 / B if one dominates.
  """
  is_member_b = jnp.broadcast_to(is_member_b, weight_b.shape)
  weight_b = jnp.where(is_member_b, weight_b, 0)
  total = jnp.square(jnp.sum(weight_b))
  squares = jnp.sum(is_member_b) * jnp.sum(jnp.square(weight_b))
  return jnp.where(squares > 0, total / jnp.maximum(squares, 1e-30), 0.0)


class Objective(abc.ABC):
  """The loss of `lift align`.

  A subclass is a frozen dataclass whose fields are the settings in its section
  of the config; `__post_init__` checks them.

  Attributes:
    unit: 'clip', or 'pair': then examples 2 i and 2 i + 1 of a batch share
      caption, timestep and noise, and are never separated.
    columns: what it reads of each example besides latents and caption, by the
      names in `data.pipeline.COLUMNS`.
    needs_reference: whether to run the reference too: the network before the
      first step, or without its adapters.
    needs_statistics: whether `loss` reads `statistics`. With gradient
      accumulation the forward pass then runs twice, as they must be known
      before the first gradient.
    drift_metric: of `metrics` (a `group_mean`), the change of the error of
      preferred clips against the reference, which should not stay above 0; see
      `training.drift`. '' if there is none.
  """

  unit: ClassVar[str] = 'clip'
  columns: ClassVar[tuple[str, ...]] = ()
  needs_reference: ClassVar[bool] = False
  needs_statistics: ClassVar[bool] = False
  drift_metric: ClassVar[str] = ''

  def selects(self, reward: float, is_real: bool) -> bool:
    """Whether to train on a clip."""
    del reward, is_real
    return True

  def values(self, predictions: Predictions) -> dict[str, jax.Array]:
    """The terms of the loss per example or pair: [B] or [P] each."""
    return predictions.errors()

  def statistics(
    self, values: Mapping[str, jax.Array], columns: Mapping[str, jax.Array]
  ) -> dict[str, jax.Array]:
    """Statistics of the full batch, over all devices; without gradient."""
    del values, columns
    return {}

  @abc.abstractmethod
  def loss(
    self,
    values: Mapping[str, jax.Array],
    columns: Mapping[str, jax.Array],
    statistics: Mapping[str, jax.Array],
  ) -> jax.Array:
    """A mean over the given examples: the batch or a micro-batch."""

  def metrics(
    self, values: Mapping[str, jax.Array], columns: Mapping[str, jax.Array]
  ) -> dict[str, jax.Array]:
    """Metrics of the full batch; see `training.metrics.summarize`.

    Those of a subclass extend these: the distance to the reference, if any.
    """
    del columns
    if 'anchor_distance' not in values:
      return {}
    return {'anchor_distance': jnp.mean(values['anchor_distance'])}
