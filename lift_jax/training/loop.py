"""Training loop: batches in, checkpoints and metrics out."""

import collections
from collections.abc import Callable, Mapping
import dataclasses
import functools
import logging
import math
import time
from typing import Any, NamedTuple

import jax
import optax

from lift_jax.errors import UserError
from lift_jax.runtime.progress import Progress
from lift_jax.runtime.shutdown import StopSignal
from lift_jax.training import metrics as metrics_lib
from lift_jax.training.profiling import StepProfiler
from lift_jax.training.state import TrainState
from lift_jax.training.step_times import StepTimes
from lift_jax.weights.checkpoints import TrainCheckpoints

# `observe(step, metrics)`, with metrics on the host.
Observe = Callable[[int, Mapping[str, Any]], None]


@dataclasses.dataclass(frozen=True)
class Workload:
  """What throughput is computed from.

  Attributes:
    num_videos: of a batch.
    flops: of a step, given its batch.
    bucket: describes that of a batch.
    num_devices: over all hosts.
    peak_flops: per second and device; None if unknown.
    compile_seconds: time spent on compilation so far, not counted as step time.
  """

  num_videos: Callable[[Any], int]
  flops: Callable[[Any], float]
  bucket: Callable[[Any], str]
  num_devices: int
  peak_flops: float | None
  compile_seconds: Callable[[], float]


class _StepWork(NamedTuple):
  """What a step does; see `Workload`."""

  num_videos: int
  flops: float
  bucket: str


class CompiledSteps:
  """A step, compiled once per bucket; logs compile time and memory.

  Args:
    jitted: see `jit_step`.
    describe: names the shape of a batch, for the log.
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
    self.seconds = 0.0  # spent on compilation

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


# On TPUs XLA may multiply by the parts of a gathered kernel as they arrive, and
# then reads and writes the activations once for each part. With kernels in 16
# parts that doubles the traffic of the memory (`docs/pods.md`), and sending
# them takes little time.
_COMPILER_OPTIONS = {
  'tpu': {
    'xla_tpu_enable_windowed_einsum_for_all_gather': False,
    'xla_tpu_enable_windowed_einsum_for_reduce_scatter': False,
  }
}


def jit_step(
  step: Callable[..., tuple[TrainState, dict[str, jax.Array]]],
  state: TrainState,
):
  """The jitted step: donates the state and keeps its shardings.

  Args:
    step: `step(state, frozen, batch, *rest) -> (state, metrics)`, pure.
    state: before the first step, or its shapes and shardings.
  """
  shardings = jax.tree.map(lambda leaf: leaf.sharding, state)
  device = next(iter(jax.tree.leaves(shardings)[0].device_set))
  return jax.jit(
    step,
    donate_argnums=0,
    out_shardings=(shardings, None),
    compiler_options=_COMPILER_OPTIONS.get(device.platform),
  )


def _memory(compiled) -> str:
  """Memory per device of a program, according to XLA."""
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
  """Metrics and clock between two log entries."""

  def __init__(self, workload: Workload, observe: Observe | None):
    self._workload, self._observe = workload, observe
    self.note = ''
    self.step_times = StepTimes(workload.compile_seconds)
    self._reset()

  def _reset(self):
    self._steps, self._videos, self._flops = [], 0, 0.0
    self.data_seconds = 0.0
    self._start = time.monotonic()
    self._compiling = self._workload.compile_seconds()

  def exclude(self, work: Callable[[], None]) -> None:
    """Runs work that is not training, with the clock stopped."""
    start = time.monotonic()
    work()
    seconds = time.monotonic() - start
    self._start += seconds
    self.step_times.exclude(seconds)

  def add(self, step: int, metrics, work: _StepWork, folder) -> None:
    """Fetches the metrics of a step; blocks until it is done.

    Raises:
      UserError: the loss or the gradient is NaN or infinite.
    """
    metrics = jax.device_get(metrics)
    self.step_times.add(work.bucket)
    self._steps.append(metrics)
    self._videos += work.num_videos
    self._flops += work.flops
    self.note = f'loss {metrics["loss"]:.4g}'
    for name in ('loss', 'grad_norm'):
      if not math.isfinite(metrics[name]):
        raise _diverged(name, metrics[name], step, folder)
    if self._observe is not None:
      self._observe(step, metrics)

  def close(self) -> dict[str, float]:
    """Means and rates since the last entry; starts the next interval."""
    workload = self._workload
    compiling = workload.compile_seconds() - self._compiling
    seconds = max(time.monotonic() - self._start - compiling, 1e-9)
    summary = metrics_lib.summarize(self._steps) | {
      'step_seconds': seconds / len(self._steps),
      'data_wait_seconds': self.data_seconds / len(self._steps),
      'videos_per_second_per_chip': (
        self._videos / seconds / workload.num_devices
      ),
      **self.step_times.metrics(),
    }
    if workload.peak_flops is not None:
      achieved = self._flops / seconds / workload.num_devices
      summary['mfu'] = achieved / workload.peak_flops
    self._reset()
    return summary


def _diverged(name: str, value: float, step: int, folder) -> UserError:
  return UserError(
    f'{name} is {value} at step {step}: the run has stopped, its last good '
    f'checkpoint is in {folder}; try a lower learning rate, or '
    'model.compute_dtype = float32'
  )


_norm = jax.jit(optax.tree.norm)


def _check_finite(state: TrainState, step: int, folder) -> None:
  """Raises UserError if a parameter is NaN or infinite, whatever the loss."""
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
  learning_rate: Callable[[int], jax.Array],
  workload: Workload,
  checkpoints: TrainCheckpoints,
  writer: metrics_lib.MetricWriter,
  profiler: StepProfiler,
  logger: logging.Logger,
  is_primary: bool,
  validate: Callable[[int, TrainState, bool], None] | None = None,
  observe: Observe | None = None,
) -> TrainState:
  """Trains from `state.step` to `num_steps`, or until SIGTERM.

  Args:
    step_fn: `step_fn(state, batch) -> (state, metrics)`; donates the state.
    next_batch: blocks until a batch is on the devices.
    data_state: position in the data after the batches that were taken.
    learning_rate: of a step, for the log.
    profiler: traces some of the steps.
    validate: `validate(step, state, is_last)` is called before step 1 of a new
      run and after every step; its time is not counted as step time.
    observe: called with the metrics of every step.

  Raises:
    UserError: a loss, gradient or parameter is NaN or infinite, or a
      checkpoint cannot be written.
  """
  step = first_step = int(state.step)
  interval = _Interval(workload, observe)
  # Metrics are read one step late, so that the host never waits for the step it
  # has just dispatched. Before a checkpoint all are read: it must be finite.
  pending = collections.deque()
  progress = Progress(
    num_steps, 'step', done=step, logger=logger, enabled=is_primary
  )
  with progress, profiler, StopSignal(together=True) as stop:
    if validate is not None and step == 0:
      interval.exclude(functools.partial(validate, 0, state, False))
    while step < num_steps:
      profiler.before(step + 1)
      start = time.monotonic()
      batch = next_batch()
      interval.data_seconds += time.monotonic() - start
      state, metrics = step_fn(state, batch)
      work = _StepWork(
        workload.num_videos(batch),
        workload.flops(batch),
        workload.bucket(batch),
      )
      pending.append((step + 1, metrics, work))
      step += 1
      profiler.after(step, metrics)
      is_last = step == num_steps
      stopping = stop.everywhere()
      saving = checkpoints.is_due(step) or is_last or stopping
      logging_now = step % log_every == 0 or is_last or stopping
      while len(pending) > (0 if saving or logging_now else 1):
        interval.add(*pending.popleft(), checkpoints.folder)
      if step == first_step + 1:
        jax.block_until_ready(metrics)
        logger.info('first step took %.1f s', time.monotonic() - start)
      progress.update(1, note=interval.note)
      if logging_now:
        rate = float(learning_rate(step - 1))
        writer.write(step, interval.close() | {'learning_rate': rate})
      if validate is not None and not stopping:
        # Before saving, so that a run killed in between validates again.
        interval.exclude(functools.partial(validate, step, state, is_last))
      if saving:
        _check_finite(state, step, checkpoints.folder)
        writer.sync()
        checkpoints.save(step, state, data_state())
      if stopping:
        logger.info('%s: saving step %d and stopping', stop.name, step)
        break
    checkpoints.wait()
  for line in interval.step_times.lines():
    logger.info('%s', line)
  return state
