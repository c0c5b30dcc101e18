"""Parameters and training states on disk, through Orbax.

A training run keeps `WORKDIR/checkpoints/STEP/`, each with the state of the
run, the position of the data iterator and a note of what it belongs to. Orbax
writes beside and renames, so a step either is whole or is not there.
"""

import contextlib
import dataclasses
import pathlib
from typing import Any, Self

import jax
import orbax.checkpoint as ocp

from lift_jax.errors import UserError
from lift_jax.weights import param_paths


@dataclasses.dataclass(frozen=True)
class CheckpointConfig:
  """When a run is saved.

  Attributes:
    every_steps: optimizer steps between two checkpoints.
    keep: how many of the last ones stay.
  """

  every_steps: int
  keep: int

  def __post_init__(self):
    if self.every_steps < 1 or self.keep < 1:
      raise UserError('checkpoint.every_steps and .keep must be above 0')


def _targets(abstract: Any, shardings: Any, dtype: Any = None) -> Any:
  """What Orbax shall restore: shapes, types and places."""
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
def _one_line(problem: str):
  """What Orbax says of a full disk or a damaged file, as one line."""
  try:
    yield
  except UserError:
    raise
  except (OSError, KeyError, ValueError, RuntimeError) as error:
    reason = str(error).strip().split('\n')[0]
    raise UserError(f'{problem} ({reason})') from error


def save_params(path: pathlib.Path, params: Any) -> None:
  """Writes a nested dict of arrays; every host must call it.

  Raises:
    UserError: the parameters cannot be written there.
  """
  with (
    _one_line(f'{path} cannot be written; make room, or choose another folder'),
    ocp.StandardCheckpointer() as checkpointer,
  ):
    checkpointer.save(path, params, force=True)
    checkpointer.wait_until_finished()


def load_params(
  path: pathlib.Path, abstract_params: Any, shardings: Any, dtype: Any = None
) -> Any:
  """Reads what `save_params` wrote, each host its own part.

  Raises:
    UserError: the parameters are of another model, or damaged.
  """
  with (
    _one_line(f'{path} cannot be read; convert the model again'),
    ocp.StandardCheckpointer() as checkpointer,
  ):
    stored = checkpointer.metadata(path).item_metadata
    if stored is None:
      raise UserError(f'{path} holds no parameters; convert the model again')
    stored = getattr(stored, 'tree', stored)
    _check_same(path, stored, abstract_params)
    if dtype is None:
      types = param_paths.flatten(stored)
      abstract_params = param_paths.map_named(
        lambda name, leaf: jax.ShapeDtypeStruct(leaf.shape, types[name].dtype),
        abstract_params,
      )
    return checkpointer.restore(
      path, _targets(abstract_params, shardings, dtype)
    )


def _open_run(folder: pathlib.Path) -> ocp.CheckpointManager:
  """The checkpoints of a run that may still be going on; only to read."""
  return ocp.CheckpointManager(
    folder,
    options=ocp.CheckpointManagerOptions(create=False),
    item_handlers={
      # Not the standard one, which restores a whole state or nothing.
      'state': ocp.PyTreeCheckpointHandler(),
      'data': ocp.JsonCheckpointHandler(),
      'belongs_to': ocp.JsonCheckpointHandler(),
    },
  )


def latest_of_run(folder: pathlib.Path) -> tuple[int, dict[str, Any]]:
  """The last whole step of a training run, and what it belongs to.

  Args:
    folder: that of `TrainCheckpoints`.

  Raises:
    UserError: it holds no whole checkpoint.
  """
  with (
    _one_line(f'{folder} cannot be read'),
    _open_run(folder) as manager,
  ):
    step = manager.latest_step()
    if step is None:
      raise UserError(
        f'{folder} holds no whole checkpoint; let the run save one first'
      )
    note = manager.restore(
      step, args=ocp.args.Composite(belongs_to=ocp.args.JsonRestore())
    )
    return step, note['belongs_to']


def load_of_run(
  folder: pathlib.Path,
  step: int,
  field: str,
  abstract_params: Any,
  shardings: Any,
) -> Any:
  """One field of a saved state alone, such as 'trainable' or 'ema'.

  Args:
    folder: that of `TrainCheckpoints`.
    step: one that is whole.
    field: of the state.
    abstract_params: what it holds.
    shardings: where to put it.

  Raises:
    UserError: it holds parameters of another shape, or is damaged.
  """
  with (
    _one_line(f'{folder}/{step} cannot be read'),
    _open_run(folder) as manager,
  ):
    stored = manager.item_metadata(step)['state'].tree
    _check_same(folder / str(step), stored[field], abstract_params)
    item = {field: _targets(abstract_params, shardings)}
    restored = manager.restore(
      step,
      args=ocp.args.Composite(
        state=ocp.args.PyTreeRestore(
          item=item,
          restore_args=ocp.checkpoint_utils.construct_restore_args(item),
          partial_restore=True,
        )
      ),
    )
    return restored['state'][field]


def _check_same(path: pathlib.Path, stored: Any, wanted: Any) -> None:
  shapes = [
    {name: tuple(leaf.shape) for name, leaf in param_paths.flatten(t).items()}
    for t in (stored, wanted)
  ]
  if shapes[0] != shapes[1]:
    names = shapes[0].keys() | shapes[1].keys()
    odd = sorted(n for n in names if shapes[0].get(n) != shapes[1].get(n))
    raise UserError(
      f'{path} holds another model: {odd[0]} has shape '
      f'{shapes[0].get(odd[0])} there, {shapes[1].get(odd[0])} here '
      f'({len(odd)} parameters differ)'
    )


class TrainCheckpoints:
  """The checkpoints of one run; use it as a context manager.

  Args:
    folder: made if it does not exist.
    config: when and how many.
    belongs_to: JSON-like; a checkpoint with another value is not restored.
  """

  def __init__(
    self,
    folder: pathlib.Path,
    config: CheckpointConfig,
    belongs_to: dict[str, Any],
  ):
    self.folder = folder
    self.config = config
    self.belongs_to = belongs_to
    self._manager = ocp.CheckpointManager(
      folder,
      options=ocp.CheckpointManagerOptions(
        max_to_keep=config.keep,
        enable_async_checkpointing=True,
        create=True,
        cleanup_tmp_directories=True,  # that a killed run was writing
      ),
    )

  def latest_step(self) -> int | None:
    """The last step that is whole, or None."""
    return self._manager.latest_step()

  def resume_step(self, num_steps: int) -> int | None:
    """The step to go on from in a run of `num_steps`, or None for a new run.

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
    """Whether a run that has made `step` steps is to be saved."""
    return step % self.config.every_steps == 0

  def save(self, step: int, state: Any, data_state: dict[str, Any]) -> None:
    """Starts to write; returns as soon as the arrays have left the devices.

    Raises:
      UserError: this step, or the one before, cannot be written.
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
          state=ocp.args.StandardSave(fields),
          data=ocp.args.JsonSave(data_state),
          belongs_to=ocp.args.JsonSave(self.belongs_to),
        ),
      )

  @contextlib.contextmanager
  def _writing(self):
    """A full disk or a lost mount, in one line."""
    try:
      yield
    except (OSError, ValueError, RuntimeError) as error:
      reason = str(error).strip().split('\n')[0]
      # The manager counts the step that failed; the folder does not.
      whole = ocp.utils.checkpoint_steps(self.folder)
      resume = f'goes on from step {max(whole)}' if whole else 'starts anew'
      raise UserError(
        f'{self.folder}: a checkpoint could not be written ({reason}); make '
        f'room and run the same command again, which {resume}'
      ) from error

  def check(self, step: int) -> None:
    """Raises UserError if the checkpoint of a step is of another run."""
    with self._reading(step):
      note = self._manager.restore(
        step, args=ocp.args.Composite(belongs_to=ocp.args.JsonRestore())
      )['belongs_to']
    for key in sorted(self.belongs_to.keys() | note.keys()):
      if self.belongs_to.get(key) != note.get(key):
        raise UserError(
          f'{self.folder}/{step} is of another run: {key} is '
          f'{note.get(key)!r} there and {self.belongs_to.get(key)!r} here; '
          'give another --workdir, or the config it was made with'
        )

  @contextlib.contextmanager
  def _reading(self, step: int):
    """A file that is gone or damaged, in one line."""
    try:
      yield
    except (OSError, ValueError, RuntimeError) as error:
      reason = str(error).strip().split('\n')[0]
      raise UserError(
        f'{self.folder}/{step}: this checkpoint cannot be read ({reason}); '
        'delete it, and the run goes on from the one before'
      ) from error

  def restore(
    self, step: int, abstract_state: Any, shardings: Any
  ) -> tuple[Any, dict[str, Any]]:
    """(state, data_state) of a step, laid out as `shardings`.

    Raises:
      UserError: the checkpoint cannot be read.
    """
    fields = {
      field.name: _targets(
        getattr(abstract_state, field.name), getattr(shardings, field.name)
      )
      for field in dataclasses.fields(abstract_state)
    }
    with self._reading(step):
      restored = self._manager.restore(
        step,
        args=ocp.args.Composite(
          state=ocp.args.StandardRestore(fields), data=ocp.args.JsonRestore()
        ),
      )
    return type(abstract_state)(**restored['state']), restored['data']

  def wait(self) -> None:
    """Returns once everything started is on disk, or raises UserError."""
    with self._writing():
      self._manager.wait_until_finished()

  def __enter__(self) -> Self:
    return self

  def __exit__(self, kind, *exception) -> None:
    """What was started still becomes whole, also after an error."""
    if kind is None:
      self.wait()
    else:
      # The error on its way says more than one of a save that it left behind.
      with contextlib.suppress(UserError):
        self.wait()
    self._manager.close()
