"""The flags that every job shares, and how a config file becomes a config."""

from collections.abc import Mapping, Sequence
import dataclasses
import difflib
import importlib.util
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
from lift_jax.runtime import distributed
from lift_jax.runtime.files import write_text

T = TypeVar('T')


@dataclasses.dataclass(frozen=True)
class Invocation:
  """One call of a job.

  Attributes:
    config: the resolved config, an instance of the job's dataclass.
    source: the ConfigDict it came from, to be written beside the results.
    workdir: folder of everything that the job writes; it exists.
    multihost: whether to join the other hosts.
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
  None empties a field that may be empty.

  Args:
    argv: the flags.
    config_class: the dataclass of the job's config.
    job: its name.
    default_config: of a job that can do without `--config`; a bare variant,
      such as `:smoke`, is one of this file.
    default_workdir: of a job that can do without `--workdir`.
    switches: flags without a value that only this job has, and what they do.

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
  file = values['config'].value
  if default_config and file.startswith(':'):
    file = default_config + file
  config, source = read_config(file, overrides, config_class)
  given = values['workdir'].value
  if '://' in given:
    raise UserError(
      f'--workdir={given}: results go to files, not to buckets; give a folder, '
      'which may be a bucket that is mounted'
    )
  workdir = pathlib.Path(given).expanduser().resolve()
  try:
    workdir.mkdir(parents=True, exist_ok=True)
  except OSError as error:
    raise UserError(f'--workdir={workdir}: {error.strerror}') from error
  if not os.access(workdir, os.W_OK):
    raise UserError(f'--workdir={workdir}: this folder is not writable')
  return Invocation(
    config,
    source,
    workdir,
    values['multihost'].value,
    frozenset(name for name in switches if values[name].value),
  )


def parse_flags(
  argv: Sequence[str],
  values: flags.FlagValues,
  job: str,
  needed: Mapping[str, str],
) -> list[str]:
  """Sets the flags of a job; returns what overrides fields of its config.

  Args:
    argv: the flags.
    values: with every flag of the job defined.
    job: its name.
    needed: flags that must be given, and what stands for their value.
  """
  is_override = [arg.lstrip('-').startswith('config.') for arg in argv]
  own = [arg for arg, yes in zip(argv, is_override, strict=True) if not yes]
  rest = values([job, *own])[1:]
  if rest:
    raise UserError(f'{rest[0]!r} is not a flag; see lift {job} --help')
  for name, value in needed.items():
    if not values[name].value:
      raise UserError(f'--{name}={value} is missing; see lift {job} --help')
  return [arg for arg, yes in zip(argv, is_override, strict=True) if yes]


def read_config(
  file: str, overrides: Sequence[str], config_class: type[T]
) -> tuple[T, ml_collections.ConfigDict]:
  """The config of a job, and the ConfigDict that it is resolved from.

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
  """The call of a job by another one.

  Args:
    section: config of the job; it is not changed.
    config_class: its dataclass.
    workdir: of the job; it is made if it is not there.
    settings: what takes the place of values of the section, such as
      {'model.path': FOLDER}.
  """
  source = ml_collections.ConfigDict(section.to_dict())
  source.update_from_flattened_dict(settings)
  config = config_lib.resolve(source, config_class)
  workdir.mkdir(parents=True, exist_ok=True)
  return Invocation(config, source, workdir)


def _load(text: str) -> ml_collections.ConfigDict:
  """What `get_config` of FILE.py returns, for 'FILE.py' or 'FILE.py:variant'.

  Raises:
    UserError: no such file, or whatever goes wrong in it, with its line.
  """
  name, *variant = text.split(':', 1)
  path = pathlib.Path(name).expanduser().resolve()
  if path.suffix != '.py' or not path.is_file():
    raise UserError(
      f'--config={text}: {path} is no config file; give the path of a .py file'
    )
  spec = importlib.util.spec_from_file_location('lift_config', path)
  module = importlib.util.module_from_spec(spec)
  try:
    spec.loader.exec_module(module)
    config = module.get_config(*variant)
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
  """The line of the config file where it went wrong."""
  if isinstance(error, SyntaxError) and error.filename == str(path):
    return error.lineno
  frames = traceback.extract_tb(error.__traceback__)
  lines = [frame.lineno for frame in frames if frame.filename == str(path)]
  return lines[-1] if lines else 1


def _override(
  config: ml_collections.ConfigDict, overrides: Sequence[str]
) -> None:
  """Sets fields of `config` as the command line says."""
  parsed, emptied = [], []
  for override in overrides:
    name, equals, value = override.lstrip('-').partition('=')
    section, field = _find(config, name)
    if not equals:
      raise UserError(f'--{name} has no value; write --{name}=VALUE')
    if value == 'None':
      emptied.append((section, field))
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
  for section, field in emptied:
    with section.ignore_type():
      section[field] = None


def _find(
  config: ml_collections.ConfigDict, name: str
) -> tuple[ml_collections.ConfigDict, str]:
  """The section of a field and its name there, for 'config.SECTION.FIELD'."""
  section, path = config, 'config'
  *sections, field = name.split('.')[1:]
  for key in (*sections, field):
    if not isinstance(section, ml_collections.ConfigDict):
      raise UserError(f'--{name}: {path} is a value, it has no fields')
    if key not in section:
      near = difflib.get_close_matches(key, section.keys(), 1)
      hint = f'did you mean {near[0]}?' if near else f'it has {list(section)}'
      raise UserError(
        f'--{name}: the config file sets no {key!r} in {path}; {hint}'
      )
    holder, section, path = section, section[key], f'{path}.{key}'
  return holder, field


def write_config(call: Invocation, job: str) -> None:
  """Keeps the config of a run beside its results, on the primary host."""
  if distributed.is_primary():
    text = call.source.to_json_best_effort(indent=1, sort_keys=True)
    write_text(call.workdir / f'{job}_config.json', text + '\n')


def use_compilation_cache() -> None:
  """Compiled programs outlive the process, unless the user chose a place."""
  if jax.config.jax_compilation_cache_dir is None:
    folder = pathlib.Path.home() / '.cache' / 'lift_jax' / 'compiled'
    jax.config.update('jax_compilation_cache_dir', str(folder))
