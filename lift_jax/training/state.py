"""The state of a training run and its update."""

import dataclasses
from typing import Any, Self

import jax
import jax.numpy as jnp
import optax

from lift_jax.models.functional import Params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """Everything that a step updates; frozen parameters are kept elsewhere.

  Attributes:
    step: number of optimizer steps so far, int32 scalar.
    trainable: nested dict of fp32 parameters.
    opt_state: Optax state of `trainable`.
    ema: moving average of `trainable`, or {} where none is kept.
  """

  step: jax.Array
  trainable: Params
  opt_state: Any
  ema: Params

  @classmethod
  def create(
    cls, trainable: Params, tx: optax.GradientTransformation, with_ema: bool
  ) -> Self:
    """The initial state."""
    ema = jax.tree.map(jnp.copy, trainable) if with_ema else {}
    return cls(jnp.zeros((), jnp.int32), trainable, tx.init(trainable), ema)

  def after(
    self,
    grads: Params,
    tx: optax.GradientTransformation,
    ema_decay: float,
  ) -> Self:
    """The state after an optimizer step with these gradients."""
    updates, opt_state = tx.update(grads, self.opt_state, self.trainable)
    # Optax types every tree alike.
    trainable: Any = optax.apply_updates(self.trainable, updates)
    ema = jax.tree.map(
      lambda old, new: old + (1 - ema_decay) * (new - old),
      self.ema,
      trainable if self.ema else {},
    )
    return type(self)(self.step + 1, trainable, opt_state, ema)
