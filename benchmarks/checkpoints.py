"""What saving a checkpoint costs a run that goes on meanwhile.

  python benchmarks/checkpoints.py [--mebibytes=512] [--saves=5] [--steps=6]
    [--folder=DIR]

A state of that size, parameters and the two moments of Adam, goes through steps
that change all of it, and is saved through the checkpoints of `lift align`
while they go on. Before each save it makes some steps that nothing disturbs, so
that both kinds see the same machine. The last checkpoint is read in the end and
must be the state of its step, whatever the later ones did to it.

Writes to a temporary folder in DIR, and prints a table for docs/performance.md.
"""

import argparse
from collections.abc import Callable
import importlib.metadata
import pathlib
import statistics
import tempfile
import threading
import time

import jax
import jax.numpy as jnp
import numpy as np
import optax

from lift_jax.training import loop
from lift_jax.training.state import TrainState
from lift_jax.weights.checkpoints import CheckpointConfig, TrainCheckpoints

MIB = 2**20
_LAYERS = 16
_ROWS = 32  # of the input: enough that a step is not Adam alone
_BYTES = 3 * 4  # of a parameter with its two moments, in fp32


def make_state(
  mebibytes: int,
) -> tuple[TrainState, optax.GradientTransformation]:
  """A chain of square matrices with Adam's moments, and the optimizer."""
  width = round((mebibytes * MIB / _BYTES / _LAYERS) ** 0.5)
  keys = jax.random.split(jax.random.key(0), _LAYERS)
  scale = width**-0.5
  params = {
    f'{number:02}': {'kernel': scale * jax.random.normal(key, (width, width))}
    for number, key in enumerate(keys)
  }
  tx = optax.adam(1e-4)
  return TrainState.create(params, tx, with_ema=False), tx


def make_step(state: TrainState, tx: optax.GradientTransformation) -> Callable:
  """step(state) -> (state, metrics); it donates the state as training does."""
  width = state.trainable['00']['kernel'].shape[0]
  x_rd = jax.random.normal(jax.random.key(1), (_ROWS, width))

  def loss_fn(params):
    y_rd = x_rd
    for layer in params.values():
      y_rd = jnp.tanh(y_rd @ layer['kernel'])
    return jnp.mean(y_rd**2)

  def step(state):
    loss, grads = jax.value_and_grad(loss_fn)(state.trainable)
    return state.after(grads, tx, ema_decay=0.0), {'loss': loss}

  return loop.jit_step(step, state)


class Run:
  """A run with its clock.

  Attributes:
    state: after the last step.
    seconds: 'alone', 'during' (of each step), 'call' and 'whole' (of each save,
      from the call till it returns, and till the checkpoint is there).
  """

  def __init__(self, state, step, checkpoints: TrainCheckpoints):
    self.state, self._step, self._checkpoints = state, step, checkpoints
    self.seconds = {'alone': [], 'during': [], 'call': [], 'whole': []}

  def step(self, kind: str | None) -> None:
    """One step, timed as one of a kind, or not at all."""
    start = time.monotonic()
    self.state, _ = self._step(self.state)
    jax.block_until_ready(self.state)
    if kind is not None:
      self.seconds[kind].append(time.monotonic() - start)

  def save(self) -> None:
    """Saves the state, and makes steps until the checkpoint is whole."""
    number = int(self.state.step)
    start = time.monotonic()
    self._checkpoints.save(number, self.state, {'next_index': number})
    self.seconds['call'].append(time.monotonic() - start)
    waiter = threading.Thread(target=self._wait, args=(start,))
    waiter.start()
    while waiter.is_alive():
      self.step('during')
    waiter.join()

  def _wait(self, start: float) -> None:
    self._checkpoints.wait()
    self.seconds['whole'].append(time.monotonic() - start)


def check(checkpoints: TrainCheckpoints, saved: TrainState) -> None:
  """Raises AssertionError if the last checkpoint is not `saved`."""
  shardings = jax.tree.map(lambda _: _one_device(), saved)
  number = int(saved.step)
  assert checkpoints.latest_step() == number
  abstract = jax.eval_shape(lambda: saved)
  state, _ = checkpoints.restore(number, abstract, shardings)
  jax.tree.map(np.testing.assert_array_equal, state, saved)


def _one_device() -> jax.sharding.Sharding:
  return jax.sharding.SingleDeviceSharding(jax.devices()[0])


def report(run: Run, mebibytes: float) -> None:
  """Prints what was measured."""
  alone, during, call, whole = (
    statistics.median(run.seconds[kind])
    for kind in ('alone', 'during', 'call', 'whole')
  )
  num_saves = len(run.seconds['call'])
  lost = sum(s - alone for s in run.seconds['during']) / num_saves + call
  version = importlib.metadata.version
  print(
    f'{jax.devices()[0].device_kind}, jax {version("jax")}, orbax-checkpoint '
    f'{version("orbax-checkpoint")}; a state of {mebibytes:.0f} MiB, '
    f'{num_saves} saves\n'
  )
  rows = (
    ('a step without a save', alone, run.seconds['alone']),
    ('a step during a save', during, run.seconds['during']),
    ('the call of save', call, run.seconds['call']),
    ('until the checkpoint is whole', whole, run.seconds['whole']),
  )
  print('| | median, s | range, s | number |\n|---|---|---|---|')
  for name, median, seconds in rows:
    print(
      f'| {name} | {median:.3f} | {min(seconds):.3f} to {max(seconds):.3f} | '
      f'{len(seconds)} |'
    )
  print(
    f'\nwritten at {mebibytes / whole:.0f} MiB/s; steps during a save take '
    f'{during / alone:.2f} times as long; a save costs a run {lost:.2f} s, '
    f'as much as {lost / alone:.1f} steps'
  )


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--mebibytes', type=int, default=512)
  parser.add_argument('--saves', type=int, default=5)
  parser.add_argument('--steps', type=int, default=6)
  parser.add_argument('--folder', type=pathlib.Path)
  flags = parser.parse_args()
  state, tx = make_state(flags.mebibytes)
  mebibytes = sum(leaf.nbytes for leaf in jax.tree.leaves(state)) / MIB
  with (
    tempfile.TemporaryDirectory(dir=flags.folder) as folder,
    TrainCheckpoints(
      pathlib.Path(folder) / 'checkpoints', CheckpointConfig(1, 1), {}
    ) as checkpoints,
  ):
    run = Run(state, make_step(state, tx), checkpoints)
    del state  # which the first step takes
    for _ in range(2):  # the first one compiles
      run.step(None)
    for _ in range(flags.saves):
      for _ in range(flags.steps):
        run.step('alone')
      saved = jax.tree.map(np.array, run.state)  # not only another name
      run.save()
    check(checkpoints, saved)
  report(run, mebibytes)


if __name__ == '__main__':
  main()
