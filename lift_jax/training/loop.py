"""The loop around a compiled step: batches in, checkpoints and metrics out."""

import collections
from collections.abc import Callable
import dataclasses
import functools
import logging
import math
import time
from typing import Any

import jax
import optax

from lift_jax.errors import UserError
from lift_jax.runtime.progress import Progress
from lift_jax.runtime.shutdown import StopSignal
from lift_jax.training import metrics as metrics_lib
from lift_jax.training.profiling import StepProfiler
from lift_jax.training.state import TrainState
from lift_jax.weights.checkpoints import TrainCheckpoints


@dataclasses.dataclass(frozen=True)
class Workload:
  """What throughput is counted in.

  Attributes:
    batch_size: videos of a step.
    flops: of a step, by the shapes of its batch.
    num_devices: over all hosts.
    peak_flops: of a device, or None.
    compile_seconds: spent compiling so far, which is not step time.
  """

  batch_size: int
  flops: Callable[[Any], float]
  num_devices: int
  peak_flops: float | None
  compile_seconds: Callable[[], float]


class CompiledSteps:
  """A step, compiled once for each bucket and measured while at it.

  Args:
    jitted: see `jit_step`.
    describe: what tells the batches of a bucket, in words.
    logger: gets the time and memory of each program.
  """

  def __init__(
    self,
    jitted,
    describe: Callable[[Any], str],
    logger: logging.Logger,
  ):
    self._jitted = jitted
    self._describe = describe
    self._logger = logger
    self._compiled = {}
    self.seconds = 0.0  # spent compiling

  def __call__(self, state, frozen, batch, *rest):
    shapes = tuple(leaf.shape for leaf in jax.tree.leaves(batch))
    if shapes not in self._compiled:
      start = time.monotonic()
      self._compiled[shapes] = self._jitted.lower(
        state, frozen, batch, *rest
      ).compile()
      seconds = time.monotonic() - start
      self.seconds += seconds
      self._logger.info(
        'compiled the step for %s in %.1f s; %s',
        self._describe(batch),
        seconds,
        _memory(self._compiled[shapes]),
      )
    return self._compiled[shapes](state, frozen, batch, *rest)


def jit_step(
  step: Callable[..., tuple[TrainState, dict[str, jax.Array]]],
  state: TrainState,
):
  """The step, jitted: it donates the state, and leaves it laid out as it was.

  Args:
    step: `step(state, frozen, batch, *rest) -> (state, metrics)`, pure.
    state: before the first of them, or its shapes with their shardings.
  """
  shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
  return jax.jit(step, donate_argnums=0, out_shardings=(shardings, None))


def _memory(compiled) -> str:
  """Bytes per device that a program holds, as XLA counts them."""
  analysis = compiled.memory_analysis()
  if analysis is None:
    return 'memory per device unknown'
  gib = 2.0**30
  arguments = analysis.argument_size_in_bytes / gib
  temporary = analysis.temp_size_in_bytes / gib
  return (
    f'memory per device {arguments + temporary:.3f} GiB '
    f'(state and batch {arguments:.3f}, temporary {temporary:.3f})'
  )


class _Interval:
  """Metrics and clock between two entries of the log."""

  def __init__(self, workload: Workload):
    self._workload = workload
    self.note = ''
    self._reset()

  def _reset(self):
    self._steps, self._flops = [], 0.0
    self.data_seconds = 0.0
    self._start = time.monotonic()
    self._compiling = self._workload.compile_seconds()

  def leave_out(self, work: Callable[[], None]) -> None:
    """Does work that is not training, with the clock stopped."""
    start = time.monotonic()
    work()
    self._start += time.monotonic() - start

  def add(self, step: int, metrics, flops: float, folder) -> None:
    """Reads the metrics of a step, which waits until it is done.

    Raises:
      UserError: the loss or the gradient is NaN or infinite.
    """
    metrics = jax.device_get(metrics)
    self._steps.append(metrics)
    self._flops += flops
    self.note = f'loss {metrics["loss"]:.4g}'
    for name in ('loss', 'grad_norm'):
      if not math.isfinite(metrics[name]):
        raise _diverged(name, metrics[name], step, folder)

  def close(self) -> dict[str, float]:
    """Means and rates since the last entry; starts the next interval."""
    load = self._workload
    compiling = load.compile_seconds() - self._compiling
    seconds = max(time.monotonic() - self._start - compiling, 1e-9)
    per_second = len(self._steps) / seconds
    summary = metrics_lib.summarize(self._steps) | {
      'step_seconds': 1 / per_second,
      'data_wait_seconds': self.data_seconds / len(self._steps),
      'videos_per_second_per_chip': (
        load.batch_size * per_second / load.num_devices
      ),
    }
    if load.peak_flops is not None:
      done = self._flops / seconds / load.num_devices
      summary['mfu'] = done / load.peak_flops
    self._reset()
    return summary


def _diverged(name: str, value: float, step: int, folder) -> UserError:
  return UserError(
    f'{name} is {value} at step {step}: the run has stopped, its last good '
    f'checkpoint is kept in {folder}; try a lower learning rate, or '
    'model.compute_dtype = float32'
  )


_norm = jax.jit(optax.tree.norm)


def _check_finite(state: TrainState, step: int, folder) -> None:
  """Raises UserError if a step with a finite loss has spoilt the parameters."""
  norm = float(_norm(state.trainable))
  if not math.isfinite(norm):
    raise _diverged('the norm of the parameters', norm, step, folder)


def run(
  state: TrainState,
  step_fn: Callable[..., tuple[TrainState, dict[str, jax.Array]]],
  next_batch: Callable[[], Any],
  data_state: Callable[[], dict[str, Any]],
  *,
  num_steps: int,
  log_every: int,
  learning_rate: Callable[[int], float],
  workload: Workload,
  checkpoints: TrainCheckpoints,
  writer: metrics_lib.MetricWriter,
  profiler: StepProfiler,
  logger: logging.Logger,
  is_primary: bool,
  validate: Callable[[int, TrainState, bool], None] | None = None,
) -> TrainState:
  """Trains from `state.step` to `num_steps`, or until SIGTERM.

  Args:
    step_fn: `step_fn(state, batch) -> (state, metrics)`; donates the state.
    next_batch: blocks until a batch is on the devices.
    data_state: position of the data after the batches that were taken.
    learning_rate: of a step, for the log.
    profiler: traces some of the steps.
    validate: `validate(step, state, is_last)` is called before the first step
      of all and after each step; its time does not count.

  Raises:
    UserError: a loss, gradient or parameter is NaN or infinite, or a
      checkpoint cannot be written.
  """
  step = first_step = int(state.step)
  interval = _Interval(workload)
  # Metrics are read one step late, so that the host never waits for the step it
  # has just started; before a checkpoint all are read, so that it is good.
  late = collections.deque()
  progress = Progress(
    num_steps, 'step', done=step, logger=logger, enabled=is_primary
  )
  with progress, profiler, StopSignal(together=True) as stop:
    if validate is not None and step == 0:
      interval.leave_out(functools.partial(validate, 0, state, False))
    while step < num_steps:
      profiler.before(step + 1)
      start = time.monotonic()
      batch = next_batch()
      interval.data_seconds += time.monotonic() - start
      state, metrics = step_fn(state, batch)
      late.append((step + 1, metrics, workload.flops(batch)))
      step += 1
      profiler.after(step, metrics)
      is_last = step == num_steps
      stopping = stop.everywhere()
      saving = checkpoints.is_due(step) or is_last or stopping
      logging_now = step % log_every == 0 or is_last or stopping
      while len(late) > (0 if saving or logging_now else 1):
        interval.add(*late.popleft(), checkpoints.folder)
      if step == first_step + 1:
        jax.block_until_ready(metrics)
        logger.info('first step took %.1f s', time.monotonic() - start)
      progress.update(1, note=interval.note)
      if logging_now:
        rate = float(learning_rate(step - 1))
        writer.write(step, interval.close() | {'learning_rate': rate})
      if validate is not None and not stopping:
        # Before saving, so that a killed run makes up for what it missed.
        interval.leave_out(functools.partial(validate, step, state, is_last))
      if saving:
        _check_finite(state, step, checkpoints.folder)
        checkpoints.save(step, state, data_state())
      if stopping:
        logger.info('SIGTERM: saving step %d and stopping', step)
        break
    checkpoints.wait()
  return state
