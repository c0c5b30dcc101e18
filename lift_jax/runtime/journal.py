"""A list of finished work, a JSON line for each piece, written as a job goes.

  DIR/NAME.jsonl         all lines
  DIR/.NAME-HOST.jsonl   the lines of the other hosts, while they run

Work counts from the moment its line is whole. A run that starts passes over
lines that a kill has torn, and takes over those of hosts that were killed.
"""

from collections.abc import Callable, Mapping, Sequence
import contextlib
import json
import pathlib
import threading
from typing import Any, Self

from lift_jax.runtime.files import write_text

Line = dict[str, Any]


class Journal:
  """The lines of one job; use it as a context manager while work is done.

  Args:
    path: of the file, NAME.jsonl.
    key_of: what tells the pieces of work apart; it may raise ValueError,
      KeyError, TypeError or AttributeError for what is no line of this job.
    host: number of this process.
  """

  def __init__(
    self, path: pathlib.Path, key_of: Callable[[Line], str], host: int = 0
  ):
    self.path = path
    self._key_of = key_of
    self._part = path
    if host:
      self._part = path.with_name(f'.{path.stem}-{host}.jsonl')
    self._lock = threading.Lock()

  def read(self) -> dict[str, Line]:
    """Lines of the file by their keys, the last one of each."""
    return self._read(self.path)

  def _read(self, path: pathlib.Path) -> dict[str, Line]:
    lines = {}
    try:
      text = path.read_text(encoding='utf-8', errors='replace')
    except FileNotFoundError:
      return {}
    # Not splitlines: texts may hold line separators of Unicode.
    for row in text.split('\n'):
      try:
        line = json.loads(row)
        key = self._key_of(line)
      except (ValueError, KeyError, TypeError, AttributeError):
        continue
      lines[key] = line
    return lines

  def gather(self, keys: Sequence[str]) -> None:
    """Makes one file of all parts, in the order of `keys`.

    For the first host, while no other writes. Lines of earlier runs that are
    not among `keys` stay, at the end.
    """
    parts = sorted(self.path.parent.glob(f'.{self.path.stem}-*.jsonl'))
    lines = {}
    for path in (self.path, *parts):
      lines |= self._read(path)
    order = [key for key in keys if key in lines]
    order += sorted(lines.keys() - set(order))
    write_text(self.path, ''.join(_dump(lines[key]) for key in order))
    for path in parts:
      path.unlink()

  def add(self, line: Mapping[str, Any]) -> None:
    """Writes a line, whole; threads may call it."""
    text = _dump(line)
    with self._lock:
      self._file.write(text)
      self._file.flush()

  def __enter__(self) -> Self:
    self._file = open(self._part, 'a', encoding='utf-8')  # noqa: SIM115
    return self

  def __exit__(self, *exception) -> None:
    # A full disk has been told by `add`, which leaves nothing to be lost.
    with contextlib.suppress(OSError):
      self._file.close()


def _dump(line: Mapping[str, Any]) -> str:
  return json.dumps(line, ensure_ascii=False) + '\n'


def differences(
  there: Mapping[str, Any], here: Mapping[str, Any], prefix: str = ''
) -> list[tuple[str, Any, Any]]:
  """(name, value there, value here) of all that differs in nested dicts."""
  different = []
  for key in sorted(there.keys() | here.keys()):
    old, new = there.get(key), here.get(key)
    if isinstance(old, Mapping) and isinstance(new, Mapping):
      different += differences(old, new, f'{prefix}{key}.')
    elif old != new:
      different.append((prefix + key, old, new))
  return different
