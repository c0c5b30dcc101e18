"""Atomic writes of files and folders, JSON files, and hashes."""

from collections.abc import Iterator
import contextlib
import hashlib
import json
import os
import pathlib
import shutil
from typing import Any
import uuid

from lift_jax.errors import UserError
from lift_jax.runtime import distributed


@contextlib.contextmanager
def atomic_path(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """A path in the same folder to write to, renamed to `path` at the end.

  Each writer has a hidden file of its own. After an error it is removed, and an
  existing file at `path` is kept.
  """
  # Without `path.name`, which may be as long as the system allows.
  partial = path.with_name(f'.{uuid.uuid4().hex}.partial')
  try:
    yield partial
    os.replace(partial, path)
  finally:
    partial.unlink(missing_ok=True)


@contextlib.contextmanager
def atomic_folder(
  path: pathlib.Path, *, all_hosts: bool = True
) -> Iterator[pathlib.Path]:
  """A folder to fill, renamed to `path` once it is complete.

  An existing folder at `path` is replaced; after an error it is kept, and the
  partial folder is removed.

  Args:
    path: the folder to write.
    all_hosts: whether all hosts fill it; then every host must enter.

  Raises:
    UserError: a file cannot be written.
  """
  partial = path.with_name(f'.{path.name}.partial')
  is_owner = distributed.is_primary() or not all_hosts

  def barrier(name: str) -> None:
    if all_hosts:
      distributed.barrier(name)

  try:
    if is_owner:
      shutil.rmtree(partial, ignore_errors=True)
      partial.mkdir(parents=True)
    barrier(f'{partial} exists')
    yield partial
    barrier(f'{partial} is complete')
    if is_owner:
      shutil.rmtree(path, ignore_errors=True)
      partial.rename(path)
  except OSError as error:
    raise UserError(
      f'{path} cannot be written ({error}); make room, or choose another folder'
    ) from error
  finally:
    if is_owner:
      shutil.rmtree(partial, ignore_errors=True)
  barrier(f'{path} is written')


def write_text(path: pathlib.Path, text: str) -> None:
  """Writes UTF-8 text atomically."""
  with atomic_path(path) as partial:
    partial.write_text(text, encoding='utf-8')


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes a JSON value atomically; creates the folder if it is missing."""
  path.parent.mkdir(parents=True, exist_ok=True)
  text = json.dumps(value, indent=2, ensure_ascii=False) + '\n'
  with atomic_path(path) as partial:
    # A lone surrogate cannot be UTF-8; its Python escape is valid JSON.
    partial.write_text(text, encoding='utf-8', errors='backslashreplace')


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """Reads a JSON object; a byte order mark at its start is skipped.

  Raises:
    UserError: the file is missing, unreadable, or not a JSON object.
  """
  try:
    value = json.loads(path.read_text(encoding='utf-8-sig'))
  except FileNotFoundError:
    raise UserError(
      f'{path}: no such file; give the folder that contains it'
    ) from None
  except (OSError, ValueError) as error:
    raise UserError(f'{path}: not readable as JSON ({error})') from None
  if not isinstance(value, dict):
    raise UserError(f'{path}: not a JSON object')
  return value


def file_sha256(path: pathlib.Path) -> str:
  """SHA-256 of the content of a file."""
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def folder_sha256(path: pathlib.Path) -> str:
  """SHA-256 of the names and contents of the files of a folder."""
  digest = hashlib.sha256()
  for file in sorted(path.iterdir()):
    if file.is_file():
      digest.update(file.name.encode() + b'\0')
      digest.update(hashlib.sha256(file.read_bytes()).digest())
  return digest.hexdigest()


def json_sha256(value: Any, *, sort_keys: bool = False) -> str:
  """SHA-256 of a JSON value; depends on the order of keys unless sorted."""
  text = json.dumps(value, sort_keys=sort_keys)
  return hashlib.sha256(text.encode()).hexdigest()
