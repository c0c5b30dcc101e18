"""Files of a model folder beside its weights."""

from collections.abc import Iterator, Mapping
import contextlib
import hashlib
import json
import pathlib
import shutil
from typing import Any

from lift_jax.errors import UserError
from lift_jax.runtime import distributed


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """A JSON object, or UserError naming the file."""
  try:
    value = json.loads(path.read_text(encoding='utf-8'))
  except FileNotFoundError:
    raise UserError(
      f'{path}: no such file; give the folder of a whole model'
    ) from None
  except (OSError, ValueError) as error:
    raise UserError(f'{path}: not readable as JSON ({error})') from None
  if not isinstance(value, dict):
    raise UserError(f'{path}: not a JSON object')
  return value


def write_json(path: pathlib.Path, value: Mapping[str, Any]) -> None:
  """Writes a JSON object; makes its folder where there is none."""
  path.parent.mkdir(parents=True, exist_ok=True)
  text = json.dumps(value, indent=2, ensure_ascii=False)
  path.write_text(text + '\n', encoding='utf-8')


@contextlib.contextmanager
def writing_beside(target: pathlib.Path) -> Iterator[pathlib.Path]:
  """A folder for all hosts to fill, which becomes `target` once it is whole.

  A folder that is there is replaced then; after an error nothing is left.
  """
  partial = target.with_name(f'.{target.name}.partial')
  try:
    if distributed.is_primary():
      shutil.rmtree(partial, ignore_errors=True)
      partial.mkdir(parents=True)
    distributed.barrier(f'{partial} is there')
    yield partial
    distributed.barrier(f'{partial} is whole')
    if distributed.is_primary():
      shutil.rmtree(target, ignore_errors=True)
      partial.rename(target)
  except OSError as error:
    raise UserError(
      f'{target} cannot be written ({error}); make room, or choose another '
      'folder'
    ) from error
  finally:
    if distributed.is_primary():
      shutil.rmtree(partial, ignore_errors=True)
  distributed.barrier(f'{target} is written')


def files_hash(folder: pathlib.Path) -> str:
  """Hash of the names and contents of the files of a folder."""
  digest = hashlib.sha256()
  for path in sorted(folder.iterdir()):
    if path.is_file():
      digest.update(path.name.encode() + b'\0')
      digest.update(hashlib.sha256(path.read_bytes()).digest())
  return digest.hexdigest()
