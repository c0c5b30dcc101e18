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
from lift_jax.runtime import storage

# In a folder of a bucket while it is written: a reader must not use it.
_INCOMPLETE = '.incomplete'


@contextlib.contextmanager
def naming(path: pathlib.Path) -> Iterator[None]:
  """Lets an OSError name this file; one of a full disk names none itself."""
  try:
    yield
  except OSError as error:
    raise OSError(error.errno, error.strerror, str(path)) from error


@contextlib.contextmanager
def atomic_path(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """A path in the same folder to write to, renamed to `path` at the end.

  Each writer has a hidden file of its own. After an error it is removed, and an
  existing file at `path` is kept. For a path in a bucket it is a local file,
  which is uploaded at the end.

  Raises:
    OSError: it cannot be written; its `filename` is `path`.
  """
  if storage.is_remote(path):
    with storage.uploaded_file(path) as local:
      yield local
    return
  # Without `path.name`, which may be as long as the system allows.
  partial = path.with_name(f'.{uuid.uuid4().hex}.partial')
  try:
    yield partial
    os.replace(partial, path)
  except OSError as error:
    if error.filename not in (None, str(partial)):
      raise  # about a file that is read
    raise OSError(error.errno, error.strerror, str(path)) from error
  finally:
    partial.unlink(missing_ok=True)


def remove_partials(folder: pathlib.Path) -> None:
  """Deletes files that writers left in a folder when they were killed.

  Files below its subfolders stay. Nothing else may write to the folder. A
  bucket has none, as an object appears complete.
  """
  if storage.is_remote(folder):
    return
  for partial in folder.glob('.*.partial'):
    if partial.is_file():
      partial.unlink()


@contextlib.contextmanager
def atomic_folder(
  path: pathlib.Path, *, all_hosts: bool = True
) -> Iterator[pathlib.Path]:
  """A folder to fill, renamed to `path` once it is complete.

  An existing folder at `path` is replaced; after an error it is kept, and the
  partial folder is removed. A folder in a bucket is filled in place, and is
  incomplete until the end (see `is_complete`).

  Args:
    path: the folder to write.
    all_hosts: whether all hosts fill it; then every host must enter.

  Raises:
    UserError: a file cannot be written.
  """
  # It loads JAX, which much of what imports this module can do without.
  from lift_jax.runtime import distributed

  is_owner = distributed.is_primary() or not all_hosts

  def barrier(name: str) -> None:
    if all_hosts:
      distributed.barrier(name)

  if storage.is_remote(path):
    if is_owner:
      (path / _INCOMPLETE).write_bytes(b'')
      storage.remove_folder(path, keep=_INCOMPLETE)
    barrier(f'{path} is empty')
    yield path
    barrier(f'{path} is complete')
    if is_owner:
      (path / _INCOMPLETE).unlink()
    barrier(f'{path} is written')
    return
  partial = path.with_name(f'.{path.name}.partial')
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


def is_complete(folder: pathlib.Path) -> bool:
  """False for a folder in a bucket that `atomic_folder` has not finished."""
  return not storage.is_remote(folder) or not (folder / _INCOMPLETE).exists()


def check_complete(folder: pathlib.Path) -> None:
  """Raises UserError unless `is_complete`."""
  if not is_complete(folder):
    raise UserError(
      f'{folder} is incomplete, as the job that was writing it has not '
      'finished; run that job again, or delete the folder'
    )


def write_text(path: pathlib.Path, text: str) -> None:
  """Writes UTF-8 text atomically."""
  with atomic_path(path) as partial:
    partial.write_text(text, encoding='utf-8')


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes a JSON value atomically; creates the folder if it is missing.

  Each item of a list gets a line: `json` is slow where it indents, and the list
  may have tens of thousands of records.
  """
  path.parent.mkdir(parents=True, exist_ok=True)
  if isinstance(value, list):
    lines = [json.dumps(item, ensure_ascii=False) for item in value]
    text = '[' + ','.join(f'\n{line}' for line in lines) + '\n]\n'
  else:
    text = json.dumps(value, indent=2, ensure_ascii=False) + '\n'
  with atomic_path(path) as partial:
    # A lone surrogate cannot be UTF-8; its Python escape is valid JSON.
    partial.write_text(text, encoding='utf-8', errors='backslashreplace')


def parse_json(text: str | bytes, **options: Any) -> Any:
  """`json.loads`, of which every error is a ValueError."""
  try:
    return json.loads(text, **options)
  except RecursionError:
    raise ValueError('nested too deeply') from None


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """Reads a JSON object; a byte order mark at its start is skipped.

  Raises:
    UserError: the file is missing, unreadable, or not a JSON object.
  """
  try:
    value = parse_json(storage.read_text(path, 'utf-8-sig'))
  except FileNotFoundError:
    raise UserError(
      f'{path}: no such file; give the folder that contains it'
    ) from None
  except (OSError, ValueError) as error:
    raise UserError(
      f'{path}: not readable as JSON ({error}); correct or restore the file'
    ) from None
  if not isinstance(value, dict):
    raise UserError(f'{path}: not a JSON object; correct or restore the file')
  return value


def file_sha256(path: pathlib.Path) -> str:
  """SHA-256 of the content of a file; of an object, as it was uploaded."""
  if storage.is_remote(path):
    if digest := storage.uploaded_sha256(path):
      return digest
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
