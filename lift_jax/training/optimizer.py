"""AdamW with gradient clipping, and its learning rate schedule."""

from collections.abc import Callable
import dataclasses
import math

import jax
import jax.numpy as jnp
import optax

from lift_jax.errors import UserError
from lift_jax.weights import param_paths


@dataclasses.dataclass(frozen=True)
class OptimizerConfig:
  """Settings of AdamW; configs/align_cogvideox_2b.py has those of LiFT.

  Attributes:
    learning_rate: the peak.
    warmup_steps: linear rise from 0 to the peak.
    cycles: number of cosine decays to 0 between warm-up and the last step; each
      starts at the peak.
    beta1: decay of the first moment.
    beta2: decay of the second moment.
    eps: added to the square root of the second moment.
    weight_decay: decoupled; multiplied by the learning rate.
    clip_norm: maximum global norm of the gradient.
  """

  learning_rate: float
  warmup_steps: int
  cycles: int
  beta1: float
  beta2: float
  eps: float
  weight_decay: float
  clip_norm: float

  def __post_init__(self):
    for name in ('learning_rate', 'clip_norm', 'cycles'):
      if getattr(self, name) <= 0:
        raise UserError(f'optimizer.{name} must be above 0')
    if self.warmup_steps < 0:
      raise UserError('optimizer.warmup_steps must not be below 0')


def learning_rate_schedule(
  config: OptimizerConfig, num_steps: int
) -> Callable[[jax.typing.ArrayLike], jax.Array]:
  """Linear warm-up, then cosine with hard restarts down to 0."""
  peak, warmup = config.learning_rate, config.warmup_steps

  def rate(step):
    step = jnp.asarray(step, jnp.float32)
    progress = (step - warmup) / max(1, num_steps - warmup)
    phase = (config.cycles * progress) % 1.0
    cosine = 0.5 * (1.0 + jnp.cos(math.pi * phase))
    falling = jnp.where(progress >= 1.0, 0.0, cosine)
    return peak * jnp.where(step < warmup, step / max(1, warmup), falling)

  return rate


def make_optimizer(
  config: OptimizerConfig,
  num_steps: int,
  peak_of: Callable[[str], float] | None = None,
) -> optax.GradientTransformation:
  """The optimizer of a run of `num_steps` steps.

  Args:
    config: its settings.
    num_steps: of the run.
    peak_of: the peak learning rate of a parameter, by its name; None takes that
      of the config for all.
  """
  steps = [
    optax.clip_by_global_norm(config.clip_norm),
    optax.adamw(
      learning_rate_schedule(config, num_steps),
      b1=config.beta1,
      b2=config.beta2,
      eps=config.eps,
      weight_decay=config.weight_decay,
    ),
  ]
  if peak_of is not None:
    steps.append(_rescaled(lambda name: peak_of(name) / config.learning_rate))
  return optax.chain(*steps)


def _rescaled(
  factor_of: Callable[[str], float],
) -> optax.GradientTransformation:
  """Multiplies the update of each parameter, decay included."""
  return optax.stateless(
    lambda updates, _: param_paths.map_named(
      lambda name, update: factor_of(name) * update, updates
    )
  )
