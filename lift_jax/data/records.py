"""Alignment records: which clip, which caption, which reward.

The published schema is a JSON list of `{"video", "caption", "score"}`. `video`
is a path below a root folder; other keys are allowed and not read. Files of
real clips may leave `score` out: their reward is 1 by definition, so that they
enter the loss as plain likelihood.

A record that cannot be used is never given a default score: it is an error
that names file, record and remedy, or, if asked for, a counted skip.
"""

from collections.abc import Sequence
import dataclasses
import json
import math
import pathlib
import stat
from typing import Any
import unicodedata

from lift_jax.errors import UserError

ON_BAD_RECORD = ('error', 'skip')

# Controls, lone surrogates, line and paragraph separators: no file name in
# earnest holds them, and they would break a one-line message.
_UNPRINTABLE = ('Cc', 'Cs', 'Zl', 'Zp')


@dataclasses.dataclass(frozen=True)
class AlignmentRecord:
  """One clip with its caption and reward.

  Attributes:
    video: path relative to the root, with '/' and without '.' parts.
    path: the same, absolute, with symbolic links resolved.
    caption: the text, as it stands in the file.
    reward: in [0, 1]; 1 for a real clip.
    is_real: whether it comes from a file of real clips.
    file: the JSON file, as the caller named it.
    index: position in that file, from 0.
  """

  video: str
  path: pathlib.Path
  caption: str
  reward: float
  is_real: bool
  file: str
  index: int

  @property
  def where(self) -> str:
    """For messages: 'alignment.json record 3 (videos/x.mp4)'."""
    return f'{_place(self.file, self.index)} ({self.video})'


@dataclasses.dataclass(frozen=True)
class ReadResult:
  """What `read_alignment` found.

  Attributes:
    records: in the order of the files, and of the records in each.
    skipped: (where, reason and remedy) of each record that was left out.
  """

  records: list[AlignmentRecord]
  skipped: list[tuple[str, str]]


class _Fault(Exception):
  """What is wrong with one record, and what mends it."""


@dataclasses.dataclass(frozen=True)
class _RepeatedKey:
  """Stands for an object that names one key twice."""

  key: str


def read_alignment(
  root: str | pathlib.Path,
  synthetic: Sequence[str],
  real: Sequence[str] = (),
  on_bad_record: str = 'error',
  require_files: bool = True,
) -> ReadResult:
  """Reads and checks alignment files.

  Args:
    root: the folder that `video` paths are relative to, and may not leave.
    synthetic: JSON files of scored clips, relative to the root or absolute.
    real: JSON files of real clips, likewise.
    on_bad_record: 'error' raises at the first bad record; 'skip' collects bad
      records. A file that cannot be read as a list is an error in both cases.
    require_files: whether each clip must exist; a run from cached latents may
      do without.

  Raises:
    UserError: a bad file or record, or no usable record at all.
  """
  if on_bad_record not in ON_BAD_RECORD:
    raise ValueError(
      f'on_bad_record is {on_bad_record!r}, not one of {ON_BAD_RECORD}'
    )
  root = pathlib.Path(root)
  if not root.is_dir():
    raise UserError(f'{root}: no such folder; set the data root to a folder')
  root = root.resolve()
  files = _files(root, synthetic, real)
  records, skipped, first_by_identity = [], [], {}
  for name, path, is_real in files:
    for index, item in enumerate(_load_list(name, path)):
      try:
        record = _record(root, item, is_real, name, index, require_files)
        identity = (record.path, record.caption)
        first = first_by_identity.setdefault(identity, record)
        if first is not record:
          raise _Fault(
            f'same video and caption as {first.where}; delete one of the two'
          )
      except _Fault as fault:
        where = _place(name, index)
        if on_bad_record == 'error':
          raise UserError(f'{where}: {fault}') from None
        skipped.append((where, str(fault)))
      else:
        records.append(record)
  if not records:
    names = ', '.join(name for name, _, _ in files)
    why = f'; the first skip: {": ".join(skipped[0])}' if skipped else ''
    raise UserError(
      f'{names}: no usable record of {len(skipped)}; list at least one clip'
      f'{why}'
    )
  return ReadResult(records, skipped)


def _place(file: str, index: int) -> str:
  return f'{file} record {index}'


def _files(
  root: pathlib.Path, synthetic: Sequence[str], real: Sequence[str]
) -> list[tuple[str, pathlib.Path, bool]]:
  """(name, path, is_real) of each JSON file, each listed once."""
  for names in (synthetic, real):
    if isinstance(names, str):
      raise UserError(f'{names}: give a list of alignment files, not a text')
  files, seen = [], {}
  for is_real, names in ((False, synthetic), (True, real)):
    for name in names:
      path = root / name
      identity = path.resolve()
      if identity in seen:
        raise UserError(
          f'{name}: listed twice (also as {seen[identity]}); list a file once, '
          'as synthetic or as real'
        )
      seen[identity] = str(name)
      files.append((str(name), path, is_real))
  if not files:
    raise UserError(
      f'{root}: no alignment file is named; list one as synthetic or real'
    )
  return files


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any] | _RepeatedKey:
  item = {}
  for key, value in pairs:
    if key in item:
      return _RepeatedKey(key)
    item[key] = value
  return item


def _load_list(name: str, path: pathlib.Path) -> list[Any]:
  """The list in a JSON file; its objects may be `_RepeatedKey`."""
  if not path.is_file():
    raise UserError(f'{name}: no such file at {path}; correct the file name')
  try:
    # Editors on Windows put a byte order mark in front.
    items = json.loads(
      path.read_text(encoding='utf-8-sig'), object_pairs_hook=_object
    )
  except json.JSONDecodeError as error:
    raise UserError(
      f'{name}: line {error.lineno} column {error.colno}: invalid JSON '
      f'({error.msg}); correct it there, often a comma too many or too few'
    ) from None
  except UnicodeDecodeError as error:
    raise UserError(
      f'{name}: byte {error.start} is not UTF-8; save the file as UTF-8'
    ) from None
  except (ValueError, RecursionError) as error:
    # A number with thousands of digits, or nesting without end.
    raise UserError(
      f'{name}: invalid JSON ({error}); write a list of records'
    ) from None
  except OSError as error:
    raise UserError(
      f'{name}: cannot be read ({error.strerror}); make it readable'
    ) from None
  if not isinstance(items, list):
    raise UserError(
      f'{name}: holds {_kind(items)}, not a list; write a list of objects '
      'with "video", "caption" and "score"'
    )
  return items


def _kind(value: Any) -> str:
  """What a JSON value is called."""
  if isinstance(value, _RepeatedKey | dict):
    return 'an object'
  if value is None or isinstance(value, bool):
    return json.dumps(value)
  return {list: 'a list', str: 'a text'}.get(type(value), 'a number')


def _record(
  root: pathlib.Path,
  item: Any,
  is_real: bool,
  file: str,
  index: int,
  require_files: bool,
) -> AlignmentRecord:
  if isinstance(item, _RepeatedKey):
    raise _Fault(f'the key {item.key!r} stands twice; keep one of them')
  if not isinstance(item, dict):
    raise _Fault(
      f'{_kind(item)}, not an object; write {{"video", "caption", "score"}}'
    )
  text = _text(item, 'video')
  caption = _text(item, 'caption')
  try:
    caption.encode()
  except UnicodeEncodeError:
    raise _Fault(
      'the caption holds half of a Unicode surrogate pair; write it again'
    ) from None
  video, path = _video(root, text, require_files)
  reward = _real_reward(item) if is_real else _reward(item)
  return AlignmentRecord(video, path, caption, reward, is_real, file, index)


def _text(item: dict[str, Any], key: str) -> str:
  if key not in item:
    raise _Fault(f'no "{key}"; add it')
  value = item[key]
  if not isinstance(value, str):
    raise _Fault(f'"{key}" is {_kind(value)}; write a text in quotes')
  if not value.strip():
    raise _Fault(f'"{key}" is empty; fill it in or delete the record')
  return value


def _reward(item: dict[str, Any]) -> float:
  if 'score' not in item:
    raise _Fault(
      'no "score"; score the clip, or list the file under real if its clips '
      'are real'
    )
  score = _number(item['score'])
  if not 0 <= score <= 1:  # also true of NaN, which Python's JSON lets in
    raise _Fault(f'"score" is {score:g}; give a number between 0 and 1')
  return score


def _real_reward(item: dict[str, Any]) -> float:
  score = _number(item.get('score', 1))
  if score != 1:
    raise _Fault(
      f'"score" is {score:g} but a real clip has reward 1; list the file '
      'under synthetic, or delete the score'
    )
  return score


def _number(value: Any) -> float:
  if isinstance(value, bool) or not isinstance(value, int | float):
    raise _Fault(
      f'"score" is {_kind(value)}; write a number between 0 and 1 without '
      'quotes'
    )
  try:
    return float(value)
  except OverflowError:
    return math.inf


def _video(
  root: pathlib.Path, text: str, require_files: bool
) -> tuple[str, pathlib.Path]:
  """The relative and the resolved path of a clip below the root."""
  remedy = 'give a path below the data root, such as "videos/x.mp4"'
  if any(unicodedata.category(char) in _UNPRINTABLE for char in text):
    raise _Fault(f'video {text!r} holds an unprintable character; {remedy}')
  if '\\' in text:
    raise _Fault(f'video {text!r} holds a backslash; separate folders by "/"')
  relative = pathlib.PurePosixPath(text)
  if relative.is_absolute():
    raise _Fault(f'video {text!r} is an absolute path; {remedy}')
  if '..' in relative.parts:
    raise _Fault(f'video {text!r} holds ".."; {remedy}')
  try:
    # RuntimeError: a loop of links, before Python 3.13.
    path = (root / relative).resolve()
    mode = path.stat().st_mode
  except (FileNotFoundError, NotADirectoryError):
    mode = None
  except (OSError, RuntimeError) as error:
    reason = getattr(error, 'strerror', None) or 'a loop of links'
    raise _Fault(
      f'video {text!r} cannot be looked up ({reason}); {remedy}'
    ) from None
  if not path.is_relative_to(root):
    raise _Fault(
      f'video {text!r} is a link that leads out of the data root; put the '
      'clip itself below the root'
    )
  if require_files and mode is None:
    raise _Fault(
      f'no video file {text!r} below the data root; put it there or delete '
      'the record'
    )
  if mode is not None and not stat.S_ISREG(mode):
    raise _Fault(f'video {text!r} is not a regular file; name an mp4 file')
  return str(relative), path
