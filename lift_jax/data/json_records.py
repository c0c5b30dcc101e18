"""Files of JSON records: what is read and checked alike for every kind.

A file that cannot be read is a `UserError`. A record that cannot be used is a
`RecordFault`, of which `BadRecords` makes an error that names file, record and
remedy or, if asked for, a counted skip.
"""

from collections.abc import Sequence
import dataclasses
import json
import pathlib
import stat
from typing import Any, Generic, TypeVar
import unicodedata

from lift_jax.errors import UserError

ON_BAD_RECORD = ('error', 'skip')

# Controls, lone surrogates, line and paragraph separators: no file name in
# earnest holds them, and they would break a one-line message.
_UNPRINTABLE = ('Cc', 'Cs', 'Zl', 'Zp')

_Record = TypeVar('_Record')


class RecordFault(Exception):
  """What is wrong with one record, and what mends it."""


@dataclasses.dataclass(frozen=True)
class RepeatedKey:
  """Stands for an object that names one key twice."""

  key: str


@dataclasses.dataclass(frozen=True)
class ReadResult(Generic[_Record]):
  """What a reader found.

  Attributes:
    records: in the order of the files, and of the records in each.
    skipped: (where, reason and remedy) of each record that was left out.
  """

  records: list[_Record]
  skipped: list[tuple[str, str]]


class BadRecords:
  """What becomes of bad records: the first is an error, or all are skipped.

  Attributes:
    skipped: (where, reason and remedy) of each record that was left out.
  """

  def __init__(self, on_bad_record: str):
    """`on_bad_record` is one of `ON_BAD_RECORD`; else a ValueError."""
    if on_bad_record not in ON_BAD_RECORD:
      raise ValueError(
        f'on_bad_record is {on_bad_record!r}, not one of {ON_BAD_RECORD}'
      )
    self._is_error = on_bad_record == 'error'
    self.skipped = []

  def add(self, file: str, index: int, fault: RecordFault):
    """Raises the fault as a UserError, or takes note of it."""
    where = place(file, index)
    if self._is_error:
      raise UserError(f'{where}: {fault}') from None
    self.skipped.append((where, str(fault)))

  def result(
    self, records: list[_Record], files: Sequence[str]
  ) -> ReadResult[_Record]:
    """The result of reading `files`; a UserError if no record is left."""
    if not records:
      why = (
        f'; the first skip: {": ".join(self.skipped[0])}'
        if self.skipped
        else ''
      )
      raise UserError(
        f'{", ".join(files)}: no usable record of {len(self.skipped)}; list at '
        f'least one clip{why}'
      )
    return ReadResult(records, self.skipped)


def place(file: str, index: int) -> str:
  """What messages call a record: 'alignment.json record 3'."""
  return f'{file} record {index}'


def data_root(root: str | pathlib.Path) -> pathlib.Path:
  """The folder that paths in records are relative to, resolved."""
  root = pathlib.Path(root)
  if not root.is_dir():
    raise UserError(f'{root}: no such folder; set the data root to a folder')
  return root.resolve()


def find_files(
  root: pathlib.Path, names: Sequence[str], once: str = 'list a file once'
) -> list[pathlib.Path]:
  """Where the named files are: relative to the root, or absolute.

  Raises:
    UserError: a file is named twice, with the remedy `once`.
  """
  paths, seen = [], {}
  for name in names:
    path = root / name
    identity = path.resolve()
    if identity in seen:
      raise UserError(
        f'{name}: listed twice (also as {seen[identity]}); {once}'
      )
    seen[identity] = str(name)
    paths.append(path)
  return paths


def read_text(name: str, path: pathlib.Path) -> str:
  """The text of a UTF-8 file, with or without a byte order mark.

  Editors on Windows put that mark in front.

  Args:
    name: what messages call the file.
    path: where it is.
  """
  if not path.is_file():
    raise UserError(f'{name}: no such file at {path}; correct the file name')
  try:
    return path.read_text(encoding='utf-8-sig')
  except UnicodeDecodeError as error:
    raise UserError(
      f'{name}: byte {error.start} is not UTF-8; save the file as UTF-8'
    ) from None
  except OSError as error:
    raise UserError(
      f'{name}: cannot be read ({error.strerror}); make it readable'
    ) from None


def parse_json(name: str, text: str, wanted: str, first_line: int = 1) -> Any:
  """The value that a JSON text holds; its objects may be `RepeatedKey`.

  Args:
    name: what messages call the file.
    text: all of the file, or the part of it that begins at `first_line`.
    wanted: what to write instead of a text that is beyond correction.
    first_line: counted from 1.
  """
  try:
    return json.loads(text, object_pairs_hook=_object)
  except json.JSONDecodeError as error:
    raise UserError(
      f'{name}: line {first_line + error.lineno - 1} column {error.colno}: '
      f'invalid JSON ({error.msg}); correct it there, often a comma too many '
      'or too few'
    ) from None
  except (ValueError, RecursionError) as error:
    # A number with thousands of digits, or nesting without end.
    raise UserError(
      f'{name}: line {first_line}: invalid JSON ({error}); write {wanted}'
    ) from None


def load_list(name: str, path: pathlib.Path, items: str) -> list[Any]:
  """The list in a JSON file; see `parse_list`."""
  return parse_list(name, read_text(name, path), items)


def parse_list(name: str, text: str, items: str) -> list[Any]:
  """The list that a JSON text holds; its objects may be `RepeatedKey`.

  Args:
    name: what messages call the file.
    text: all of the file.
    items: what the list should hold, for messages.
  """
  value = parse_json(name, text, f'a list of {items}')
  if not isinstance(value, list):
    raise UserError(
      f'{name}: holds {kind(value)}, not a list; write a list of {items}'
    )
  return value


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | RepeatedKey:
  item = {}
  for key, value in pairs:
    if key in item:
      return RepeatedKey(key)
    item[key] = value
  return item


def kind(value: Any) -> str:
  """What a JSON value is called."""
  if isinstance(value, RepeatedKey | dict):
    return 'an object'
  if value is None or isinstance(value, bool):
    return json.dumps(value)
  return {list: 'a list', str: 'a text'}.get(type(value), 'a number')


def as_object(item: Any, wanted: str) -> dict[str, Any]:
  """The item, if it is an object; `wanted` is what to write instead."""
  if isinstance(item, RepeatedKey):
    raise RecordFault(f'the key {item.key!r} stands twice; keep one of them')
  if not isinstance(item, dict):
    raise RecordFault(f'{kind(item)}, not an object; write {wanted}')
  return item


def text_field(item: dict[str, Any], key: str) -> str:
  """The text at `key`, which is not blank."""
  if key not in item:
    raise RecordFault(f'no "{key}"; add it')
  value = item[key]
  if not isinstance(value, str):
    raise RecordFault(f'"{key}" is {kind(value)}; write a text in quotes')
  if not value.strip():
    raise RecordFault(f'"{key}" is empty; fill it in or delete the record')
  return value


def check_unicode(text: str, subject: str):
  """Refuses a text that UTF-8 cannot hold; `subject` is what to call it."""
  try:
    text.encode()
  except UnicodeEncodeError:
    raise RecordFault(
      f'{subject} holds half of a Unicode surrogate pair; write it again'
    ) from None


def is_printable(text: str) -> bool:
  """Whether the text can stand in a file name and in a one-line message."""
  return not any(unicodedata.category(char) in _UNPRINTABLE for char in text)


def find_video(
  root: pathlib.Path, text: str, require_file: bool
) -> tuple[str, pathlib.Path]:
  """The relative and the resolved path of a clip below the root.

  Args:
    root: as `data_root` gives it.
    text: the path as the record has it.
    require_file: whether the clip must exist.
  """
  remedy = 'give a path below the data root, such as "videos/x.mp4"'
  if not is_printable(text):
    raise RecordFault(
      f'video {text!r} holds an unprintable character; {remedy}'
    )
  if '\\' in text:
    raise RecordFault(
      f'video {text!r} holds a backslash; separate folders by "/"'
    )
  relative = pathlib.PurePosixPath(text)
  if relative.is_absolute():
    raise RecordFault(f'video {text!r} is an absolute path; {remedy}')
  if '..' in relative.parts:
    raise RecordFault(f'video {text!r} holds ".."; {remedy}')
  try:
    # RuntimeError: a loop of links, before Python 3.13.
    path = (root / relative).resolve()
    mode = path.stat().st_mode
  except (FileNotFoundError, NotADirectoryError):
    mode = None
  except (OSError, RuntimeError) as error:
    reason = getattr(error, 'strerror', None) or 'a loop of links'
    raise RecordFault(
      f'video {text!r} cannot be looked up ({reason}); {remedy}'
    ) from None
  if not path.is_relative_to(root):
    raise RecordFault(
      f'video {text!r} is a link that leads out of the data root; put the '
      'clip itself below the root'
    )
  if require_file and mode is None:
    raise RecordFault(
      f'no video file {text!r} below the data root; put it there or delete '
      'the record'
    )
  if mode is not None and not stat.S_ISREG(mode):
    raise RecordFault(f'video {text!r} is not a regular file; name an mp4 file')
  return str(relative), path
