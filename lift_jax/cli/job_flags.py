"""The flags that every job shares, and how a config file becomes a config."""

import dataclasses
import pathlib
from typing import Any

from absl import flags
import jax
import ml_collections
from ml_collections import config_flags

from lift_jax import config_lib, distributed
from lift_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class Invocation:
  """One call of a job.

  Attributes:
    config: the resolved config, an instance of the job's dataclass.
    source: the ConfigDict it came from, to be written beside the results.
    workdir: folder of everything that the job writes; it exists.
    multihost: whether to join the other hosts.
  """

  config: Any
  source: ml_collections.ConfigDict
  workdir: pathlib.Path
  multihost: bool


def parse(argv: list[str], config_class: type, job: str) -> Invocation:
  """Parses the flags of `lift JOB`.

  Raises:
    UserError: a missing flag, an unreadable config file, or a bad setting.
    absl.flags.Error: an unknown flag or a value that does not parse.
  """
  values = flags.FlagValues()
  config_flag = config_flags.DEFINE_config_file(
    'config', flag_values=values, sys_argv=[job, *argv]
  )
  workdir_flag = flags.DEFINE_string(
    'workdir', None, 'Folder of the results.', flag_values=values
  )
  multihost_flag = flags.DEFINE_bool(
    'multihost', False, 'Join the other hosts first.', flag_values=values
  )
  try:
    rest = values([job, *argv])[1:]
  except (OSError, AttributeError, TypeError) as error:
    # A file that is not there, or a field that the config has not.
    raise UserError(f'--config: {error}') from error
  if rest:
    raise UserError(f'{rest[0]!r} is not a flag; see lift {job} --help')
  if config_flag.value is None:
    raise UserError(f'--config=FILE.py is missing; see lift {job} --help')
  if not workdir_flag.value:
    raise UserError(f'--workdir=DIR is missing; see lift {job} --help')
  config = config_lib.resolve(config_flag.value, config_class)
  workdir = pathlib.Path(workdir_flag.value).expanduser().resolve()
  try:
    workdir.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UserError(f'--workdir={workdir}: {error.strerror}') from error
  return Invocation(config, config_flag.value, workdir, multihost_flag.value)


def write_config(call: Invocation, job: str) -> None:
  """Keeps the config of a run beside its results, on the primary host."""
  if distributed.is_primary():
    text = call.source.to_json_best_effort(indent=1, sort_keys=True)
    (call.workdir / f'{job}_config.json').write_text(text + '\n')


def use_compilation_cache() -> None:
  """Compiled programs outlive the process, unless the user chose a place."""
  if jax.config.jax_compilation_cache_dir is None:
    folder = pathlib.Path.home() / '.cache' / 'lift_jax' / 'compiled'
    jax.config.update('jax_compilation_cache_dir', str(folder))
