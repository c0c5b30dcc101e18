"""Reading and checks shared by all files of JSON records.

A file that cannot be read is a `UserError`. A record that cannot be used is a
`RecordError`, which `BadRecords` turns into a `UserError` that names file,
record and remedy or, if asked for, into a counted skip.
"""

from collections.abc import Iterator, Sequence
import dataclasses
import json
import pathlib
import re
from typing import Any, Generic, TypeVar
import unicodedata

from lift_jax.errors import UserError
from lift_jax.runtime import hub, storage

ON_BAD_RECORD = ('error', 'skip')

# Of files of JSON lines.
LINES_SUFFIX = '.jsonl'

# Controls, lone surrogates, line and paragraph separators: no sensible file
# name contains them, and they would break a one-line message.
_UNPRINTABLE = ('Cc', 'Cs', 'Zl', 'Zp')

_Record = TypeVar('_Record')


class RecordError(Exception):
  """What is wrong with one record, and how to fix it."""


@dataclasses.dataclass(frozen=True)
class DuplicateKey:
  """Marks a JSON object that has the same key twice."""

  key: str


@dataclasses.dataclass(frozen=True)
class ReadResult(Generic[_Record]):
  """The result of a reader.

  Attributes:
    records: in the order of the files, and of the records in each.
    skipped: (where, reason and remedy) of each skipped record.
  """

  records: list[_Record]
  skipped: list[tuple[str, str]]


class BadRecords:
  """Handles bad records: the first one raises, or all are skipped.

  Attributes:
    skipped: (where, reason and remedy) of each skipped record.
  """

  def __init__(self, on_bad_record: str):
    """Raises a ValueError unless `on_bad_record` is in `ON_BAD_RECORD`."""
    if on_bad_record not in ON_BAD_RECORD:
      raise ValueError(
        f'on_bad_record is {on_bad_record!r}, not one of {ON_BAD_RECORD}'
      )
    self._is_error = on_bad_record == 'error'
    self.skipped = []

  def add(self, file: str, place: str, error: RecordError):
    """Raises the error as a UserError, or lists the record as skipped."""
    where = location(file, place)
    if self._is_error:
      raise UserError(f'{where}: {error}') from None
    self.skipped.append((where, str(error)))

  def result(
    self, records: list[_Record], files: Sequence[str]
  ) -> ReadResult[_Record]:
    """The result of reading `files`; a UserError if no record is left."""
    if not records:
      first = (
        f'; the first one skipped: {": ".join(self.skipped[0])}'
        if self.skipped
        else ''
      )
      raise UserError(
        f'{", ".join(files)}: no usable record ({len(self.skipped)} skipped); '
        f'list at least one clip{first}'
      )
    return ReadResult(records, self.skipped)


def location(file: str, place: str) -> str:
  """Location of a record for messages: 'alignment.json record 3'.

  Args:
    file: as the caller named it.
    place: of the record in the file, as `parse_list` returns it.
  """
  return f'{file} {place}'


def find_files(
  root: pathlib.Path, names: Sequence[str], remedy: str = 'list a file once'
) -> list[pathlib.Path]:
  """Paths of the named files, which are relative to the root or absolute.

  Raises:
    UserError: a file is listed twice; the message ends with `remedy`.
  """
  paths, seen = [], {}
  for name in names:
    path = storage.join(root, name)
    resolved = storage.resolved(path)
    if resolved in seen:
      raise UserError(
        f'{name}: listed twice (also as {seen[resolved]}); {remedy}'
      )
    seen[resolved] = str(name)
    paths.append(path)
  return paths


def read_text(name: str, path: pathlib.Path) -> str:
  """Reads a UTF-8 file, with or without a byte order mark.

  Args:
    name: of the file in messages.
    path: of the file.
  """
  if not path.is_file():
    raise UserError(f'{name}: no such file at {path}; correct the file name')
  try:
    return storage.read_text(path, 'utf-8-sig')
  except UnicodeDecodeError as error:
    raise UserError(
      f'{name}: byte {error.start} is not UTF-8; save the file as UTF-8'
    ) from None
  except OSError as error:
    raise UserError(
      f'{name}: cannot be read ({error.strerror}); make it readable'
    ) from None


def parse_json(name: str, text: str, wanted: str) -> Any:
  """Parses a JSON text; objects in the result may be `DuplicateKey`.

  Args:
    name: of the file in messages.
    text: the file.
    wanted: the expected value, for messages.
  """
  value, end = _parse_value(name, text, _skip_blanks(text, 0), wanted)
  rest = _skip_blanks(text, end)
  if rest < len(text):
    raise _invalid(name, json.JSONDecodeError('Extra data', text, rest))
  return value


def load_list(
  name: str, path: pathlib.Path, items: str
) -> list[tuple[str, Any]]:
  """Reads the records of a JSON file; see `parse_list`."""
  is_lines = path.suffix.lower() == LINES_SUFFIX
  return parse_list(name, read_text(name, path), items, is_lines)


def parse_list(
  name: str, text: str, items: str, is_lines: bool
) -> list[tuple[str, Any]]:
  """Parses a list of records; objects in it may be `DuplicateKey`.

  It is one of three, whatever the name of the file:

    a JSON list;
    an object whose "data" is a JSON list, and whose other keys are ignored;
    JSON lines: values of which each begins on a line of its own.

  Args:
    name: of the file in messages.
    text: the file.
    items: expected items of the list, for messages.
    is_lines: whether it is named like JSON lines. Then it may be blank, and a
      single value that is none of the first two is a list of one.

  Returns:
    (place, value) of each record. A place is 'record 3', counted from 0, in a
    list, and 'line 4', counted from 1, in JSON lines.
  """
  if is_lines and not text.strip():
    return []
  lines = _parse_lines(name, text, f'a list of {items}')
  if len(lines) > 1:
    return lines
  ((_, value),) = lines
  if isinstance(value, dict) and isinstance(value.get('data'), list):
    value = value['data']
  if isinstance(value, list):
    return [(f'record {index}', item) for index, item in enumerate(value)]
  if is_lines:
    return lines
  raise UserError(
    f'{name}: this is {json_type(value)}, not a list; write a list of {items}'
  )


def _parse_lines(name: str, text: str, wanted: str) -> list[tuple[str, Any]]:
  """(place, value) of one or more values, which line breaks separate."""
  lines = []
  start, line = _skip_blanks(text, 0), 1
  counted = 0  # so far, line breaks before this position
  while start < len(text) or not lines:
    line += text.count('\n', counted, start)
    counted = start
    value, end = _parse_value(name, text, start, wanted)
    lines.append((f'line {line}', value))
    start = _skip_blanks(text, end)
    if start < len(text) and '\n' not in text[end:start]:
      raise _invalid(name, json.JSONDecodeError('Extra data', text, start))
  return lines


def _skip_blanks(text: str, start: int) -> int:
  """The first position from `start` on that is not JSON's white space."""
  match = _BLANKS.match(text, start)
  assert match is not None  # it may be empty
  return match.end()


def _parse_value(
  name: str, text: str, start: int, wanted: str
) -> tuple[Any, int]:
  """The JSON value at a position of a text, and where it ends."""
  try:
    return _DECODER.raw_decode(text, start)
  except json.JSONDecodeError as error:
    raise _invalid(name, error) from None
  except (ValueError, RecursionError) as error:
    # A number with thousands of digits, or too deep nesting.
    line = text.count('\n', 0, start) + 1
    raise UserError(
      f'{name}: line {line}: invalid JSON ({error}); write {wanted}'
    ) from None


def _invalid(name: str, error: json.JSONDecodeError) -> UserError:
  return UserError(
    f'{name}: line {error.lineno} column {error.colno}: invalid JSON '
    f'({error.msg}); correct it there, often a missing or superfluous comma'
  )


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | DuplicateKey:
  item = dict(pairs)
  if len(item) < len(pairs):
    seen = set()
    for key, _ in pairs:
      if key in seen:
        return DuplicateKey(key)
      seen.add(key)
  return item


_DECODER = json.JSONDecoder(object_pairs_hook=_object)
_BLANKS = re.compile(r'[ \t\n\r]*')


def json_type(value: Any) -> str:
  """Name of the type of a JSON value, with its article."""
  if isinstance(value, DuplicateKey | dict):
    return 'an object'
  if value is None or isinstance(value, bool):
    return json.dumps(value)
  return {list: 'a list', str: 'a string'}.get(type(value), 'a number')


def as_object(item: Any, wanted: str) -> dict[str, Any]:
  """The item, if it is an object; `wanted` is for the message."""
  if isinstance(item, DuplicateKey):
    raise RecordError(f'duplicate key {item.key!r}; keep one of them')
  if not isinstance(item, dict):
    raise RecordError(f'{json_type(item)}, not an object; write {wanted}')
  return item


def text_field(item: dict[str, Any], key: str) -> str:
  """The string at `key`, which may not be blank."""
  if key not in item:
    raise RecordError(f'no "{key}"; add it')
  value = item[key]
  if not isinstance(value, str):
    raise RecordError(
      f'"{key}" is {json_type(value)}; write a string in quotes'
    )
  if not value.strip():
    raise RecordError(f'"{key}" is empty; fill it in or delete the record')
  return value


def integer_field(item: dict[str, Any], key: str, least: int) -> int:
  """The integer at `key`, which must be there and at least `least`."""
  if key not in item:
    raise RecordError(f'no "{key}"; add it')
  value = item[key]
  if isinstance(value, bool) or not isinstance(value, int) or value < least:
    raise RecordError(
      f'"{key}" is {value!r}; write an integer from {least} without quotes'
    )
  return value


def check_unicode(text: str, subject: str):
  """Rejects a text that UTF-8 cannot encode; `subject` is its name."""
  try:
    text.encode()
  except UnicodeEncodeError:
    raise RecordError(
      f'{subject} contains an unpaired Unicode surrogate; write it again'
    ) from None


def fetch_clips(root: pathlib.Path, items: Sequence[Any]) -> None:
  """Downloads the clips that records name, if the root is a data set's.

  Whatever is wrong with a record or its name is reported when it is read.

  Args:
    root: as of `ClipFolder`.
    items: the records of a file.
  """
  hub.fetch(
    root,
    [
      str(pathlib.PurePosixPath(name))
      for item in items
      for name in _clip_names(item)
      if is_printable(name)
    ],
  )


def _clip_names(item: Any) -> Iterator[str]:
  """The clips of a record, or the files of a line of a manifest."""
  if not isinstance(item, dict):
    return
  if isinstance(item.get('video'), str):
    yield item['video']
  if isinstance(item.get('videos'), list):
    yield from (name for name in item['videos'] if isinstance(name, str))
  if isinstance(item.get('files'), dict):
    yield from (name for name in item['files'] if name.endswith('.mp4'))


def is_printable(text: str) -> bool:
  """Whether the text is fit for a file name and a one-line message."""
  # The first is quick, but too strict: it is false for spaces such as U+3000.
  return text.isprintable() or not any(
    unicodedata.category(char) in _UNPRINTABLE for char in text
  )
