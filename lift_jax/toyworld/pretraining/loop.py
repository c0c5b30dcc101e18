"""The loop in which every network of the toy world is pretrained."""

from collections.abc import Callable, Iterator, Sequence
import contextlib
import dataclasses
import itertools
import logging
import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lift_jax.models.functional import Params
from lift_jax.runtime.progress import Progress
from lift_jax.training.optimizer import OptimizerConfig, make_optimizer
from lift_jax.training.state import TrainState
from lift_jax.weights.checkpoints import CheckpointConfig, TrainCheckpoints

# Steps between two checkpoints: minutes, at most.
_CHECKPOINT_STEPS = 500


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


@dataclasses.dataclass(frozen=True)
class Pretraining:
  """What the stages of a pretraining have in common.

  Attributes:
    checkpoints: a folder in which each stage keeps its last ones.
    seed: of the order of the clips, and of noise.
    logger: takes the progress.
  """

  checkpoints: pathlib.Path
  seed: int
  logger: logging.Logger


@contextlib.contextmanager
def pretraining(
  target: pathlib.Path, seed: int, logger: logging.Logger
) -> Iterator[Pretraining]:
  """The pretraining of what `target` will hold.

  Its checkpoints lie beside the target, and go when it is there.
  """
  target = target.absolute()  # Orbax takes no other
  checkpoints = target.with_name(f'{target.name}_checkpoints')
  yield Pretraining(checkpoints, seed, logger)
  shutil.rmtree(checkpoints)


def train(
  name: str,
  params: Params,
  loss_fn: Callable[..., tuple[jax.Array, dict[str, jax.Array]]],
  read: Callable[[np.ndarray, int], tuple[np.ndarray, ...]],
  num_clips: int,
  config: StageConfig,
  run: Pretraining,
) -> Params:
  """Minimises `loss_fn(params, *read(rows, step), key)`.

  Goes on from its last checkpoint; the result is the same as without a stop.

  Args:
    name: of the stage.
    params: before it, donated.
    loss_fn: gives the loss, and numbers to show.
    read: gives a batch, by the numbers of its clips and the steps made.
    num_clips: that there are.
    config: how long and how fast.
    run: see there.

  Returns:
    The parameters after the last step.

  Raises:
    UserError: the checkpoints are of another config.
  """
  tx = make_optimizer(config.optimizer, config.steps)
  state = TrainState.create(params, tx, with_ema=False)

  def step(state, key, *batch):
    key = jax.random.fold_in(key, state.step)
    (loss, aux), grads = jax.value_and_grad(loss_fn, has_aux=True)(
      state.trainable, *batch, key
    )
    return state.after(grads, tx, 0.0), {'loss': loss, **aux}

  step = jax.jit(step, donate_argnums=0)
  key = jax.random.key(run.seed)
  with TrainCheckpoints(
    run.checkpoints / name.replace(' ', '_'),
    CheckpointConfig(_CHECKPOINT_STEPS, keep=1),
    {'seed': run.seed, 'config': dataclasses.asdict(config)},
  ) as checkpoints:
    start = checkpoints.resume_step(config.steps) or 0
    if start:
      run.logger.info('pretrain: %s: from step %d on', name, start)
      places = jax.tree.map(lambda leaf: leaf.sharding, state)
      state, _ = checkpoints.restore(start, state, places)
    order = _batches(num_clips, config, run.seed)
    with Progress(
      config.steps - start, f'{name} step', logger=run.logger
    ) as progress:
      for done, rows in enumerate(itertools.islice(order, start, None), start):
        state, metrics = step(state, key, *read(rows, done))
        progress.update(1, _note(metrics))
        if checkpoints.is_due(done + 1) or done + 1 == config.steps:
          checkpoints.save(done + 1, state, {})
    if start < config.steps:
      run.logger.info('pretrain: %s: %s', name, _note(metrics))
  return state.trainable


def _batches(
  num_clips: int, config: StageConfig, seed: int
) -> Iterator[np.ndarray]:
  """Numbers of the clips of each step: all of them in turn, each time anew."""
  rng = np.random.default_rng((seed, config.steps))
  order: list[int] = []
  for _ in range(config.steps):
    while len(order) < config.batch_size:
      order += rng.permutation(num_clips).tolist()
    yield np.array(order[: config.batch_size])
    del order[: config.batch_size]


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
