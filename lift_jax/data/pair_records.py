"""Pair records: which of two clips of one caption people preferred.

A file is a list of objects, one for each time that somebody compared a pair:

  {"caption": "a dog runs", "videos": ["videos/a.mp4", "videos/b.mp4"],
   "overall": "first",
   "dimensions": {"semantic": "same", "motion": "second"},
   "rater": "ana", ...}

"overall" and each of "dimensions" is "first", "second" or "same", after the
order of "videos". "dimensions" (of any names) and "rater" may be left out, and
so may "both", which says of a pair that is the "same" whether the clips are
both "good" or both "bad". All other keys are kept as they are. `lift annotate`
writes such files. Those of two public benchmarks are read, too; see
`benchmark_pairs`.
"""

import collections
from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import pathlib
from typing import Any

from lift_jax.data import benchmark_pairs
from lift_jax.data.clip_paths import ClipFolder
from lift_jax.data.json_records import (
  BadRecords,
  ReadResult,
  RecordError,
  as_object,
  check_unicode,
  fetch_clips,
  find_files,
  location,
  text_field,
)
from lift_jax.data.splits import normalize_caption
from lift_jax.errors import UserError
from lift_jax.runtime.progress import tracked

PREFERENCES = ('first', 'same', 'second')

# What both clips of a tie are.
TIES = ('good', 'bad')

_WANTED = '{"caption", "videos", "overall"}'
_KEYS = ('caption', 'videos', 'overall', 'dimensions', 'rater', 'both')


@dataclasses.dataclass(frozen=True)
class PairClip:
  """One of the two clips; see `PairRecord`."""

  video: str
  path: pathlib.Path
  caption: str
  where: str


@dataclasses.dataclass(frozen=True)
class PairRecord:
  """One comparison of two clips.

  Attributes:
    caption: of both.
    videos: the first and the second clip; see `clip_paths.ClipFolder.find`.
    paths: of their files.
    overall: one of `PREFERENCES`.
    dimensions: one of `PREFERENCES` by dimension; may be empty.
    rater: who compared them; '' if unknown.
    other: the other keys of the object.
    where: for messages: 'pairs.json record 3 (videos/a.mp4, videos/b.mp4)'.
    both: of a tie, one of `TIES`; '' if unknown.
  """

  caption: str
  videos: tuple[str, str]
  paths: tuple[pathlib.Path, pathlib.Path]
  overall: str
  dimensions: Mapping[str, str]
  rater: str
  other: Mapping[str, Any]
  where: str
  both: str = ''

  @property
  def key(self) -> tuple[str, frozenset[str]]:
    """Equal for all records about a pair, in either order."""
    return normalize_caption(self.caption), frozenset(self.videos)

  @property
  def clips(self) -> list[PairClip]:
    """The first and the second clip."""
    return [
      PairClip(video, path, self.caption, self.where)
      for video, path in zip(self.videos, self.paths, strict=True)
    ]


def read_pairs(
  root: str | pathlib.Path,
  files: Sequence[str],
  on_bad_record: str = 'error',
  require_files: bool = True,
  follow_links: str = 'hub',
) -> ReadResult[PairRecord]:
  """Reads and checks files of pairs.

  Args:
    root: the folder that `videos` are relative to, and may not leave.
    files: JSON, JSON lines or CSV; relative to the root or absolute.
    on_bad_record: 'error' raises at the first bad record; 'skip' collects bad
      records. A file that cannot be read as a list is an error in both cases.
    require_files: whether each clip must exist.
    follow_links: see `clip_paths.ClipFolder`.

  Raises:
    UserError: a bad file or record, or no usable record.
  """
  if isinstance(files, str):
    raise UserError(f'{files}: give a list of files of pairs, not a string')
  bad = BadRecords(on_bad_record)
  clips = ClipFolder.open(root, follow_links)
  records, first_votes = [], {}
  for name, path in zip(files, find_files(clips.root, files), strict=True):
    items = benchmark_pairs.load(str(name), path, f'objects with {_WANTED}')
    if require_files:
      fetch_clips(clips.root, [item for _, item in items])
    for place, item in tracked(items, 'record'):
      try:
        record = _record(clips, item, str(name), place, require_files)
        _check_one_vote(record, first_votes)
      except RecordError as error:
        bad.add(str(name), place, error)
      else:
        records.append(record)
  return bad.result(records, [str(name) for name in files])


def to_json(record: PairRecord) -> dict[str, Any]:
  """The object of a record in a file."""
  item: dict[str, Any] = {
    'caption': record.caption,
    'videos': list(record.videos),
    'overall': record.overall,
  }
  if record.dimensions:
    item['dimensions'] = dict(record.dimensions)
  if record.both:
    item['both'] = record.both
  if record.rater:
    item['rater'] = record.rater
  return item | dict(record.other)


def settle(records: Iterable[PairRecord]) -> list[PairRecord]:
  """One record per pair, with what more than half of its votes prefer.

  Without such a majority the clips are the 'same'. A pair keeps the order of
  its first record; `rater`, `other` and `both` are empty where several were
  settled.
  """
  by_pair = {}
  for record in records:
    by_pair.setdefault(record.key, []).append(record)
  return [
    votes[0] if len(votes) == 1 else _settled(votes)
    for votes in by_pair.values()
  ]


def _settled(votes: Sequence[PairRecord]) -> PairRecord:
  first = votes[0]
  aligned = [
    vote if vote.videos == first.videos else _swapped(vote) for vote in votes
  ]
  by_dimension = collections.defaultdict(list)
  for vote in aligned:
    for name, preference in vote.dimensions.items():
      by_dimension[name].append(preference)
  return dataclasses.replace(
    first,
    overall=_majority([vote.overall for vote in aligned]),
    dimensions={name: _majority(them) for name, them in by_dimension.items()},
    rater='',
    other={},
    both='',
  )


def _swapped(record: PairRecord) -> PairRecord:
  """The same preferences with the clips in the other order."""
  swap = dict(zip(PREFERENCES, reversed(PREFERENCES), strict=True))
  return dataclasses.replace(
    record,
    videos=record.videos[::-1],
    paths=record.paths[::-1],
    overall=swap[record.overall],
    dimensions={name: swap[it] for name, it in record.dimensions.items()},
  )


def _majority(preferences: Sequence[str]) -> str:
  (preference, count), *_ = collections.Counter(preferences).most_common(1)
  return preference if 2 * count > len(preferences) else 'same'


def _check_one_vote(
  record: PairRecord, first_votes: dict[tuple[Any, ...], PairRecord]
) -> None:
  """Raises RecordError if a named rater has compared the pair before."""
  if not record.rater:
    return
  key = (*record.key, record.rater)
  first = first_votes.setdefault(key, record)
  if first is not record:
    raise RecordError(
      f'{record.rater!r} compares this pair in {first.where} too; delete one '
      'of the two'
    )


def _record(
  clips: ClipFolder, item: Any, file: str, place: str, require_files: bool
) -> PairRecord:
  item = as_object(item, _WANTED)
  caption = text_field(item, 'caption')
  check_unicode(caption, 'the caption')
  found = [clips.find(text, require_files) for text in videos_of(item)]
  (first, first_path), (second, second_path) = found
  if first == second:
    raise RecordError(
      f'"videos" has {first!r} twice; name two clips, or delete the record'
    )
  if 'overall' not in item:
    raise RecordError(f'no "overall"; write one of {", ".join(PREFERENCES)}')
  _check_preference('"overall"', item['overall'])
  both = item.get('both', '')
  if 'both' in item and (both not in TIES or item['overall'] != 'same'):
    raise RecordError(
      f'"both" is {both!r} of a pair that is {item["overall"]!r}; of a tie '
      f'write one of {", ".join(TIES)}, or delete it'
    )
  return PairRecord(
    caption,
    (first, second),
    (first_path, second_path),
    item['overall'],
    _dimensions(item),
    text_field(item, 'rater') if 'rater' in item else '',
    {name: value for name, value in item.items() if name not in _KEYS},
    f'{location(file, place)} ({first}, {second})',
    both,
  )


def videos_of(item: dict[str, Any]) -> list[str]:
  """The names of the two clips of an object; RecordError if they are not."""
  if 'videos' not in item:
    raise RecordError('no "videos"; add the list of the two clips')
  videos = item['videos']
  is_two = isinstance(videos, list) and len(videos) == 2
  if not is_two or not all(isinstance(text, str) and text for text in videos):
    raise RecordError('"videos" is not a list of two paths; write such a list')
  return videos


def _dimensions(item: dict[str, Any]) -> dict[str, str]:
  if 'dimensions' not in item:
    return {}
  wanted = f'"dimensions" as an object of {", ".join(PREFERENCES)} by dimension'
  dimensions = as_object(item['dimensions'], wanted)
  for name, preference in dimensions.items():
    _check_preference(f'"dimensions": {name}', preference)
  return dimensions


def _check_preference(what: str, value: Any) -> None:
  if value not in PREFERENCES:
    raise RecordError(
      f'{what} is {value!r}; write one of {", ".join(PREFERENCES)}'
    )
