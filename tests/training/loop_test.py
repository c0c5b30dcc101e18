"""The loop: when it logs, saves and stops. The step is a sum."""

import collections
import logging
import math
import os
import signal
import types
from unittest import mock

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lift_jax.errors import UserError
from lift_jax.training import loop
from lift_jax.training.profiling import StepProfiler
from lift_jax.training.state import TrainState
from lift_jax.weights import checkpoints

_LOGGER = logging.getLogger('loop_test')


class _Writer:
  def __init__(self):
    self.written = {}

  def write(self, step, scalars):
    assert step not in self.written
    self.written[step] = scalars

  def sync(self):
    pass


_Batch = collections.namedtuple('Batch', ['mean'])


class LoopTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.folder = tmp_path / 'checkpoints'
    self.writer = _Writer()
    self.drawn = 0

  def step(self, state, batch):
    """Adds the batch; a batch of inf spoils the loss, of 1e30 the sum."""
    total = {'w': state.trainable['w'] + batch}
    metrics = {
      'loss': jnp.where(batch > 1e20, 1.0, batch) * 1.0,
      'grad_norm': jnp.ones(()),
      'sum/loss/real': batch * 2,
      'count/loss/real': jnp.full((), 2),
    }
    if math.isinf(batch):
      metrics['loss'] = batch
    return TrainState(state.step + 1, total, (), {}), metrics

  def run_loop(
    self, batches, num_steps, every=4, log_every=2, step=0, **kwargs
  ):
    def next_batch():
      self.drawn += 1
      return jnp.asarray(batches[self.drawn - 1], jnp.float32)

    state = TrainState(jnp.asarray(step), {'w': jnp.zeros(2)}, (), {})
    workload = loop.Workload(
      kwargs.pop('num_videos', lambda batch: 8),
      lambda batch: 1e9,
      kwargs.pop('bucket', lambda batch: 'bucket'),
      2,
      kwargs.pop('peak', None),
      lambda: 0.0,
    )
    with checkpoints.TrainCheckpoints(
      self.folder, checkpoints.CheckpointConfig(every, 9), {}
    ) as saved:
      return loop.run(
        state,
        kwargs.pop('step_fn', self.step),
        next_batch,
        lambda: {'drawn': self.drawn},
        num_steps=num_steps,
        log_every=log_every,
        learning_rate=lambda step: step / 10,
        workload=workload,
        checkpoints=saved,
        writer=self.writer,
        profiler=StepProfiler(
          self.folder.parent / 'profile', kwargs.pop('profiled', range(0))
        ),
        logger=_LOGGER,
        is_primary=True,
        observe=kwargs.pop('observe', None),
      )

  def saved_steps(self):
    return sorted(int(path.name) for path in self.folder.iterdir())

  def test_schedule(self):
    """Logs every second step and saves every fourth, and both at the end."""
    state = self.run_loop(range(9), 9)
    self.assertEqual(int(state.step), 9)
    np.testing.assert_array_equal(state.trainable['w'], [36.0, 36.0])
    self.assertEqual(self.saved_steps(), [4, 8, 9])
    self.assertEqual(sorted(self.writer.written), [2, 4, 6, 8, 9])
    losses = [scalars['loss'] for scalars in self.writer.written.values()]
    self.assertEqual(losses, [0.5, 2.5, 4.5, 6.5, 8.0])
    rates = [s['learning_rate'] for s in self.writer.written.values()]
    np.testing.assert_allclose(rates, [0.1, 0.3, 0.5, 0.7, 0.8])
    self.assertEqual(self.drawn, 9)
    self.assertNotIn('mfu', self.writer.written[2])  # no peak is known

  def test_observe(self):
    """Each step once and in order, though metrics are read a step late."""
    seen = []
    self.run_loop(
      range(5), 5, observe=lambda step, m: seen.append((step, m['loss']))
    )
    self.assertEqual(seen, [(1, 0), (2, 1), (3, 2), (4, 3), (5, 4)])

  def test_rates(self):
    self.run_loop(range(4), 4, peak=1e12)
    for scalars in self.writer.written.values():
      seconds = scalars['step_seconds']
      self.assertGreater(seconds, 0)
      self.assertBetween(scalars['data_wait_seconds'], 0, seconds)
      np.testing.assert_allclose(
        scalars['videos_per_second_per_chip'], 8 / seconds / 2
      )
      np.testing.assert_allclose(scalars['mfu'], 1e9 / seconds / 2 / 1e12)

  def test_buckets(self):
    """Rates count the clips of each batch; times are by bucket."""
    with self.assertLogs(_LOGGER, 'INFO') as logs:
      self.run_loop(
        [2, 6, 2, 6],
        4,
        every=9,
        log_every=4,
        num_videos=int,
        bucket=lambda batch: f'bucket {int(batch)}',
      )
    (scalars,) = self.writer.written.values()
    np.testing.assert_allclose(
      scalars['videos_per_second_per_chip'],
      16 / (4 * scalars['step_seconds']) / 2,
    )
    medians = [scalars[f'step_seconds/bucket_{n}'] for n in (2, 6)]
    self.assertEqual(
      scalars['step_seconds_spread'], max(medians) / min(medians)
    )
    self.assertIn('the slowest bucket took', logs.output[-1])

  def test_nothing_left_to_do(self):
    state = self.run_loop([], 5, step=5)
    self.assertEqual(int(state.step), 5)
    self.assertEqual(self.writer.written, {})

  def test_resumed(self):
    """Steps count from where the state is."""
    self.run_loop(range(3), 7, step=4)
    self.assertEqual(sorted(self.writer.written), [6, 7])
    self.assertEqual(self.saved_steps(), [7])

  @parameterized.parameters(3, 4, 5, 6)
  def test_bad_loss(self, bad):
    """Whether at a checkpoint, at a log entry, or between them."""
    batches = [1.0] * 8
    batches[bad - 1] = math.inf
    with self.assertRaisesRegex(UserError, f'loss is inf at step {bad}: .*low'):
      self.run_loop(batches, 8)
    self.assertEqual(self.saved_steps(), [] if bad <= 4 else [4])
    self.assertLess(max(self.writer.written), bad)
    for scalars in self.writer.written.values():
      self.assertTrue(all(map(math.isfinite, scalars.values())))

  def test_bad_parameters(self):
    """A step may have a good loss and yet spoil the parameters."""
    with self.assertRaisesRegex(UserError, 'norm of the parameters is inf at'):
      self.run_loop([1.0, 1.0, 1.0, 1e30], 8)
    self.assertEqual(self.saved_steps(), [])

  def profiles(self):
    """Files of traces."""
    return list((self.folder.parent / 'profile').rglob('*.xplane.pb'))

  def test_profile(self):
    self.run_loop(range(4), 4, profiled=range(2, 4))
    self.assertLen(self.profiles(), 1)

  @parameterized.parameters((0, range(0)), (3, range(2, 4)))
  def test_no_profile(self, step, profiled):
    """None is asked for, or the run resumes behind its start."""
    self.run_loop(range(4), 4, step=step, profiled=profiled)
    self.assertEqual(self.profiles(), [])

  def test_profile_of_a_run_that_ends(self):
    with self.assertRaisesRegex(UserError, 'loss is inf'):
      self.run_loop([1.0, math.inf, 1.0], 3, log_every=1, profiled=range(2, 4))
    self.assertLen(self.profiles(), 1)

  def test_sigterm(self):
    def step(state, batch):
      if int(state.step) == 4:
        os.kill(os.getpid(), signal.SIGTERM)
      return self.step(state, batch)

    before = signal.getsignal(signal.SIGTERM)
    state = self.run_loop(range(9), 9, step_fn=step)
    self.assertEqual(int(state.step), 5)
    self.assertEqual(self.saved_steps(), [4, 5])
    self.assertEqual(sorted(self.writer.written), [2, 4, 5])
    self.assertIs(signal.getsignal(signal.SIGTERM), before)


class CompiledStepsTest(parameterized.TestCase):
  def test_once_for_each_shape(self):
    traced = []

    def step(state, frozen, batch, null_text, key):
      traced.append(batch.mean.shape)
      return state + batch.mean.sum(), {}

    steps = loop.CompiledSteps(jax.jit(step), lambda batch: 'numbers', _LOGGER)
    state = jnp.zeros(())
    for length in (2, 3, 2, 3):
      batch = _Batch(jnp.ones((length, 1)))
      state, _ = steps(state, {}, batch, jnp.zeros(()), jax.random.key(0))
    self.assertEqual(float(state), 10.0)
    self.assertEqual(traced, [(2, 1), (3, 1)])
    self.assertGreater(steps.seconds, 0)


class JitStepTest(parameterized.TestCase):
  @parameterized.parameters(('tpu', True), ('gpu', False), ('cpu', False))
  def test_compiler_options(self, platform, has_options):
    """TPUs do without windowed products; others do not know the options."""
    device = types.SimpleNamespace(platform=platform)
    sharding = types.SimpleNamespace(device_set=[device])
    state = {'kernel': types.SimpleNamespace(sharding=sharding)}
    with mock.patch.object(jax, 'jit') as jit:
      loop.jit_step(lambda state: state, state)
    options = jit.call_args.kwargs['compiler_options']
    self.assertEqual(options is not None, has_options)
    if has_options:
      self.assertEqual(set(options.values()), {False})
