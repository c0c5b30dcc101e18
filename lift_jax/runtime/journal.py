"""Journal of finished work items, one JSON line each, written during a job.

  DIR/NAME.jsonl         all lines
  DIR/.NAME-HOST.jsonl   the lines of the other hosts, while they run

An item is finished once its line is complete. A new run skips lines that were
cut by a kill, and takes over the files of hosts that were killed. In a bucket
every host writes many such files, .NAME-HOST-*.jsonl; see `storage.Segments`.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
import concurrent.futures
import contextlib
import json
import os
import pathlib
import threading
from typing import Any, NamedTuple, Self

from lift_jax.runtime import storage
from lift_jax.runtime.files import parse_json, write_text
from lift_jax.runtime.progress import tracked

_READERS = 16

Line = dict[str, Any]


class _Content(NamedTuple):
  """What a file contains.

  Attributes:
    lines: by key.
    is_merged: whether its text is just these lines.
  """

  lines: dict[str, Line]
  is_merged: bool


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
    self._host = host
    self._lock = threading.Lock()
    # What `path` contained in a state of the file.
    self._state: tuple[int, ...] | None = None
    self._kept = _Content({}, is_merged=False)

  def read(self) -> dict[str, Line]:
    """The lines of the file by key; the last one of each key counts.

    An unchanged file is not read again, so the lines must not be changed.
    """
    return dict(self._content().lines)

  def _content(self) -> _Content:
    state = _state(self.path)
    if state is None or state != self._state:
      texts = _split(self.path)
      lines = self._parse(tracked(texts, 'line'))
      # The text after the last line break is no line.
      is_merged = texts[-1:] == [''] and len(texts) == len(lines) + 1
      self._state, self._kept = state, _Content(lines, is_merged)
    return self._kept

  def _parse(self, texts: Iterable[str]) -> dict[str, Line]:
    lines = {}
    for text in texts:
      try:
        line = parse_json(text)
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
    content = self._content()
    lines = dict(content.lines)
    with concurrent.futures.ThreadPoolExecutor(_READERS) as pool:
      for found in pool.map(lambda part: self._parse(_split(part)), parts):
        lines |= found
    order = [key for key in keys if key in lines]
    order += sorted(lines.keys() - set(order))
    if content.is_merged and not parts and order == list(lines):
      return
    lines = {key: lines[key] for key in order}
    write_text(self.path, ''.join(map(_dump, lines.values())))
    self._state, self._kept = _state(self.path), _Content(lines, True)
    with concurrent.futures.ThreadPoolExecutor(_READERS) as pool:
      list(pool.map(lambda path: path.unlink(), parts))

  def add(self, line: Mapping[str, Any]) -> None:
    """Appends a line; thread-safe."""
    text = _dump(line)
    with self._lock:
      self._file.write(text)

  def __enter__(self) -> Self:
    if storage.is_remote(self.path):
      self._file = storage.Segments(
        self.path.parent, f'.{self.path.stem}-{self._host}-', '.jsonl'
      )
      return self
    self._file = open(  # noqa: SIM115
      self._part, 'a', buffering=1, encoding='utf-8'
    )
    return self

  def __exit__(self, *exception) -> None:
    if storage.is_remote(self.path):
      self._file.close()
      return
    # `add` flushes every line, and has already raised if the disk is full.
    with contextlib.suppress(OSError):
      self._file.close()


def _split(path: pathlib.Path) -> list[str]:
  """What is between the line breaks of a file; nothing if there is none."""
  try:
    # Not splitlines: texts may contain Unicode line separators.
    return storage.read_text(path, errors='replace').split('\n')
  except FileNotFoundError:
    return []


def _state(path: pathlib.Path) -> tuple[int, ...] | None:
  """Another one once a file has changed; None in a bucket or without a file.

  A file system on the network shows an opened file as it is now, but may report
  an earlier size and time of one that is not opened.
  """
  if storage.is_remote(path):
    return None
  try:
    with path.open('rb') as file:
      status = os.fstat(file.fileno())
  except FileNotFoundError:
    return None
  return status.st_ino, status.st_size, status.st_mtime_ns


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
