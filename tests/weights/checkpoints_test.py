"""Checkpoints of a run: round trips and refusals."""

import pathlib
import shutil
import threading

from absl.testing import parameterized
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding, PartitionSpec
import numpy as np
import optax
import pytest

from lift_jax.cli import main
from lift_jax.errors import UserError
from lift_jax.training.state import TrainState
from lift_jax.weights import checkpoints
from tests.jobs import jobs

_TX = optax.adam(0.1)
_FINGERPRINT = {'model': 'abc', 'seed': 0}


def _sharding(num_devices: int) -> NamedSharding:
  mesh = jax.sharding.Mesh(np.array(jax.devices()[:num_devices]), ('fsdp',))
  return NamedSharding(mesh, PartitionSpec('fsdp'))


def _state(num_devices: int, with_ema: bool = False) -> TrainState:
  """A state after one step, sharded over devices."""
  values = jnp.linspace(-1, 1, 16).reshape(8, 2)
  params = {'w': jax.device_put(values, _sharding(num_devices))}
  state = TrainState.create(params, _TX, with_ema)
  updates, opt_state = _TX.update({'w': values}, state.opt_state, params)
  params = optax.apply_updates(params, updates)
  return TrainState(state.step + 1, params, opt_state, state.ema)


@pytest.fixture(scope='module', autouse=True)
def _silent_libraries():
  """Pending reads of TensorStore fail after one of a damaged file."""
  main.silence_libraries()


class TrainCheckpointsTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.folder: pathlib.Path = tmp_path / 'checkpoints'

  def open(self, every=2, keep=2, **changes) -> checkpoints.TrainCheckpoints:
    return checkpoints.TrainCheckpoints(
      self.folder,
      checkpoints.CheckpointConfig(every, keep),
      _FINGERPRINT | changes,
    )

  def save(self, *steps, **kwargs):
    with self.open() as saved:
      for step in steps:
        saved.save(step, _state(4, **kwargs), {'next_index': step})

  def restore(self, saved, step, like, num_devices):
    abstract = jax.eval_shape(lambda: like)
    replicated = NamedSharding(_sharding(num_devices).mesh, PartitionSpec())
    shardings = jax.tree.map(
      lambda leaf: _sharding(num_devices) if leaf.ndim else replicated, abstract
    )
    return saved.restore(step, abstract, shardings)

  @parameterized.product(num_devices=(1, 2, 4, 8), with_ema=(False, True))
  def test_round_trip(self, num_devices, with_ema):
    """Bit for bit, on any number of devices."""
    self.save(2, with_ema=with_ema)
    wanted = _state(4, with_ema)
    with self.open() as saved:
      self.assertEqual(saved.latest_step(), 2)
      saved.check(2)
      state, data = self.restore(saved, 2, wanted, num_devices)
    self.assertEqual(data, {'next_index': 2})
    self.assertEqual(jax.tree.structure(state), jax.tree.structure(wanted))
    jax.tree.map(np.testing.assert_array_equal, state, wanted)
    self.assertLen(state.trainable['w'].sharding.device_set, num_devices)

  def test_small_arrays(self):
    """Nothing is compiled to save arrays that many devices hold alike."""
    everywhere = NamedSharding(_sharding(8).mesh, PartitionSpec())
    values = jax.device_put(np.ones((8, 3), np.float32), everywhere)
    state = TrainState(jnp.zeros((), jnp.int32), {'w': values}, {}, {})
    with (
      self.open() as saved,
      jax.log_compiles(),
      self.assertNoLogs('jax', 'WARNING'),
    ):
      saved.save(2, state, {})

  def test_keep(self):
    self.save(2, 4, 6, 8)
    names = sorted(path.name for path in self.folder.iterdir())
    self.assertEqual(names, ['6', '8'])

  def test_same_step_twice(self):
    self.save(2, 2)
    self.save(2)

  def test_due(self):
    with self.open(every=3) as saved:
      due = [step for step in range(1, 10) if saved.is_due(step)]
    self.assertEqual(due, [3, 6, 9])

  def test_none(self):
    self.assertFalse(checkpoints.has_checkpoint(self.folder))
    with self.open() as saved:
      self.assertIsNone(saved.latest_step())
    self.assertFalse(checkpoints.has_checkpoint(self.folder))
    # As a save leaves it that was killed.
    (self.folder / '2.orbax-checkpoint-tmp-0').mkdir()
    self.assertFalse(checkpoints.has_checkpoint(self.folder))
    self.save(4)
    self.assertTrue(checkpoints.has_checkpoint(self.folder))

  def test_killed(self):
    """What a killed save left is removed before anything else happens."""
    self.save(4)
    left = self.folder / '6.orbax-checkpoint-tmp-0'
    (left / 'state').mkdir(parents=True)
    with self.open() as saved:
      self.assertFalse(left.exists())
      self.assertEqual(saved.latest_step(), 4)

  @parameterized.parameters(
    ({'seed': 1}, 'seed is 0 there and 1 here'),
    ({'extra': 'x'}, "extra is None there and 'x' here"),
  )
  def test_other_run(self, changes, message):
    self.save(2)
    with self.open(**changes) as saved:
      with self.assertRaisesRegex(UserError, f'2 is of another run: {message}'):
        saved.check(2)

  @parameterized.parameters('belongs_to/metadata', 'data/metadata', 'state/d')
  def test_damaged(self, name):
    self.save(2)
    path = self.folder / '2' / name
    for file in [path] if path.is_file() else path.iterdir():
      file.write_bytes(b'')
    with self.open() as saved:
      with self.assertRaisesRegex(
        UserError, '2: this checkpoint cannot be read'
      ):
        saved.check(2)
        self.restore(saved, 2, _state(4), 4)

  @parameterized.parameters(
    ('belongs_to', '[]'), ('belongs_to', None), ('data', None), ('state', None)
  )
  def test_incomplete(self, item, content):
    """A step that lacks an item, or whose item holds something else."""
    self.save(2)
    folder = self.folder / '2' / item
    if content is None:
      shutil.rmtree(folder)
    else:
      (folder / 'metadata').write_text(content)
    with self.open() as saved:
      with self.assertRaisesRegex(
        UserError, '/2: this checkpoint cannot be read .*; delete it to resume'
      ):
        saved.check(2)
        self.restore(saved, 2, _state(4), 4)

  @parameterized.parameters('state', 'belongs_to')
  def test_incomplete_for_export(self, item):
    self.save(2)
    shutil.rmtree(self.folder / '2' / item)
    abstract = jax.eval_shape(lambda: _state(4)).trainable
    with self.assertRaisesRegex(UserError, f'{self.folder}.* cannot be read'):
      step, _ = checkpoints.latest_checkpoint(self.folder)
      checkpoints.load_field(self.folder, step, 'trainable', abstract, None)

  def test_position_of_other_data(self):
    with (
      self.open() as saved,
      self.assertRaisesRegex(
        UserError, '/2: this checkpoint cannot be read .*; delete it to resume'
      ),
    ):
      with saved.reading(2):
        raise TypeError('of an iterator')

  def test_folder_is_a_file(self):
    self.folder.write_text('')
    for use in (self.open, lambda: checkpoints.latest_checkpoint(self.folder)):
      with self.assertRaisesRegex(
        UserError, f'^{self.folder}.*(exists|no complete)'
      ):
        use()

  def test_folder_that_cannot_be_created(self):
    """The error is raised at once, and no thread keeps the process alive."""
    with self.assertRaisesRegex(UserError, 'could not be written .*start over'):
      with self.open() as saved:
        self.folder.rmdir()
        self.folder.write_text('')
        saved.save(2, _state(4), {})
    self.assert_no_thread_waits()

  def test_full_disk(self):
    """What is there of the checkpoint goes; the previous one stays."""
    self.save(2)
    with jobs.full_disk() as fill:
      with self.assertRaisesRegex(UserError, 'make room.* resume from step 2'):
        with self.open() as saved:
          fill(100)
          saved.save(4, _state(4), {})
    self.assertEqual([path.name for path in self.folder.iterdir()], ['2'])

  def assert_no_thread_waits(self):
    """None of Orbax, that is; idle ones of asyncio end with the process."""
    kinds = [type(thread) for thread in threading.enumerate()]
    self.assertEmpty([k for k in kinds if k.__module__.startswith('orbax')])

  def test_parameters_that_cannot_be_written(self):
    self.folder.write_text('')
    with self.assertRaisesRegex(UserError, 'cannot be written .*; make room'):
      checkpoints.save_params(self.folder / 'params', {'w': jnp.ones(3)})
    self.assert_no_thread_waits()

  def test_parameters_without_metadata(self):
    checkpoints.save_params(self.folder, params := {'w': jnp.ones(3)})
    (self.folder / '_METADATA').unlink()
    with self.assertRaisesRegex(UserError, f'{self.folder} .*; convert the mo'):
      checkpoints.load_params(self.folder, jax.eval_shape(lambda: params), None)

  def test_error_completes_pending_saves(self):
    with self.assertRaisesRegex(ValueError, 'stop'):
      with self.open() as saved:
        saved.save(2, _state(4), {})
        raise ValueError('stop')
    self.assertEqual([path.name for path in self.folder.iterdir()], ['2'])

  @parameterized.parameters((0, 1), (1, 0))
  def test_config(self, every, keep):
    with self.assertRaisesRegex(UserError, 'must be above 0'):
      checkpoints.CheckpointConfig(every, keep)
