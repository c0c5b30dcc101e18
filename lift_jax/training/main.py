"""The main function of every training job, from the mesh to the export.

A job implements its own parts (data, network, step, FLOPs, validation, export)
as a `Task`; `run` calls the methods in the order of their definition.
"""

import abc
from collections.abc import Callable, Collection, Mapping
import logging
import pathlib
from typing import Any

import grain
import jax
import optax

from lift_jax import chips, partitioning
from lift_jax.data import batch_sizes, global_batch
from lift_jax.data.batch_sizes import BucketSteps
from lift_jax.errors import UserError
from lift_jax.models.functional import Params
from lift_jax.runtime import distributed
from lift_jax.runtime.shutdown import Stopped
from lift_jax.training import loop, metrics
from lift_jax.training import setup as setup_lib
from lift_jax.training.optimizer import learning_rate_schedule, make_optimizer
from lift_jax.training.profiling import StepProfiler
from lift_jax.training.setup import Setup
from lift_jax.training.state import TrainState
from lift_jax.weights import param_paths
from lift_jax.weights.checkpoints import TrainCheckpoints

# `step(state, frozen, batch, *constants) -> (state, metrics)`, pure.
Step = Callable[..., tuple[TrainState, dict[str, jax.Array]]]

# `validate(step, params, writer)`, with the parameters of the full network.
Validate = Callable[[int, Params, metrics.MetricWriter], None]


class Task(abc.ABC):
  """What a job trains, on what data, and how it validates and exports.

  The constructor reads, checks and logs the data and declares the network on
  the mesh. It allocates nothing large.

  Attributes:
    setup: the network on the mesh.
    num_examples: in an epoch.
    buckets: the steps on each.
    iterator: endless batches, each with the examples that this host holds.
    fingerprint: what a run must share with a checkpoint to resume from it;
      JSON values.
    peak_of: see `optimizer.make_optimizer`.
  """

  setup: Setup
  num_examples: int
  buckets: Collection[BucketSteps]
  iterator: grain.DatasetIterator
  fingerprint: dict[str, Any]
  peak_of: Callable[[str], float] | None = None

  @abc.abstractmethod
  def on_start(self) -> None:
    """Called once all checks have passed, to write the config."""

  @abc.abstractmethod
  def make_validations(self) -> list[tuple[int, Validate]]:
    """Functions to call during training: (steps between two calls, function).

    Each is also called before the first step and after the last.

    Whatever needs the devices only once, such as a text encoder, is run here,
    before the state takes their memory.
    """

  @abc.abstractmethod
  def load_base(self, key: jax.Array) -> tuple[Params, Params]:
    """(trainable, frozen) parameters before the first step.

    Args:
      key: for new parameters.
    """

  @abc.abstractmethod
  def make_step(
    self, tx: optax.GradientTransformation, trainable: Params
  ) -> tuple[Step, tuple[Any, ...]]:
    """The step, and its constant arguments: arrays on the mesh.

    Args:
      tx: the optimizer.
      trainable: initial parameters; they will be donated.
    """

  @abc.abstractmethod
  def to_batch(self, arrays: Mapping[str, jax.Array]) -> Any:
    """The batch that the step takes, from arrays of the iterator."""

  @abc.abstractmethod
  def describe_batch(self, batch: Any) -> str:
    """The shape of a batch, for the log."""

  @abc.abstractmethod
  def step_flops(self, batch: Any) -> float:
    """FLOPs of a step on a batch, summed over all devices."""

  def observe(self, step: int, metrics: Mapping[str, Any]) -> None:
    """Called with the metrics of every step, on the host."""
    del step, metrics

  @abc.abstractmethod
  def export(self, trained: Params, frozen: Params) -> None:
    """Writes the trained parameters, or their average, in published format."""


def run(
  job: str,
  make_task: Callable[[jax.sharding.Mesh, int], Task],
  config: Any,
  workdir: pathlib.Path,
  logger: logging.Logger,
) -> TrainState:
  """Trains, from the latest checkpoint if any; returns the last state.

  Args:
    job: name of the job, for the log.
    make_task: `make_task(mesh, batch_size)`.
    config: with the sections mesh, train, optimizer and checkpoint.
    workdir: gets checkpoints and metrics.
    logger: for progress and descriptions.

  Raises:
    UserError: bad input, a checkpoint of another run, or a loss that diverges.
    Stopped: after a graceful shutdown on SIGTERM; the state is saved.
  """
  train = config.train
  _check_folders(workdir)

  # Mesh.
  mesh = partitioning.make_mesh(config.mesh)
  logger.info('%s: %s', job, partitioning.describe(mesh))
  batch_size = train.global_batch(mesh.size, partitioning.batch_shards(mesh))

  # Data and network: read, checked and logged; nothing large is allocated.
  task = make_task(mesh, batch_size)
  setup = task.setup
  num_steps = train.num_steps(
    task.num_examples, batch_sizes.mean_batch(task.buckets)
  )
  _check_profile(train.profiled_steps, num_steps)
  _describe(job, setup, train, task.buckets, num_steps, logger)

  # Checkpoints: whether there is one to resume from.
  tx = make_optimizer(config.optimizer, num_steps, task.peak_of)
  with TrainCheckpoints(
    workdir / 'checkpoints', config.checkpoint, task.fingerprint
  ) as checkpoints:
    resume_step = checkpoints.resume_step(num_steps)
    task.on_start()
    validations = task.make_validations()

    # State and step.
    trainable, frozen = task.load_base(
      jax.random.fold_in(jax.random.key(train.seed), 2**31)
    )
    step, constants = task.make_step(tx, trainable)
    state = setup_lib.create_or_restore(
      setup,
      trainable,
      tx,
      train.ema_decay > 0,
      checkpoints,
      resume_step,
      task.iterator,
    )
    del trainable
    if resume_step is not None:
      logger.info('%s: resumed at step %d', job, resume_step)
    steps = loop.CompiledSteps(
      loop.jit_step(step, state), task.describe_batch, logger
    )

    def next_batch():
      arrays = next(task.iterator)
      sharding = setup.batch_sharding
      size = global_batch.global_size(arrays, sharding)
      return task.to_batch(global_batch.to_global(arrays, size, sharding))

    # Loop.
    def validate(step: int, state: TrainState, is_last: bool) -> None:
      for every_steps, validation in validations:
        if is_last or step % every_steps == 0:
          params = param_paths.merge(state.ema or state.trainable, frozen)
          validation(step, params, writer)

    with (
      jax.set_mesh(mesh),
      metrics.MetricWriter(
        workdir,
        enabled=distributed.is_primary(),
        wandb_project=train.wandb_project,
        resume_step=resume_step or 0,
      ) as writer,
    ):
      state = loop.run(
        state,
        lambda state, batch: steps(state, frozen, batch, *constants),
        next_batch,
        task.iterator.get_state,
        num_steps=num_steps,
        log_every=train.log_every,
        learning_rate=learning_rate_schedule(config.optimizer, num_steps),
        workload=loop.Workload(
          lambda batch: len(jax.tree.leaves(batch)[0]),
          task.step_flops,
          task.describe_batch,
          mesh.size,
          chips.peak_flops(mesh.devices.flat[0].device_kind),
          lambda: steps.seconds,
        ),
        checkpoints=checkpoints,
        writer=writer,
        profiler=StepProfiler(workdir / 'profile', train.profiled_steps),
        logger=logger,
        is_primary=distributed.is_primary(),
        validate=validate if validations else None,
        observe=task.observe,
      )

  # Export.
  if int(state.step) < num_steps:
    raise Stopped
  if train.export:
    task.export(state.ema or state.trainable, frozen)
  return state


def replicated_key(setup: Setup, seed: int) -> jax.Array:
  """The key of a run, replicated over all devices.

  It is created under jit: a local key could not be sent to other hosts.
  """
  return jax.jit(lambda: jax.random.key(seed), out_shardings=setup.replicated)()


def _check_folders(workdir: pathlib.Path) -> None:
  """Raises UserError if a file stands where the job will write a folder."""
  for name in ('checkpoints', 'tensorboard', 'export'):
    path = workdir / name
    if path.exists() and not path.is_dir():
      raise UserError(
        f'{path} is a file, but the job writes a folder there; move it away, '
        'or give another --workdir'
      )


def _check_profile(profiled_steps: range, num_steps: int) -> None:
  if profiled_steps and profiled_steps[0] > num_steps:
    raise UserError(
      f'train.profile starts at step {profiled_steps[0]}, but the run has only '
      f'{num_steps} steps; give an earlier one'
    )


def _describe(job, setup, train, buckets, num_steps, logger) -> None:
  trainable, frozen = setup.split(setup.model.abstract_params)
  logger.info(
    '%s: %s trainable parameters, %s frozen',
    job,
    f'{setup_lib.count(trainable):,}',
    f'{setup_lib.count(frozen):,}',
  )
  if train.steps is not None and train.epochs is not None:
    logger.info('%s: train.steps is set, so train.epochs is ignored', job)
  mean = float(batch_sizes.mean_batch(buckets))
  logger.info(
    '%s: %d steps of %g examples (%g at a time)',
    job,
    num_steps,
    round(mean, 1),
    round(mean / train.grad_accum, 1),
  )
  if len(buckets) > 1:
    for line in batch_sizes.describe(buckets):
      logger.info('%s: %s', job, line)
