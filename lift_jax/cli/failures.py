"""What `lift` says of an error: one line on the user's, a report on its own."""

import errno
import importlib.metadata
import itertools
import pathlib
import platform
import tempfile
import traceback

from absl import flags

from lift_jax import __version__
from lift_jax.errors import UserError

# EX_SOFTWARE of sysexits.h: an internal error.
STATUS = 70

# Errors of the operating system that a user can fix, and how.
_ROOM = 'make room and run the same command again'
_PERMISSION = 'check who may write there, or choose another folder'
_DISK = 'check this disk, then run the same command again'
_MOVE = 'move it away, or choose another folder'
_REMEDIES = {
  errno.ENOSPC: _ROOM,
  errno.EDQUOT: _ROOM,
  errno.EFBIG: _ROOM,
  errno.EACCES: _PERMISSION,
  errno.EPERM: _PERMISSION,
  errno.EROFS: _PERMISSION,
  errno.EIO: _DISK,
  errno.ESTALE: _DISK,
  errno.EEXIST: _MOVE,
  errno.EISDIR: _MOVE,
  errno.ENOTDIR: _MOVE,
  errno.ENOTEMPTY: _MOVE,
  errno.ELOOP: 'remove the links that lead to one another',
  errno.ENAMETOOLONG: 'choose a shorter name',
  errno.EMFILE: 'raise the limit on open files (ulimit -n)',
  errno.ENFILE: 'raise the limit on open files of this machine',
}


# A value that a user gave, and that a message repeats, may be of any length.
_LONGEST = 1500


def one_line(error: BaseException) -> str | None:
  """The line about an error that a user can fix; None if it is not one.

  It is printable, and its middle is left out if it is too long to be read.
  """
  message = None
  if isinstance(error, UserError | flags.Error):
    message = str(error)
  elif isinstance(error, OSError) and error.errno in _REMEDIES:
    file = error.filename or 'a file'
    message = f'{file}: {error.strerror}; {_REMEDIES[error.errno]}'
  elif isinstance(error, MemoryError):
    message = (
      'this machine has too little memory; lower the batch size, or use more '
      'hosts'
    )
  elif _is_out_of_memory(error):
    message = (
      f'the devices have too little memory ({_first_line(error)}); lower the '
      'batch size, or see what lift plan recommends'
    )
  elif isinstance(error, ModuleNotFoundError) and not _is_ours(error):
    message = f'{error}; install it with pip'
  if message is None:
    return None
  line = ''.join(
    char if char.isprintable() else repr(char)[1:-1]
    for char in ' '.join(message.split())
  )
  if len(line) > _LONGEST:
    half = _LONGEST // 2
    line = f'{line[:half]} [...] {line[-half:]}'
  return line


def _is_out_of_memory(error: BaseException) -> bool:
  # By name: JAX is not imported if its import fails.
  is_of_xla = type(error).__name__ == 'JaxRuntimeError'
  return is_of_xla and 'RESOURCE_EXHAUSTED' in str(error)


def _is_ours(error: ModuleNotFoundError) -> bool:
  return error.name is None or error.name.split('.')[0] == 'lift_jax'


def _first_line(error: BaseException) -> str:
  return (str(error).strip() or type(error).__name__).splitlines()[0]


def report(job: str, argv: list[str], error: BaseException) -> str:
  """Writes the traceback of an internal error; returns what to print of it.

  Args:
    job: name of the job.
    argv: its flags; the log is written to the workdir that they name, or else
      to the folder of temporary files.
    error: of the job.
  """
  log = '\n'.join(
    [
      f'lift_jax {__version__}, jax {importlib.metadata.version("jax")}, '
      f'Python {platform.python_version()}, {platform.platform()}',
      f'lift {" ".join([job, *argv])}',
      '',
      ''.join(traceback.format_exception(error)),
    ]
  )
  summary = (
    f'lift {job}: internal error of lift_jax {__version__}: '
    f'{type(error).__name__}: {_first_line(error)}'
  )
  for folder in filter(None, (_workdir(argv), _temporary())):
    try:
      number, path = tempfile.mkstemp('.log', f'{job}_error_', folder)
      with open(number, 'w', encoding='utf-8', errors='replace') as file:
        file.write(log)
    except OSError:  # as for a full disk
      continue
    return f'{summary}\nPlease report it with its log: {path}'
  return f'{summary}\n{log}'


def _workdir(argv: list[str]) -> pathlib.Path | None:
  """The folder that --workdir names, if it is a local one."""
  for flag, following in itertools.pairwise([*argv, '']):
    name, equals, value = flag.lstrip('-').partition('=')
    if name == 'workdir':
      given = value if equals else following
      is_folder = given and pathlib.Path(given).is_dir()
      return pathlib.Path(given).absolute() if is_folder else None
  return None


def _temporary() -> str | None:
  """The folder of temporary files; None if there is none to write to."""
  try:
    return tempfile.gettempdir()
  except FileNotFoundError:
    return None
