"""Hashes of the files of a job, which are read again once they have changed.

  DIR/hashes.jsonl   hash of each file, and its signature at that time

A changed file has another size or time of change. Losing the list costs only
the time to make it again.
"""

from collections.abc import Mapping
import contextlib
import os
import pathlib
from typing import Any, Self

from lift_jax.runtime import storage
from lift_jax.runtime.files import file_sha256
from lift_jax.runtime.journal import Journal

NAME = 'hashes.jsonl'


class FileHashes:
  """The hashes of one job; `sha256` works inside of its context.

  Args:
    folder: of the list; the files in it are listed by their relative paths.
    host: index of this process.
  """

  def __init__(self, folder: pathlib.Path, host: int = 0):
    self._folder = folder
    self._journal = Journal(folder / NAME, _file, host)
    self._known: dict[str, dict[str, Any]] = {}

  def gather(self) -> None:
    """Merges the lists of all hosts; see `Journal.gather`."""
    self._journal.gather(())

  def sha256(self, path: pathlib.Path, *, read: bool = False) -> str:
    """SHA-256 of a file; thread-safe.

    Args:
      path: of the file.
      read: whether to read it even if it is as it was.

    Raises:
      OSError: the file cannot be read.
    """
    name = self._name(path)
    signature = storage.file_signature(path)
    known = self._known.get(name)
    if known and not read and known['signature'] == list(signature or ()):
      return known['sha256']
    digest = file_sha256(path)
    if signature is not None:
      line = {'file': name, 'signature': list(signature), 'sha256': digest}
      with contextlib.suppress(OSError):  # a full disk: it is read again
        self._journal.add(line)
    return digest

  def _name(self, path: pathlib.Path) -> str:
    if path.is_relative_to(self._folder):
      return path.relative_to(self._folder).as_posix()
    return str(path) if storage.is_remote(path) else os.path.abspath(path)

  def __enter__(self) -> Self:
    self._known = self._journal.read()
    self._journal.__enter__()
    return self

  def __exit__(self, *exception) -> None:
    self._journal.__exit__(*exception)


def _file(line: Mapping[str, Any]) -> str:
  """The file of a line, which is an error for lines of another kind."""
  if not line.keys() >= {'file', 'signature', 'sha256'}:
    raise ValueError('not the hash of a file')
  return line['file']
