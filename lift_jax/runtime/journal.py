"""Journal of finished work items, one JSON line each, written during a job.

  DIR/NAME.jsonl         all lines
  DIR/.NAME-HOST.jsonl   the lines of the other hosts, while they run

An item is finished once its line is complete. A new run skips lines that were
cut by a kill, and takes over the files of hosts that were killed.
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
  """The journal of one job; `add` works inside of its context.

  Args:
    path: of the file, NAME.jsonl.
    key_of: the key of an item, from its line; it may raise ValueError,
      KeyError, TypeError or AttributeError for lines that are not of this job.
    host: index of this process.
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
    """The lines of the file by key; the last one of each key counts."""
    return self._read(self.path)

  def _read(self, path: pathlib.Path) -> dict[str, Line]:
    lines = {}
    try:
      text = path.read_text(encoding='utf-8', errors='replace')
    except FileNotFoundError:
      return {}
    # Not splitlines: texts may contain Unicode line separators.
    for json_text in text.split('\n'):
      try:
        line = json.loads(json_text)
        key = self._key_of(line)
      except (ValueError, KeyError, TypeError, AttributeError):
        continue
      lines[key] = line
    return lines

  def gather(self, keys: Sequence[str]) -> None:
    """Merges the files of all hosts into one, in the order of `keys`.

    Only the primary host may call it, while no host writes. Lines of earlier
    runs that are not among `keys` are kept, at the end.
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
    """Appends a line; thread-safe."""
    text = _dump(line)
    with self._lock:
      self._file.write(text)
      self._file.flush()

  def __enter__(self) -> Self:
    self._file = open(self._part, 'a', encoding='utf-8')  # noqa: SIM115
    return self

  def __exit__(self, *exception) -> None:
    # `add` flushes every line, and has already raised if the disk is full.
    with contextlib.suppress(OSError):
      self._file.close()


def _dump(line: Mapping[str, Any]) -> str:
  return json.dumps(line, ensure_ascii=False) + '\n'


def differences(
  old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = ''
) -> list[tuple[str, Any, Any]]:
  """(dotted key, old value, new value) of all differences of nested dicts."""
  found = []
  for key in sorted(old.keys() | new.keys()):
    old_value, new_value = old.get(key), new.get(key)
    if isinstance(old_value, Mapping) and isinstance(new_value, Mapping):
      found += differences(old_value, new_value, f'{prefix}{key}.')
    elif old_value != new_value:
      found.append((prefix + key, old_value, new_value))
  return found
