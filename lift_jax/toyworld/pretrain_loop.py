"""The loop in which every network of the toy world is pretrained."""

from collections.abc import Callable, Sequence
import dataclasses
import logging
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lift_jax.models.functional import Params
from lift_jax.progress import Progress
from lift_jax.training.optimizer import OptimizerConfig, make_optimizer
from lift_jax.training.state import TrainState


@dataclasses.dataclass(frozen=True)
class StageConfig:
  """How long and how fast one of the networks is trained.

  Attributes:
    steps: optimizer steps.
    batch_size: clips in each.
    optimizer: see there.
  """

  steps: int
  batch_size: int
  optimizer: OptimizerConfig


def train(
  name: str,
  params: Params,
  loss_fn: Callable[..., tuple[jax.Array, dict[str, jax.Array]]],
  read: Callable[[np.ndarray], tuple[np.ndarray, ...]],
  num_clips: int,
  config: StageConfig,
  seed: int,
  logger: logging.Logger,
) -> Params:
  """Minimises `loss_fn(params, *read(rows), key)`; returns the parameters."""
  tx = make_optimizer(config.optimizer, config.steps)
  state = TrainState.create(params, tx, with_ema=False)

  def step(state, key, *batch):
    key = jax.random.fold_in(key, state.step)
    (loss, aux), grads = jax.value_and_grad(loss_fn, has_aux=True)(
      state.trainable, *batch, key
    )
    return state.after(grads, tx, 0.0), {'loss': loss, **aux}

  step = jax.jit(step, donate_argnums=0)
  rng = np.random.default_rng((seed, config.steps))
  key = jax.random.key(seed)
  order: list[int] = []
  with Progress(config.steps, f'{name} step', logger=logger) as progress:
    for _ in range(config.steps):
      while len(order) < config.batch_size:
        order += rng.permutation(num_clips).tolist()
      rows = np.array(order[: config.batch_size])
      del order[: config.batch_size]
      state, metrics = step(state, key, *read(rows))
      progress.update(1, _note(metrics))
  logger.info('pretrain: %s: %s', name, _note(metrics))
  return state.trainable


def classification(
  scores: Sequence[jax.Array], classes_ba: jax.Array
) -> tuple[jax.Array, list[jax.Array]]:
  """Mean loss of A classifications, and the share that is right in each.

  Args:
    scores: of each one, [B, N, classes]: N guesses about every row.
    classes_ba: int32 [B, A], the truth.
  """
  losses, rights = [], []
  for number, scores_bnk in enumerate(scores):
    class_bn = jnp.broadcast_to(
      classes_ba[:, number, None], scores_bnk.shape[:2]
    )
    losses.append(
      optax.softmax_cross_entropy_with_integer_labels(scores_bnk, class_bn)
    )
    rights.append(jnp.mean(jnp.argmax(scores_bnk, axis=-1) == class_bn))
  return sum(map(jnp.mean, losses)) / len(losses), rights


def _note(metrics: dict[str, Any]) -> str:
  return ', '.join(
    f'{name} {float(value):.4g}' for name, value in metrics.items()
  )
