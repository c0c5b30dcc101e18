"""Files and folders that appear whole or not at all, and their hashes."""

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
  """A path beside `path` to write to, renamed to it in the end.

  Each writer has a hidden file of its own. After an error it is removed, and a
  file that was at `path` stays.
  """
  # Without the name, which may be as long as the system allows.
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

  A folder that was at `path` is replaced; after an error it stays, and nothing
  is left next to it.

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
  """Writes UTF-8."""
  with atomic_path(path) as partial:
    partial.write_text(text, encoding='utf-8')


def write_json(path: pathlib.Path, value: Any) -> None:
  """Writes a JSON value; makes the folder where there is none."""
  path.parent.mkdir(parents=True, exist_ok=True)
  text = json.dumps(value, indent=2, ensure_ascii=False) + '\n'
  with atomic_path(path) as partial:
    # Half of a surrogate pair, which UTF-8 lacks, has the same escape in JSON.
    partial.write_text(text, encoding='utf-8', errors='backslashreplace')


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """Reads a JSON object.

  Raises:
    UserError: there is none.
  """
  try:
    value = json.loads(path.read_text(encoding='utf-8'))
  except FileNotFoundError:
    raise UserError(
      f'{path}: no such file; give the folder that holds it'
    ) from None
  except (OSError, ValueError) as error:
    raise UserError(f'{path}: not readable as JSON ({error})') from None
  if not isinstance(value, dict):
    raise UserError(f'{path}: not a JSON object')
  return value


def file_sha256(path: pathlib.Path) -> str:
  """Hash of the content of a file."""
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def folder_sha256(path: pathlib.Path) -> str:
  """Hash of the names and contents of the files of a folder."""
  digest = hashlib.sha256()
  for file in sorted(path.iterdir()):
    if file.is_file():
      digest.update(file.name.encode() + b'\0')
      digest.update(hashlib.sha256(file.read_bytes()).digest())
  return digest.hexdigest()


def json_sha256(value: Any, *, sort_keys: bool = False) -> str:
  """Hash of a JSON value, in which the order of keys counts unless sorted."""
  text = json.dumps(value, sort_keys=sort_keys)
  return hashlib.sha256(text.encode()).hexdigest()
