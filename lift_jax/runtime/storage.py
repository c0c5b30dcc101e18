"""Paths on disk and in buckets of Google Cloud Storage (gs://).

A bucket has no folders, renames, locks, links or appends. What it does well: an
object appears whole or not at all, and every reader sees it at once. So a file
is written locally and then uploaded; what grows is written as one object after
another (`Segments`), or again as a whole now and then (`Mirror`); and what only
reads or writes local files gets a local copy.

A path in a bucket is an `etils.epath.Path`. As it has the methods of
`pathlib.Path` that are used here, both are annotated as the latter. Its text
files are read with `read_text` below: it ignores encodings.
"""

from collections.abc import Iterator
import concurrent.futures
import contextlib
import functools
import hashlib
import io
import os
import pathlib
import shutil
import tempfile
import threading
from typing import Any, cast
import uuid

from lift_jax.errors import UserError

_SCHEME = 'gs'

# Key of the hash of an object's content in its metadata.
_SHA256 = 'sha256'

# Size in bytes and modification time in ns; of an object, its generation. A
# file with the same signature is assumed to be unchanged.
FileSignature = tuple[int, int]


def is_remote(path: str | os.PathLike[str]) -> bool:
  """Whether a path is in a bucket."""
  return os.fspath(path).startswith(f'{_SCHEME}://')


def to_path(text: str | os.PathLike[str]) -> pathlib.Path:
  """The path that a user gave: a local one, or gs://BUCKET/NAME.

  Raises:
    UserError: another scheme, a bucket that cannot be accessed, a missing
      library, a NUL, or `~` without a home folder.
  """
  text = os.fspath(text)
  if '\0' in text:
    raise UserError(f'{text!r}: a path cannot contain NUL; correct it')
  scheme, separator, rest = text.partition('://')
  if not separator:
    try:
      return pathlib.Path(text).expanduser()
    except RuntimeError as error:
      raise _impossible(text, error) from None
  if scheme != _SCHEME:
    raise UserError(
      f'{text}: {scheme}:// is not supported; give a local path, or one that '
      f'begins with {_SCHEME}://'
    )
  _check_bucket(rest.partition('/')[0])
  from etils import epath

  return cast(pathlib.Path, epath.Path(text))


def resolved(path: pathlib.Path) -> pathlib.Path:
  """The absolute path without symbolic links; a bucket has none.

  Raises:
    UserError: the links form a loop.
  """
  if is_remote(path):
    return path
  try:
    return path.resolve()
  except RuntimeError as error:
    raise _impossible(str(path), error) from None


def _impossible(text: str, error: RuntimeError) -> UserError:
  return UserError(f'{text}: {str(error).rstrip(".")}; write the full path')


def join(folder: pathlib.Path, name: str | os.PathLike[str]) -> pathlib.Path:
  """The path `name` in `folder`, or `name` itself if it is absolute."""
  name = os.fspath(name)
  if is_remote(name) or os.path.isabs(name):
    return to_path(name)
  return folder / name


@functools.cache
def _objects() -> Any:
  """The file system of all buckets, the same that epath uses."""
  try:
    import fsspec
    import gcsfs  # noqa: F401
    import google.cloud.storage  # noqa: F401
  except ImportError as error:
    raise UserError(
      f'paths that begin with {_SCHEME}:// need {error.name}; install it as '
      "pip install -e '.[gcs]'"
    ) from None
  # epath would read through TensorFlow where that is installed, whose errors
  # are of other types.
  os.environ['EPATH_USE_TF'] = 'false'
  # A cached listing would lack what other hosts have written since.
  fsspec.config.conf.setdefault('gcs', {})['use_listings_cache'] = False
  return fsspec.filesystem('gcs', finalize_on_close=True)


@contextlib.contextmanager
def _accessing(path: str, problem: str) -> Iterator[None]:
  """Turns any error into a UserError: the path, the problem and the reason."""
  try:
    yield
  except UserError:
    raise
  # gcsfs, aiohttp and google.auth raise their own kinds of errors.
  except Exception as error:
    reason = str(error).strip().split('\n')[0] or type(error).__name__
    raise UserError(f'{path} {problem} ({reason})') from error


@functools.cache
def _check_bucket(name: str) -> None:
  """Raises UserError if the objects of a bucket cannot be listed."""
  if not name:
    raise UserError(f'{_SCHEME}:// names no bucket; give {_SCHEME}://BUCKET')
  objects = _objects()
  with _accessing(
    f'{_SCHEME}://{name}',
    'cannot be accessed; check the name of the bucket, and that the account of '
    'this machine may list its objects',
  ):
    objects.call('GET', 'b/{}/o', name, maxResults=1)


def check_writable(folder: pathlib.Path) -> None:
  """Raises UserError if no object can be written to a folder of a bucket."""
  probe = folder / f'.{uuid.uuid4().hex}.partial'
  with _accessing(
    str(folder),
    'is not writable; let the account of this machine create and delete '
    'objects there',
  ):
    probe.write_bytes(b'')
    probe.unlink()


def children(folder: pathlib.Path) -> list[pathlib.Path]:
  """What a folder contains; in a bucket an empty folder does not exist."""
  try:
    return list(folder.iterdir())
  except FileNotFoundError:
    if is_remote(folder):
      return []
    raise


def read_text(
  path: pathlib.Path, encoding: str = 'utf-8', errors: str = 'strict'
) -> str:
  """`path.read_text(encoding, errors)`."""
  data = io.BytesIO(path.read_bytes())
  return io.TextIOWrapper(data, encoding=encoding, errors=errors).read()


def upload(local: pathlib.Path, path: pathlib.Path) -> None:
  """Writes an object, with the hash of its content as metadata."""
  with local.open('rb') as file:
    digest = hashlib.file_digest(file, 'sha256').hexdigest()
  _listings.pop(str(path.parent), None)
  _objects().put_file(
    str(local), str(path), metadata={_SHA256: digest}, consistency='md5'
  )


def uploaded_sha256(path: pathlib.Path) -> str | None:
  """The SHA-256 of an object that `upload` wrote; None for others.

  Raises:
    FileNotFoundError: there is no such object.
  """
  return _objects().info(str(path)).get('metadata', {}).get(_SHA256)


# Signatures of the objects in a folder, by name. A folder is listed once, as a
# request for each of a million clips would take hours.
_listings: dict[str, dict[str, FileSignature]] = {}
_listing_lock = threading.Lock()


def file_signature(path: pathlib.Path) -> FileSignature | None:
  """The signature of a file, or None if it does not exist."""
  if not is_remote(path):
    try:
      status = path.stat()
    except FileNotFoundError:
      return None
    return status.st_size, status.st_mtime_ns
  folder = str(path.parent)
  with _listing_lock:
    if folder not in _listings:
      _listings[folder] = _list(folder)
    return _listings[folder].get(path.name)


def _list(folder: str) -> dict[str, FileSignature]:
  try:
    found = _objects().ls(folder, detail=True)
  except FileNotFoundError:
    return {}
  return {
    info['name'].rpartition('/')[2]: (info['size'], int(info['generation']))
    for info in found
    if info['type'] == 'file'
  }


@contextlib.contextmanager
def local_file(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """A file, or a copy of an object that is removed at the end.

  If there is no such object, there is no such file either. Messages of a
  UserError name the object.
  """
  if not is_remote(path):
    yield path
    return
  with tempfile.TemporaryDirectory() as folder:
    local = pathlib.Path(folder) / f'object{path.suffix}'
    with contextlib.suppress(FileNotFoundError):
      _objects().get_file(str(path), str(local))
    try:
      yield local
    except UserError as error:
      raise UserError(str(error).replace(str(local), str(path))) from error


@contextlib.contextmanager
def uploaded_file(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """A local file to write, which becomes the object `path` at the end."""
  with tempfile.TemporaryDirectory() as folder:
    local = pathlib.Path(folder) / f'object{path.suffix}'
    yield local
    upload(local, path)


@contextlib.contextmanager
def local_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """A folder, or a copy of its objects that is removed at the end."""
  if not is_remote(path):
    yield path
    return
  with tempfile.TemporaryDirectory() as folder:
    local = pathlib.Path(folder) / path.name
    copy_folder(path, local)
    try:
      yield local
    except UserError as error:
      raise UserError(str(error).replace(str(local), str(path))) from error


@contextlib.contextmanager
def uploaded_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
  """A folder to write; for one in a bucket, a local one that is uploaded."""
  if not is_remote(path):
    yield path
    return
  with tempfile.TemporaryDirectory() as folder:
    local = pathlib.Path(folder) / path.name
    yield local
    copy_folder(local, path)


def copy_file(source: pathlib.Path, target: pathlib.Path) -> None:
  """Copies a file, from or to a bucket."""
  with local_file(source) as local:
    if is_remote(target):
      upload(local, target)
    else:
      shutil.copy2(local, target)


def copy_folder(source: pathlib.Path, target: pathlib.Path) -> None:
  """Copies a folder of files and folders, from or to a bucket."""
  if not is_remote(target):
    target.mkdir(parents=True, exist_ok=True)
  for path in source.iterdir():
    if path.is_dir():
      copy_folder(path, target / path.name)
    else:
      copy_file(path, target / path.name)


def remove_folder(path: pathlib.Path, keep: str = '') -> None:
  """Removes a folder, if it is there; in a bucket all of it but `keep`."""
  if not is_remote(path):
    shutil.rmtree(path, ignore_errors=True)
    return
  try:
    found = _objects().find(str(path))
  except FileNotFoundError:
    return
  kept = str(path / keep).removeprefix(f'{_SCHEME}://') if keep else ''
  if names := [name for name in found if name != kept]:
    _objects().rm(names)


# Local copies of objects, which are kept while this process runs.
_copies: dict[str, pathlib.Path] = {}
_copy_lock = threading.Lock()


@functools.cache
def _copies_folder() -> tempfile.TemporaryDirectory:
  return tempfile.TemporaryDirectory(prefix='lift_jax-')


def local_copy(path: pathlib.Path) -> pathlib.Path:
  """A file, or a copy of an object that is kept until the process ends.

  For files that are mapped into memory. Copies are in the folder for temporary
  files, see TMPDIR.

  Raises:
    FileNotFoundError: there is no such object.
  """
  if not is_remote(path):
    return path
  with _copy_lock:
    name = str(path)
    if name not in _copies:
      number = len(_copies)
      local = pathlib.Path(_copies_folder().name) / f'{number}{path.suffix}'
      _objects().get_file(name, str(local))
      _copies[name] = local
    return _copies[name]


class Segments:
  """Text that is appended to in a bucket, as one object after another.

  An object is written in a thread, at most one per second; it has all that was
  appended meanwhile. A killed process loses what it appended in the last
  second, or while the bucket could not be reached.

  Args:
    folder: of the objects.
    prefix: of their names.
    suffix: of their names.
  """

  def __init__(self, folder: pathlib.Path, prefix: str, suffix: str):
    self._folder, self._suffix = folder, suffix
    self._prefix = f'{prefix}{uuid.uuid4().hex[:8]}'
    self._number = 0
    self._texts: list[str] = []
    self._lock = threading.Lock()
    self._closing = threading.Event()
    self._pool = concurrent.futures.ThreadPoolExecutor(1)
    self._error: Exception | None = None

  def write(self, text: str) -> None:
    """Appends text.

    Raises:
      Exception: of the file system, if an earlier object was not written.
    """
    if self._error is not None:
      raise self._error
    with self._lock:
      self._texts.append(text)
      if len(self._texts) == 1:
        self._pool.submit(self._write_segment)

  def _write_segment(self) -> None:
    with self._lock:
      texts, self._texts = self._texts, []
    name = f'{self._prefix}-{self._number:08}{self._suffix}'
    self._number += 1
    try:
      (self._folder / name).write_bytes(''.join(texts).encode())
    except Exception as error:  # raised in the thread that appends
      self._error = error
    self._closing.wait(1)

  def close(self) -> None:
    """Writes the rest; raises as `write` does."""
    self._closing.set()
    self._pool.shutdown()
    if self._error is not None:
      raise self._error


class Mirror:
  """A folder whose files are written locally, and copied to a bucket by `sync`.

  For libraries that append to files. A folder on disk is its own mirror.

  Attributes:
    local: the local folder.
  """

  def __init__(self, folder: pathlib.Path):
    self._folder = folder
    self._temporary = None
    self.local = folder
    if is_remote(folder):
      self._temporary = tempfile.TemporaryDirectory()
      self.local = pathlib.Path(self._temporary.name)
    self._uploaded: dict[pathlib.Path, FileSignature | None] = {}

  def sync(self) -> None:
    """Uploads the files that have changed since the last call."""
    if self._temporary is None:
      return
    for path in sorted(self.local.rglob('*')):
      signature = file_signature(path)
      if path.is_file() and self._uploaded.get(path) != signature:
        upload(path, self._folder / path.relative_to(self.local).as_posix())
        self._uploaded[path] = signature

  def close(self) -> None:
    """Uploads, and removes the local folder of a bucket."""
    self.sync()
    if self._temporary is not None:
      self._temporary.cleanup()
