"""A lock file for what only one job at a time may write, such as a workdir.

It names the process that holds it: host, id and start time. On that host, the
lock is stale if there is no such process any more. Elsewhere processes cannot
be looked up, and containers cannot see one another's, so the holder renews the
time of the file; a lock that is not renewed while another job watches it is
stale. Otherwise a job that lost its host could not be started again by a
scheduler. File locks of the system would do, but NFS and Lustre may be mounted
without them.
"""

from collections.abc import Iterator, Mapping
import contextlib
import json
import logging
import os
import pathlib
import socket
import threading
import time
from typing import Any
import uuid

from lift_jax.errors import UserError
from lift_jax.runtime import distributed, storage
from lift_jax.runtime.files import naming, parse_json

NAME = '.lock'

_SECONDS_BETWEEN_RENEWALS = 15.0
# Longer than a client of NFS keeps the time of a file by default (60 s).
_SECONDS_TO_WATCH = 90.0


@contextlib.contextmanager
def locked(path: pathlib.Path) -> Iterator[None]:
  """Holds the lock at `path` on the primary host; all hosts must enter.

  A path in a bucket cannot be locked.

  Raises:
    UserError: another job holds it.
  """
  with contextlib.ExitStack() as stack:
    error = None
    if distributed.is_primary() and not storage.is_remote(path):
      try:
        stack.enter_context(hold(path))
      except UserError as raised:
        error = raised
    distributed.wait_for_all(f'{path} is locked')
    distributed.raise_together(error)
    yield


@contextlib.contextmanager
def hold(path: pathlib.Path) -> Iterator[None]:
  """Holds the lock at `path`; creates its folder if it is missing.

  Raises:
    UserError: another job holds it.
  """
  owner = _this_process()
  path.parent.mkdir(parents=True, exist_ok=True)
  while not _create(path, owner):
    _remove_stale(path)
  done = threading.Event()
  threading.Thread(target=_renew, args=(path, done), daemon=True).start()
  try:
    yield
  finally:
    done.set()
    if _read(path) == owner:
      path.unlink(missing_ok=True)


def _this_process() -> dict[str, Any]:
  number = os.getpid()
  return {
    'host': _host(),
    'process': number,
    'started': _start_time(number),
    'id': uuid.uuid4().hex,  # a process may run several jobs
  }


def _host() -> str:
  """Identifies the processes that this one can look up.

  Containers may share a host name, but not a namespace of process ids. After a
  restart of the machine no process is left.
  """
  parts = [socket.gethostname()]
  for read in (
    lambda: pathlib.Path('/proc/sys/kernel/random/boot_id').read_text().strip(),
    lambda: os.readlink('/proc/self/ns/pid'),
  ):
    with contextlib.suppress(OSError):  # not Linux
      parts.append(read())
  return ' '.join(parts)


def _start_time(number: int) -> str | None:
  """When a process was started, in units of its host; None if there is none."""
  try:
    text = pathlib.Path(f'/proc/{number}/stat').read_text()
  except OSError:
    return None
  # proc_pid_stat(5): the first two of its fields end with a parenthesis.
  state, *fields = text.rpartition(')')[2].split()
  return None if state in 'ZX' else fields[18]  # zombies have ended


def _create(path: pathlib.Path, owner: Mapping[str, Any]) -> bool:
  """Creates the file, unless there is one."""
  with naming(path):
    try:
      with path.open('x', encoding='utf-8') as file:
        json.dump(owner, file)
    except FileExistsError:
      return False
    except OSError:  # such as for a full disk
      path.unlink(missing_ok=True)
      raise
  return True


def _read(path: pathlib.Path) -> dict[str, Any] | None:
  """What the lock names; {} if that is illegible, None if there is no lock."""
  try:
    owner = parse_json(path.read_text(encoding='utf-8'))
  except FileNotFoundError:
    return None
  except ValueError:  # not written yet, or never
    return {}
  return owner if isinstance(owner, dict) else {}


def _remove_stale(path: pathlib.Path) -> None:
  """Removes a lock whose process has ended.

  Raises:
    UserError: it is at work.
  """
  owner = _read(path)
  if owner is None:
    return
  started = owner.get('started')
  if owner.get('host') == _host() and started is not None:
    is_alive = _start_time(owner['process']) == started
  else:
    is_alive = _is_renewed(path)
  if is_alive:
    host = str(owner.get('host', 'another host')).split()[0]
    raise UserError(
      f'{path.parent}: another job is at work there (process '
      f'{owner.get("process", "unknown")} on {host}); wait for it, or give '
      f'another folder; if that job is gone, delete {path}'
    )
  # Renamed first: of several jobs that find it stale one removes it, and it may
  # be the new lock of a faster one.
  aside = path.with_name(f'.{uuid.uuid4().hex}.partial')
  try:
    path.rename(aside)
  except FileNotFoundError:
    return
  if _read(aside) == owner:
    aside.unlink()
  else:
    aside.rename(path)


def _is_renewed(path: pathlib.Path) -> bool:
  """Whether the time of the file changes while this job watches it."""
  logging.getLogger('lift').warning(
    '%s is of a job on another host; watching for %.0f s whether it is alive',
    path,
    _SECONDS_TO_WATCH,
  )
  end = time.monotonic() + _SECONDS_TO_WATCH
  first = _time_of(path)
  while time.monotonic() < end:
    time.sleep(min(1.0, _SECONDS_TO_WATCH / 10))
    last = _time_of(path)
    if last != first:
      return last is not None
  return False


def _time_of(path: pathlib.Path) -> int | None:
  """Modification time in ns; None if the file is gone."""
  try:
    # Opened, as NFS asks the server for the time of a file that is opened.
    with path.open('rb') as file:
      return os.fstat(file.fileno()).st_mtime_ns
  except FileNotFoundError:
    return None


def _renew(path: pathlib.Path, done: threading.Event) -> None:
  while not done.wait(_SECONDS_BETWEEN_RENEWALS):
    # Deleted by a user, or a server that is away for a while.
    with contextlib.suppress(OSError):
      os.utime(path)
