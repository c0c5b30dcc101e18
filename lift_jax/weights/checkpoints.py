"""Orbax checkpoints of parameters and of training states.

A training run keeps `WORKDIR/checkpoints/STEP/`, each with the training state,
the state of the data iterator and the fingerprint of the run. Orbax writes to a
temporary name and renames, so that a step is either complete or absent.
"""

from collections.abc import Callable
import contextlib
import dataclasses
import pathlib
import time
from typing import Any, Self

import jax
import numpy as np
import orbax.checkpoint as ocp

from lift_jax.errors import UserError
from lift_jax.runtime import distributed, storage
from lift_jax.weights import param_paths

_FINGERPRINT = 'belongs_to'  # name of the fingerprint in a checkpoint

# Otherwise threads of Orbax would wait for a folder that cannot be created, and
# keep the process alive for five minutes after the error.
_ASYNC = ocp.AsyncOptions(create_directories_asynchronously=False)


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
  """When a run saves checkpoints.

  Attributes:
    every_steps: optimizer steps between two checkpoints.
    keep: number of latest checkpoints to keep.
  """

  every_steps: int
  keep: int

  def __post_init__(self):
    if self.every_steps < 1 or self.keep < 1:
      raise UserError('checkpoint.every_steps and .keep must be above 0')


def _targets(abstract: Any, shardings: Any, dtype: Any = None) -> Any:
  """Shapes, types and shardings of the arrays that Orbax should restore."""
  if shardings is None:
    device = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    shardings = jax.tree.map(lambda _: device, abstract)
  return jax.tree.map(
    lambda leaf, sharding: jax.ShapeDtypeStruct(
      leaf.shape, dtype or leaf.dtype, sharding=sharding
    ),
    abstract,
    shardings,
  )


@contextlib.contextmanager
def _one_line(problem: str, remedy: str):
  """Turns an error of Orbax, such as for a full disk, into a UserError."""
  try:
    yield
  except UserError:
    raise
  # Orbax does not check what it reads, so that damaged files raise any kind.
  except Exception as error:
    raise UserError(f'{problem} ({_reason(error)}); {remedy}') from error


def _reason(error: Exception) -> str:
  text = str(error).strip() or type(error).__name__
  return text.split('\n')[0]


def save_params(path: pathlib.Path, params: Any) -> None:
  """Writes a nested dict of arrays; every host must call it.

  Raises:
    UserError: the parameters cannot be written.
  """
  with (
    _one_line(f'{path} cannot be written', 'make room or use another folder'),
    ocp.StandardCheckpointer(async_options=_ASYNC) as checkpointer,
  ):
    checkpointer.save(path, params, force=True)
    checkpointer.wait_until_finished()


def load_params(
  path: pathlib.Path,
  abstract_params: Any,
  shardings: Any,
  dtype: Any = None,
  update: Callable[[str, jax.Array], jax.Array] | None = None,
) -> Any:
  """Reads what `save_params` wrote; each host reads its own shards.

  Args:
    path: of the parameters.
    abstract_params: nested dict of anything with a `shape`.
    shardings: nested dict like it; None for one device.
    dtype: of all parameters; None keeps the stored types.
    update: `update(name, array)` is kept in place of each array; the arrays are
      then read one by one.

  Raises:
    UserError: the parameters are of another model, or damaged.
  """
  with (
    _one_line(f'{path} cannot be read', 'convert the model again'),
    ocp.StandardCheckpointer() as checkpointer,
  ):
    stored = checkpointer.metadata(path).item_metadata
    if stored is None:
      raise UserError(f'{path} has no parameters; convert the model again')
    stored = getattr(stored, 'tree', stored)
    _check_same(path, stored, abstract_params)
    if dtype is None:
      types = param_paths.flatten(stored)
      abstract_params = param_paths.map_named(
        lambda name, leaf: jax.ShapeDtypeStruct(leaf.shape, types[name].dtype),
        abstract_params,
      )
    targets = _targets(abstract_params, shardings, dtype)
    if update is None:
      return checkpointer.restore(path, targets)
  return param_paths.map_named(
    lambda name, target: update(name, _load_one(path, name, targets)), targets
  )


def _load_one(path: pathlib.Path, name: str, targets: Any) -> jax.Array:
  """Reads one parameter of those that `save_params` wrote."""
  item, _ = param_paths.partition(targets, lambda other: other == name)
  with (
    _one_line(f'{path} cannot be read', 'convert the model again'),
    ocp.PyTreeCheckpointer() as checkpointer,
  ):
    restored = checkpointer.restore(
      path, _restore_args(item, partial_restore=True)
    )
  (array,) = jax.tree.leaves(restored)
  return array


def _open_manager(
  folder: pathlib.Path, options: ocp.CheckpointManagerOptions
) -> ocp.CheckpointManager:
  # Replicas share the writing of an array, and each slice takes a program of
  # its own: compiling these takes longer than to write a small array.
  arrays = ocp.type_handlers.ArrayHandler(
    min_slice_bytes_for_replica_parallel=2**20
  )
  types = ocp.type_handlers.create_type_handler_registry(
    (jax.Array, arrays), (np.ndarray, ocp.type_handlers.NumpyHandler())
  )
  return ocp.CheckpointManager(
    folder,
    options=options,
    item_handlers={
      # The standard handler could not restore a single field of the state.
      'state': ocp.PyTreeCheckpointHandler(type_handler_registry=types),
      'data': ocp.JsonCheckpointHandler(),
      _FINGERPRINT: ocp.JsonCheckpointHandler(),
    },
  )


def _open_run(folder: pathlib.Path) -> ocp.CheckpointManager:
  """Opens the checkpoints of a run, which may be in progress, for reading."""
  return _open_manager(folder, ocp.CheckpointManagerOptions(create=False))


def _restore_args(
  item: Any, partial_restore: bool = False
) -> ocp.args.PyTreeRestore:
  return ocp.args.PyTreeRestore(
    item=item,
    restore_args=ocp.checkpoint_utils.construct_restore_args(item),
    partial_restore=partial_restore,
  )


def _read_fingerprint(
  manager: ocp.CheckpointManager, step: int
) -> dict[str, Any]:
  items = ocp.args.Composite(**{_FINGERPRINT: ocp.args.JsonRestore()})
  fingerprint = manager.restore(step, args=items)[_FINGERPRINT]
  if not isinstance(fingerprint, dict):
    raise ValueError(f'{_FINGERPRINT} is {fingerprint!r}, not an object')
  return fingerprint


def has_checkpoint(folder: pathlib.Path) -> bool:
  """Whether a training run has saved a complete checkpoint in its folder."""
  return folder.is_dir() and bool(ocp.utils.checkpoint_steps(folder))


def latest_checkpoint(folder: pathlib.Path) -> tuple[int, dict[str, Any]]:
  """The latest step of a training run, and the run's fingerprint.

  Args:
    folder: that of `TrainCheckpoints`.

  Raises:
    UserError: there is no complete checkpoint.
  """
  with (
    _one_line(f'{folder} cannot be read', 'check the path'),
    _open_run(folder) as manager,
  ):
    step = manager.latest_step()
    if step is None:
      raise UserError(
        f'{folder} has no complete checkpoint; let the run save one first'
      )
    return step, _read_fingerprint(manager, step)


def load_field(
  folder: pathlib.Path,
  step: int,
  field: str,
  abstract_params: Any,
  shardings: Any,
) -> Any:
  """Loads a single field of a saved state, such as 'trainable' or 'ema'.

  Args:
    folder: that of `TrainCheckpoints`.
    step: a step with a complete checkpoint.
    field: of the state.
    abstract_params: shapes and types of the field.
    shardings: of the result.

  Raises:
    UserError: the field has other parameters or shapes, or is damaged.
  """
  with (
    _one_line(f'{folder}/{step} cannot be read', 'use another checkpoint'),
    _open_run(folder) as manager,
  ):
    stored = manager.item_metadata(step)['state'].tree
    _check_same(folder / str(step), stored[field], abstract_params)
    item = {field: _targets(abstract_params, shardings)}
    restored = manager.restore(
      step,
      args=ocp.args.Composite(state=_restore_args(item, partial_restore=True)),
    )
    return restored['state'][field]


def _check_same(path: pathlib.Path, stored: Any, wanted: Any) -> None:
  shapes = [
    {name: tuple(leaf.shape) for name, leaf in param_paths.flatten(t).items()}
    for t in (stored, wanted)
  ]
  if shapes[0] != shapes[1]:
    names = shapes[0].keys() | shapes[1].keys()
    differ = sorted(n for n in names if shapes[0].get(n) != shapes[1].get(n))
    name = differ[0]
    raise UserError(
      f'{path} is of another model: {name} has shape {shapes[0].get(name)} '
      f'there, {shapes[1].get(name)} here ({len(differ)} parameters differ); '
      'give the config of that model, or another folder'
    )


class TrainCheckpoints:
  """The checkpoints of one run; a context manager.

  Args:
    folder: created if it does not exist.
    config: when to save and how many to keep.
    fingerprint: JSON-like value that identifies the run; a checkpoint with
      another one is not restored.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    config: CheckpointConfig,
    fingerprint: dict[str, Any],
  ):
    self.folder = folder
    self.config = config
    self.fingerprint = fingerprint
    with _one_line(
      f'{folder}: no folder for checkpoints',
      'move it away, or give another --workdir',
    ):
      folder.mkdir(parents=True, exist_ok=True)  # raises if it is a file
      # Here, as Orbax would do it in a thread that outlives the manager.
      if distributed.is_primary():
        self._remove_partial()
      self._manager = _open_manager(
        folder,
        ocp.CheckpointManagerOptions(
          max_to_keep=config.keep,
          enable_async_checkpointing=True,
          async_options=_ASYNC,
          create=True,
        ),
      )

  def latest_step(self) -> int | None:
    """The latest step with a complete checkpoint, or None."""
    return self._manager.latest_step()

  def resume_step(self, num_steps: int) -> int | None:
    """The step to resume a run of `num_steps` from, or None for a new run.

    Raises:
      UserError: the checkpoint is of another run, or of a longer one.
    """
    latest = self.latest_step()
    if latest is None:
      return None
    self.check(latest)
    if latest > num_steps:
      raise UserError(
        f'{self.folder}/{latest} is past the {num_steps} steps asked for; '
        'raise train.steps or give another --workdir'
      )
    return latest

  def is_due(self, step: int) -> bool:
    """Whether to save after `step` optimizer steps."""
    return step % self.config.every_steps == 0

  def save(self, step: int, state: Any, data_state: dict[str, Any]) -> None:
    """Starts to write; returns once the arrays are copied from the devices.

    Raises:
      UserError: this checkpoint, or the previous one, cannot be written.
    """
    if step == self.latest_step():
      return
    fields = {
      field.name: getattr(state, field.name)
      for field in dataclasses.fields(state)
    }
    with self._writing():
      self._manager.save(
        step,
        args=ocp.args.Composite(
          state=ocp.args.PyTreeSave(fields),
          data=ocp.args.JsonSave(data_state),
          **{_FINGERPRINT: ocp.args.JsonSave(self.fingerprint)},
        ),
      )

  @contextlib.contextmanager
  def _writing(self):
    """Turns an error of Orbax while writing into a UserError."""
    try:
      yield
    except (OSError, ValueError, RuntimeError) as error:
      # Read from the folder, as the manager also lists the step that failed.
      is_there = self.folder.is_dir()
      steps = ocp.utils.checkpoint_steps(self.folder) if is_there else []
      start = f'resume from step {max(steps)}' if steps else 'start over'
      raise UserError(
        f'{self.folder}: a checkpoint could not be written ({_reason(error)}); '
        f'make room and run the same command again to {start}'
      ) from error

  def check(self, step: int) -> None:
    """Raises UserError if the checkpoint of a step is of another run."""
    with self.reading(step):
      saved = _read_fingerprint(self._manager, step)
    for key in sorted(self.fingerprint.keys() | saved.keys()):
      if self.fingerprint.get(key) != saved.get(key):
        raise UserError(
          f'{self.folder}/{step} is of another run: {key} is '
          f'{saved.get(key)!r} there and {self.fingerprint.get(key)!r} here; '
          'give another --workdir, or the config it was made with'
        )

  def reading(self, step: int) -> contextlib.AbstractContextManager[None]:
    """Turns any error meanwhile into one about the checkpoint of a step."""
    return _one_line(
      f'{self.folder}/{step}: this checkpoint cannot be read',
      'delete it to resume from the previous one',
    )

  def restore(
    self, step: int, abstract_state: Any, shardings: Any
  ) -> tuple[Any, dict[str, Any]]:
    """Restores (state, data_state) of a step, the state with `shardings`.

    Raises:
      UserError: the checkpoint cannot be read.
    """
    fields = {
      field.name: _targets(
        getattr(abstract_state, field.name), getattr(shardings, field.name)
      )
      for field in dataclasses.fields(abstract_state)
    }
    with self.reading(step):
      restored = self._manager.restore(
        step,
        args=ocp.args.Composite(
          state=_restore_args(fields), data=ocp.args.JsonRestore()
        ),
      )
    return type(abstract_state)(**restored['state']), restored['data']

  def wait(self) -> None:
    """Waits until all saves are on disk; raises UserError if one failed."""
    with self._writing():
      self._manager.wait_until_finished()

  def __enter__(self) -> Self:
    return self

  def __exit__(self, kind, *exception) -> None:
    """Completes pending saves, also after an error."""
    try:
      self.wait()
      self._manager.close()
    except UserError:
      if kind is None:  # otherwise the error being raised says more
        raise
    finally:
      # To make room on a full disk; in a bucket the next start has time for it.
      if distributed.is_primary() and not storage.is_remote(self.folder):
        self._remove_partial()

  def _remove_partial(self) -> None:
    """Removes what a killed run or a failed save has written.

    Writes that are under way may create files meanwhile, so it tries again.
    """
    for _ in range(20):
      paths = storage.children(self.folder) if self.folder.is_dir() else []
      partials = [path for path in paths if ocp.utils.is_tmp_checkpoint(path)]
      if not partials:
        return
      for partial in partials:
        storage.remove_folder(partial)
      time.sleep(0.1)
