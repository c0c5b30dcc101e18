"""Training loop for the pretraining stages of the toy world's networks."""

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
  """Settings of one training stage.

  Attributes:
    steps: optimizer steps.
    batch_size: examples per step.
    optimizer: optimizer settings.
  """

  steps: int
  batch_size: int
  optimizer: OptimizerConfig


@dataclasses.dataclass(frozen=True)
class Pretraining:
  """Settings shared by all stages of a pretraining.

  Attributes:
    checkpoints: folder for the checkpoints of each stage.
    seed: of the order of examples, and of noise.
    logger: for progress.
  """

  checkpoints: pathlib.Path
  seed: int
  logger: logging.Logger


@contextlib.contextmanager
def pretraining(
  target: pathlib.Path, seed: int, logger: logging.Logger
) -> Iterator[Pretraining]:
  """A pretraining whose result is `target`.

  Its checkpoints are next to the target, and deleted at the end.
  """
  target = target.absolute()  # required by Orbax
  checkpoints = target.with_name(f'{target.name}_checkpoints')
  yield Pretraining(checkpoints, seed, logger)
  shutil.rmtree(checkpoints)


def train(
  name: str,
  params: Params,
  loss_fn: Callable[..., tuple[jax.Array, dict[str, jax.Array]]],
  read: Callable[[np.ndarray, int], tuple[jax.typing.ArrayLike, ...]],
  num_examples: int,
  config: StageConfig,
  run: Pretraining,
) -> Params:
  """Minimises `loss_fn(params, *read(indices, step), key)`.

  Resumes from its last checkpoint, with the same result as without a stop.

  Args:
    name: of the stage.
    params: initial parameters, donated.
    loss_fn: returns the loss and metrics.
    read: returns a batch, given the indices of its examples and the step.
    num_examples: size of the dataset.
    config: of the stage.
    run: the pretraining that it is a stage of.

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
      run.logger.info('pretrain: %s: resumed at step %d', name, start)
      shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
      state, _ = checkpoints.restore(start, state, shardings)
    metrics = {}
    batches = _batches(num_examples, config, run.seed)
    with Progress(
      config.steps - start, f'{name} step', logger=run.logger
    ) as progress:
      for done, indices in enumerate(
        itertools.islice(batches, start, None), start
      ):
        state, metrics = step(state, key, *read(indices, done))
        progress.update(1, _format(metrics))
        if checkpoints.is_due(done + 1) or done + 1 == config.steps:
          checkpoints.save(done + 1, state, {})
    if start < config.steps:
      run.logger.info('pretrain: %s: %s', name, _format(metrics))
  return state.trainable


def _batches(
  num_examples: int, config: StageConfig, seed: int
) -> Iterator[np.ndarray]:
  """Indices of the examples of each step, reshuffled in each epoch."""
  rng = np.random.default_rng((seed, config.steps))
  order: list[int] = []
  for _ in range(config.steps):
    while len(order) < config.batch_size:
      order += rng.permutation(num_examples).tolist()
    yield np.array(order[: config.batch_size])
    del order[: config.batch_size]


def classification(
  logits: Sequence[jax.Array], classes_ba: jax.Array
) -> tuple[jax.Array, list[jax.Array]]:
  """Mean loss and accuracies of A classification tasks.

  Args:
    logits: of each task, [B, N, classes]: N predictions for every example.
    classes_ba: int32 [B, A], the true classes.
  """
  losses, accuracies = [], []
  for task, logits_bnk in enumerate(logits):
    class_bn = jnp.broadcast_to(classes_ba[:, task, None], logits_bnk.shape[:2])
    losses_bn = optax.softmax_cross_entropy_with_integer_labels(
      logits_bnk, class_bn
    )
    losses.append(jnp.mean(losses_bn))
    accuracies.append(jnp.mean(jnp.argmax(logits_bnk, axis=-1) == class_bn))
  first, *others = losses
  return sum(others, start=first) / len(losses), accuracies


def _format(metrics: dict[str, Any]) -> str:
  return ', '.join(
    f'{name} {float(value):.4g}' for name, value in metrics.items()
  )
