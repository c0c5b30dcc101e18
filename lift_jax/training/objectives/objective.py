"""What an objective of `lift align` must offer to the training step.

The step draws noisy latents, runs the network on them, and keeps the gradients;
the objective turns the predictions into one loss. It does so in two parts: what
it needs of each example (`values`), and the loss of many of them (`loss`). So
micro-batches of an accumulated step can be worked through one after the other,
and metrics and statistics still see the whole batch.

  loss = objective.loss(values, columns, statistics)
  values     = objective.values(predictions)           by example
  statistics = objective.statistics(values, columns)   of the whole batch

B examples  P pairs, 2 P = B; an example is a latent video [F, h, w, C]
"""

import abc
from collections.abc import Mapping
import dataclasses
from typing import ClassVar

import jax
import jax.numpy as jnp

from lift_jax.diffusion.schedule import Schedule

# Examples that share caption, timestep and noise, by the name of the unit.
UNIT_SIZES = {'clip': 1, 'pair': 2}


@dataclasses.dataclass(frozen=True)
class Predictions:
  """Velocities on the same noisy latents, all [B, F, h, w, C].

  Attributes:
    noisy: the latents that the networks saw.
    timesteps_b: int32, their timesteps.
    target: the true velocity.
    policy: that of the network in training.
    reference: that of the network before the first step, without gradient;
      None unless the objective needs it.
    schedule: of the noise.
  """

  noisy: jax.Array
  timesteps_b: jax.Array
  target: jax.Array
  policy: jax.Array
  reference: jax.Array | None
  schedule: Schedule

  def errors(self) -> dict[str, jax.Array]:
    """Velocity errors, fp32 [B]: 'error', and 'reference_error' if known."""
    errors = {'error': squared_distance(self.policy, self.target)}
    if self.reference is not None:
      errors['reference_error'] = squared_distance(self.reference, self.target)
    return errors


def squared_distance(one: jax.Array, other: jax.Array) -> jax.Array:
  """Mean squared difference of each example in fp32, [B, ...] to [B]."""
  difference = one.astype(jnp.float32) - other.astype(jnp.float32)
  return jnp.mean(jnp.square(difference), axis=range(1, difference.ndim))


class Objective(abc.ABC):
  """The loss of `lift align`.

  A subclass is a frozen dataclass whose fields are the settings of its section
  of the config; `__post_init__` checks them.

  Attributes:
    unit: 'clip', or 'pair': then examples 2 i and 2 i + 1 of a batch share
      caption, timestep and noise, and are never parted.
    columns: what it reads of each example beside its latents and caption, by
      the names that the data gives them.
    needs_reference: whether the network before the first step runs too.
    needs_statistics: whether `loss` reads `statistics`. An accumulated step
      then runs the networks once more, to know them before the first gradient.
  """

  unit: ClassVar[str] = 'clip'
  columns: ClassVar[tuple[str, ...]] = ()
  needs_reference: ClassVar[bool] = False
  needs_statistics: ClassVar[bool] = False

  def values(self, predictions: Predictions) -> dict[str, jax.Array]:
    """What the loss is made of, by example or by pair: [B] or [P] each."""
    return predictions.errors()

  def statistics(
    self, values: Mapping[str, jax.Array], columns: Mapping[str, jax.Array]
  ) -> dict[str, jax.Array]:
    """Of the whole batch, over all devices; no gradient flows through them."""
    del values, columns
    return {}

  @abc.abstractmethod
  def loss(
    self,
    values: Mapping[str, jax.Array],
    columns: Mapping[str, jax.Array],
    statistics: Mapping[str, jax.Array],
  ) -> jax.Array:
    """A mean over the examples at hand, which may be a part of the batch."""

  def metrics(
    self, values: Mapping[str, jax.Array], columns: Mapping[str, jax.Array]
  ) -> dict[str, jax.Array]:
    """Of the whole batch, for the log; see `training.metrics.summarize`."""
    del values, columns
    return {}
