"""What a training run changes, and what it is made from."""

import dataclasses
from typing import Any, Self

import jax
import jax.numpy as jnp
import optax

from lift_jax.models.functional import Params


@jax.tree_util.register_dataclass
@dataclasses.dataclass(frozen=True)
class TrainState:
  """Everything that a step replaces; frozen parameters stand beside it.

  Attributes:
    step: optimizer steps made, int32 scalar.
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
    """The state before the first step."""
    ema = jax.tree.map(jnp.copy, trainable) if with_ema else {}
    return cls(jnp.zeros((), jnp.int32), trainable, tx.init(trainable), ema)
