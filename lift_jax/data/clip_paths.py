"""Paths of clips in records: where they may lie, and how they are spelled.

A path in a data file may not leave the data root. One exception is the cache of
the Hugging Face Hub, where the files of a snapshot are links into the blobs of
the same repository:

  datasets--ORG--NAME/snapshots/REVISION/videos/x.mp4 -> ../../../blobs/HASH
"""

from collections.abc import Collection
import dataclasses
import os
import pathlib
import posixpath
import stat
from typing import NamedTuple, Self
import unicodedata

from lift_jax.data.json_records import RecordError, is_printable
from lift_jax.errors import UserError
from lift_jax.runtime import storage
from lift_jax.runtime.files import file_sha256

FOLLOW_LINKS = ('hub', 'none')

# Folders of the Hub's cache begin with the kind of their repository.
_HUB_KINDS = ('datasets--', 'models--', 'spaces--')

# Unicode forms of file names.
_FORMS = ('NFC', 'NFD')

_REMEDY = 'give a path below the data root, such as "videos/x.mp4"'


def clip_sha256(path: pathlib.Path, where: str) -> str:
  """SHA-256 of the content of a clip.

  Args:
    path: of the file.
    where: location of the record, for messages.

  Raises:
    UserError: the file cannot be read.
  """
  try:
    return file_sha256(path)
  except OSError as error:
    raise UserError(
      f'{where}: {path} cannot be read ({error.strerror}); restore it, or '
      'delete the record'
    ) from None


class _Folder(NamedTuple):
  """A folder of clips.

  Attributes:
    name: relative to the root; '' for the root itself.
    path: with symbolic links resolved.
  """

  name: str
  path: pathlib.Path


@dataclasses.dataclass(frozen=True)
class ClipFolder:
  """The data root: the folder that paths in records are relative to.

  Attributes:
    root: resolved.
    follow_links: links out of the root that may be followed: 'hub', those of
      a snapshot in the Hub's cache to its blobs; or 'none'.
    optional: names of clips that need not exist.
  """

  root: pathlib.Path
  follow_links: str
  optional: Collection[str] = ()
  # By their paths in records: clips are many, and their folders few.
  _folders: dict[str, _Folder] = dataclasses.field(
    default_factory=dict, init=False, repr=False, compare=False
  )

  @classmethod
  def open(
    cls,
    root: str | pathlib.Path,
    follow_links: str,
    optional: Collection[str] = (),
  ) -> Self:
    """The folder at `root`, which must exist."""
    root = storage.to_path(root)
    if not root.is_dir():
      raise UserError(f'{root}: no such folder; set the data root to a folder')
    return cls(storage.resolved(root), follow_links, optional)

  def find(self, text: str, require_file: bool) -> tuple[str, pathlib.Path]:
    """The name and the resolved path of a clip.

    The name is its path relative to the root, with '/' and in the Unicode form
    NFC: equal for all ways to write the path, and on all file systems.

    Args:
      text: the path in the record: relative to the root, or absolute.
      require_file: whether the clip must exist, unless it is optional.
    """
    folder_text, base = posixpath.split(self._normalized(text))
    if folder_text not in self._folders:
      self._folders[folder_text] = self._open_folder(text, folder_text)
    folder = self._folders[folder_text]
    name = unicodedata.normalize('NFC', posixpath.join(folder.name, base))
    if storage.is_remote(self.root):  # which has no links
      path = folder.path / base
      is_missing = storage.file_signature(path) is None
    else:
      path, is_missing = self._resolve(text, folder.path, base)
    if require_file and is_missing and name not in self.optional:
      raise RecordError(
        f'no video file {text!r} below the data root; put it there or delete '
        'the record'
      )
    return name, path

  def _resolve(
    self, text: str, folder: pathlib.Path, base: str
  ) -> tuple[pathlib.Path, bool]:
    """The resolved path of a clip on disk, and whether it is missing."""
    path = folder / _spelled_as_on_disk(folder, base)
    try:
      # RuntimeError: a loop of symbolic links, before Python 3.13.
      mode = path.lstat().st_mode
      if stat.S_ISLNK(mode):
        path = path.resolve()
        mode = path.stat().st_mode
    except (FileNotFoundError, NotADirectoryError):
      mode = None
    except (OSError, RuntimeError) as error:
      raise _no_access(text, error) from None
    if not path.is_relative_to(self.root):
      self._check_link(text, path)
    if mode is not None and not stat.S_ISREG(mode):
      raise RecordError(
        f'video {text!r} is not a regular file; name an mp4 file'
      )
    return path, mode is None

  def _normalized(self, text: str) -> str:
    """A path in a record without '.' and '//'."""
    if not is_printable(text):
      raise RecordError(
        f'video {text!r} contains an unprintable character; {_REMEDY}'
      )
    if '\\' in text:
      raise RecordError(
        f'video {text!r} contains a backslash; separate folders by "/"'
      )
    if '..' in text.split('/'):
      raise RecordError(f'video {text!r} contains ".."; {_REMEDY}')
    if storage.is_remote(self.root):
      text = text.removeprefix(f'{self.root}/')
    return posixpath.normpath(text)

  def _open_folder(self, text: str, folder_text: str) -> _Folder:
    """The folder of the clip `text`."""
    relative = pathlib.PurePosixPath(folder_text)
    if relative.is_absolute():
      for parent in (relative, *relative.parents):
        if os.path.realpath(parent) == str(self.root):
          relative = relative.relative_to(parent)
          break
      else:
        raise RecordError(
          f'video {text!r} is an absolute path, but not in the data root '
          f'{self.root}; {_REMEDY}'
        )
    path = self.root
    if storage.is_remote(path):
      path /= str(relative)
    else:
      for part in relative.parts:
        path /= _spelled_as_on_disk(path, part)
      try:
        path = path.resolve()
      except (OSError, RuntimeError) as error:
        raise _no_access(text, error) from None
    return _Folder('/'.join(relative.parts), path)

  def _check_link(self, text: str, path: pathlib.Path) -> None:
    """Raises RecordError unless a link to `path` may be followed."""
    remedy = 'put the clip itself below the root'
    if self._is_hub_blob(path):
      if self.follow_links == 'hub':
        return
      remedy += ", or set follow_links to 'hub'"
    raise RecordError(
      f'video {text!r} is a symbolic link to outside the data root; {remedy}'
    )

  def _is_hub_blob(self, path: pathlib.Path) -> bool:
    """Whether a file is a blob of the repository in whose snapshot we are."""
    return any(
      snapshot.parent.name == 'snapshots'
      and snapshot.parent.parent.name.startswith(_HUB_KINDS)
      and path.parent == snapshot.parent.parent / 'blobs'
      for snapshot in (self.root, *self.root.parents)
    )


def _no_access(text: str, error: Exception) -> RecordError:
  reason = getattr(error, 'strerror', None) or 'a loop of symbolic links'
  return RecordError(f'video {text!r} cannot be accessed ({reason}); {_REMEDY}')


def _spelled_as_on_disk(folder: pathlib.Path, name: str) -> str:
  """The name of a file, which may have another Unicode form on disk.

  Macs write NFD, other systems what they are given, usually NFC.
  """
  if name.isascii():
    return name
  forms = (name, *(unicodedata.normalize(form, name) for form in _FORMS))
  names = [
    form for form in dict.fromkeys(forms) if os.path.lexists(folder / form)
  ]
  if len({os.lstat(folder / form).st_ino for form in names}) > 1:
    raise RecordError(
      f'{folder} has two files named {name!r}, in different Unicode forms; '
      'rename one of them'
    )
  return names[0] if names else name
