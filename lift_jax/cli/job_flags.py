"""Flags shared by all jobs, and loading of config files."""

from collections.abc import Iterator, Mapping, Sequence
import contextlib
import dataclasses
import difflib
import json
import logging
import os
import pathlib
import traceback
from typing import Any, TypeVar

from absl import flags
import jax
import ml_collections
from ml_collections.config_flags import config_flags

from lift_jax import config_lib
from lift_jax.errors import UserError
from lift_jax.runtime import distributed, lock, storage
from lift_jax.runtime.files import read_json, remove_partials, write_text
from lift_jax.runtime.journal import differences

T = TypeVar('T', bound=config_lib.Dataclass)


@dataclasses.dataclass(frozen=True)
class Invocation:
  """One invocation of a job.

  Attributes:
    config: the resolved config, an instance of the job's dataclass.
    source: the ConfigDict it was resolved from, to be saved with the results.
    workdir: existing folder for everything that the job writes.
    multihost: whether to initialise multi-host JAX.
    switches: names of the job's own flags that are set.
  """

  config: Any
  source: ml_collections.ConfigDict
  workdir: pathlib.Path
  multihost: bool = False
  switches: frozenset[str] = frozenset()


def parse(
  argv: list[str],
  config_class: type,
  job: str,
  *,
  default_config: str | None = None,
  default_workdir: str | None = None,
  switches: Mapping[str, str] | None = None,
) -> Invocation:
  """Parses the flags of `lift JOB`.

  `--config.SECTION.FIELD=VALUE` overrides a field of the config file; the value
  None is allowed for optional fields.

  Args:
    argv: the flags.
    config_class: the dataclass of the job's config.
    job: its name.
    default_config: if given, `--config` is optional; a bare variant, such as
      `:smoke`, is one of this file.
    default_workdir: if given, `--workdir` is optional.
    switches: boolean flags of this job only, with their help.

  Raises:
    UserError: a missing flag, an unreadable config file, or a bad setting.
    absl.flags.Error: an unknown flag or a value that does not parse.
  """
  values = flags.FlagValues()
  for name, default, text in (
    ('config', default_config, 'Config file.'),
    ('workdir', default_workdir, 'Results.'),
  ):
    flags.DEFINE_string(name, default, text, flag_values=values)
  switches = switches or {}
  for name, text in switches.items():
    flags.DEFINE_bool(name, False, text, flag_values=values)
  flags.DEFINE_bool(
    'multihost', False, 'Join the other hosts first.', flag_values=values
  )
  overrides = parse_flags(
    argv, values, job, {'config': 'FILE.py', 'workdir': 'DIR'}
  )
  file = values.config
  if default_config and file.startswith(':'):
    file = default_config + file
  config, source = read_config(file, overrides, config_class)
  workdir = storage.resolved(storage.to_path(values.workdir))
  _prepare_workdir(workdir)
  return Invocation(
    config,
    source,
    workdir,
    values.multihost,
    frozenset(name for name in switches if values[name].value),
  )


def _prepare_workdir(workdir: pathlib.Path) -> None:
  """Creates the folder; raises UserError if it is not writable."""
  if storage.is_remote(workdir):
    storage.check_writable(workdir)
    return
  try:
    workdir.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UserError(
      f'--workdir={workdir}: {error.strerror}; give another folder'
    ) from error
  if not os.access(workdir, os.W_OK):
    raise UserError(
      f'--workdir={workdir}: this folder is not writable; give another one'
    )


@contextlib.contextmanager
def start(
  argv: list[str], config_class: type, job: str
) -> Iterator[tuple[Invocation, logging.Logger]]:
  """Parses the flags of a job, joins the other hosts, locks the workdir.

  Use it as a context manager around the job.

  Files that a killed run left half written in the workdir are deleted.

  Raises:
    UserError: see `parse`, `distributed.initialize` and `lock.locked`.
  """
  call = parse(argv, config_class, job)
  distributed.initialize(call.multihost)
  logger = distributed.start_logging()
  use_compilation_cache()
  with lock.locked(call.workdir / lock.NAME):
    if distributed.is_primary():
      remove_partials(call.workdir)
    yield call, logger


def parse_flags(
  argv: Sequence[str],
  values: flags.FlagValues,
  job: str,
  needed: Mapping[str, str],
) -> list[str]:
  """Sets the flags of a job; returns the overrides of its config.

  Args:
    argv: the flags.
    values: with every flag of the job defined.
    job: its name.
    needed: required flags, with placeholders of their values for messages.
  """
  overrides = [arg for arg in argv if arg.lstrip('-').startswith('config.')]
  own = [arg for arg in argv if not arg.lstrip('-').startswith('config.')]
  rest = values([job, *own])[1:]
  if rest:
    raise UserError(f'{rest[0]!r} is not a flag; see lift {job} --help')
  for name, value in needed.items():
    if not values[name].value:
      raise UserError(f'--{name}={value} is missing; see lift {job} --help')
  return overrides


def read_config(
  file: str, overrides: Sequence[str], config_class: type[T]
) -> tuple[T, ml_collections.ConfigDict]:
  """Reads the config of a job; returns it resolved, and its ConfigDict.

  Args:
    file: 'FILE.py' or 'FILE.py:variant'.
    overrides: flags such as '--config.train.steps=100'.
    config_class: dataclass of the config.
  """
  source = _load(file)
  _override(source, overrides)
  return config_lib.resolve(source, config_class), source


def make_call(
  section: ml_collections.ConfigDict,
  config_class: type,
  workdir: pathlib.Path,
  settings: Mapping[str, Any],
) -> Invocation:
  """Makes the invocation of a job by another job; every host must call it.

  Args:
    section: config of the job; it is not modified.
    config_class: its dataclass.
    workdir: of the job; created if missing.
    settings: overrides of the section, such as {'model.path': FOLDER}.
  """
  source = ml_collections.ConfigDict(section.to_dict())
  source.update_from_flattened_dict(settings)
  config = config_lib.resolve(source, config_class)
  if distributed.is_primary():
    workdir.mkdir(parents=True, exist_ok=True)
    remove_partials(workdir)
  distributed.barrier(f'{workdir} exists')
  return Invocation(config, source, workdir)


def _load(text: str) -> ml_collections.ConfigDict:
  """Calls `get_config` of FILE.py, for 'FILE.py' or 'FILE.py:variant'.

  Raises:
    UserError: no such file, or any error in it, with its line.
  """
  name, *variant = text.split(':', 1)
  path = storage.resolved(storage.to_path(name))
  if path.suffix != '.py' or not path.is_file():
    raise UserError(
      f'--config={text}: {path} is not a config file; give the path of a .py '
      'file'
    )
  try:
    config = config_lib.load_module(path).get_config(*variant)
  except UserError as error:  # such as an unknown variant
    raise UserError(f'--config={text}: {error}') from error
  except Exception as error:
    raise UserError(
      f'{path}, line {_line(error, path)}: {type(error).__name__}: '
      f'{error}; correct the config file'
    ) from error
  if not isinstance(config, ml_collections.ConfigDict):
    raise UserError(
      f'{path}: get_config returns {type(config).__name__}, not a ConfigDict'
    )
  return config.lock()


def _line(error: Exception, path: pathlib.Path) -> int:
  """The line of the config file where the error occurred."""
  if isinstance(error, SyntaxError) and error.filename == str(path):
    return error.lineno or 1
  frames = traceback.extract_tb(error.__traceback__)
  lines = [frame.lineno or 1 for frame in frames if frame.filename == str(path)]
  return lines[-1] if lines else 1


def _override(
  config: ml_collections.ConfigDict, overrides: Sequence[str]
) -> None:
  """Sets fields of `config` from `--config.SECTION.FIELD=VALUE` flags."""
  parsed, set_to_none = [], []
  for override in overrides:
    name, equals, value = override.lstrip('-').partition('=')
    section, field = _find(config, name)
    if not equals:
      raise UserError(f'--{name} has no value; write --{name}=VALUE')
    if value == 'None':
      set_to_none.append((section, field))
    else:
      parsed.append(f'--{name}={value}')
  values = flags.FlagValues()
  config_flags.DEFINE_config_dict(
    'config', config, flag_values=values, sys_argv=['lift', *parsed]
  )
  try:
    values(['lift', *parsed])
  except config_flags.UnsupportedOperationError as error:
    raise UserError(f'{error}; set it in the config file') from error
  for section, field in set_to_none:
    with section.ignore_type():
      section[field] = None


def _find(
  config: ml_collections.ConfigDict, name: str
) -> tuple[ml_collections.ConfigDict, str]:
  """The section and the field name of 'config.SECTION.FIELD'."""
  section, path = config, 'config'
  *sections, field = name.split('.')[1:]
  for key in (*sections, field):
    if not isinstance(section, ml_collections.ConfigDict):
      raise UserError(
        f'--{name}: {path} is a value and has no fields; give --{path}=VALUE'
      )
    if key not in section:
      near = difflib.get_close_matches(key, section.keys(), 1)
      hint = f'did you mean {near[0]}?' if near else f'it has {list(section)}'
      raise UserError(
        f'--{name}: the config file sets no {key!r} in {path}; {hint}'
      )
    parent, section, path = section, section[key], f'{path}.{key}'
  return parent, field


def config_path(workdir: pathlib.Path, job: str) -> pathlib.Path:
  """Where a run of the job saves its config."""
  return workdir / f'{job}_config.json'


def write_config(call: Invocation, job: str) -> None:
  """Saves the config of a run with its results, on the primary host.

  What another run in the same workdir had otherwise is logged: some settings
  may change between runs, and a job that resumes then mixes both.
  """
  if not distributed.is_primary():
    return
  path = config_path(call.workdir, job)
  text = call.source.to_json_best_effort(indent=1, sort_keys=True)
  if path.is_file():
    logger = logging.getLogger('lift')
    for field, old, new in differences(read_json(path), json.loads(text)):
      logger.warning(
        '%s: %s is %r and was %r in the last run here', job, field, new, old
      )
  write_text(path, text + '\n')


def use_compilation_cache() -> None:
  """Enables the persistent compilation cache, unless the user configured it.

  Without a home folder that can be written to, as in containers, there is none.
  """
  # JAX adds its options to `config` as attributes, which no stub lists.
  # pyrefly: ignore[missing-attribute]
  if jax.config.jax_compilation_cache_dir is not None:
    return
  try:
    folder = pathlib.Path.home() / '.cache' / 'lift_jax' / 'compiled'
    folder.mkdir(parents=True, exist_ok=True)
  except (OSError, RuntimeError):  # RuntimeError: no home
    return
  if os.access(folder, os.W_OK):
    jax.config.update('jax_compilation_cache_dir', str(folder))
