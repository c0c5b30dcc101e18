"""Splitting records into parts that share no clip and no caption.

A clip has three questions, and a prompt several clips. Records that share a
clip or a caption therefore stay in one part, together with all records that are
connected to them this way: a model is never tested on a clip or a prompt that
it was trained on.
"""

from collections.abc import Mapping, Sequence
import hashlib
import pathlib
from typing import Protocol, TypeVar

from lift_jax.data.clip_paths import clip_sha256
from lift_jax.errors import UserError
from lift_jax.runtime.progress import tracked

# What records may share: ('caption' | 'video' | 'content', value).
_Key = tuple[str, str]


class Record(Protocol):
  """What records of all readers have in common."""

  @property
  def video(self) -> str: ...

  @property
  def path(self) -> pathlib.Path: ...

  @property
  def caption(self) -> str: ...

  @property
  def where(self) -> str: ...


_R = TypeVar('_R', bound=Record)


def split_records(
  records: Sequence[_R],
  fractions: Mapping[str, float],
  seed: int,
  *,
  by_file: bool = False,
  by_content: bool = False,
) -> dict[str, list[_R]]:
  """Splits records into parts that share no clip and no caption.

  A group of connected records is assigned by a hash of the seed and of its
  smallest caption. So it stays in its part when records are added, in whatever
  order, unless they connect it to another group. The fractions are those of
  groups, in expectation.

  Args:
    records: to split; each part keeps their order.
    fractions: of the parts, by name; they add up to 1.
    seed: of the hash.
    by_file: whether two names are one clip if their paths are; else the names
      are compared.
    by_content: whether files with equal bytes are one clip, too; reads them
      all. A file that is missing is equal to none.

  Raises:
    UserError: the fractions do not add up to 1, a part is empty, or a file
      cannot be read.
  """
  values = fractions.values()
  # Not the other way round, because of NaN.
  if not (min(values) >= 0 and abs(sum(values) - 1) < 1e-6):
    given = ', '.join(f'{name} {value:g}' for name, value in fractions.items())
    raise UserError(
      f'split fractions {given}: give numbers from 0 that add up to 1'
    )
  parts = {name: [] for name in fractions}
  keys = _keys(records, by_file, by_content)
  group_of = _groups(keys)
  smallest = {}
  for own in keys:
    group, caption = group_of[own[0]], own[0][1]
    smallest[group] = min(caption, smallest.get(group, caption))
  for record, own in zip(records, keys, strict=True):
    name = _choose_part(smallest[group_of[own[0]]], fractions, seed)
    parts[name].append(record)
  for name, fraction in fractions.items():
    if fraction and not parts[name]:
      raise UserError(
        f'split: none of {len(smallest)} groups of records that share a video '
        f'or a caption falls into {name}; raise its fraction, choose another '
        'seed, or add records'
      )
  return parts


def check_disjoint(
  named: Mapping[str, Sequence[Record]],
  *,
  by_file: bool = False,
  by_content: bool = False,
) -> None:
  """Checks that sets of records share no clip and no caption.

  Args:
    named: the sets, by name.
    by_file: see `split_records`.
    by_content: see `split_records`.

  Raises:
    UserError: two sets overlap, or a file cannot be read; it names the records.
  """
  members = [(name, record) for name in named for record in named[name]]
  keys = _keys([record for _, record in members], by_file, by_content)
  first = {}
  for (name, record), own in zip(members, keys, strict=True):
    for key in own:
      other_name, other = first.setdefault(key, (name, record))
      if other_name != name:
        raise UserError(
          f'{record.where} is in {name} and shares {_describe(key, record)} '
          f'with {other.where} in {other_name}; delete one of the two, or '
          'keep all records that share it in one set'
        )


def normalize_caption(caption: str) -> str:
  """The caption in lower case, with single spaces."""
  return ' '.join(caption.split()).casefold()


def hash_fraction(text: str) -> float:
  """A hash of the text that is uniform in [0, 1)."""
  digest = hashlib.sha256(text.encode()).digest()
  return int.from_bytes(digest[:6]) / 2**48


def _keys(
  records: Sequence[Record], by_file: bool, by_content: bool
) -> list[list[_Key]]:
  """What each record may share with others, its caption first."""
  if by_content and not by_file:
    raise ValueError('by_content needs by_file')
  digests = {}

  def keys_of(record: Record) -> list[_Key]:
    caption = 'caption', normalize_caption(record.caption)
    if not by_file:
      return [caption, ('video', record.video)]
    keys = [caption, ('video', str(record.path))]
    if by_content and record.path.is_file():
      if record.path not in digests:
        digests[record.path] = clip_sha256(record.path, record.where)
      keys.append(('content', digests[record.path]))
    return keys

  return [keys_of(record) for record in tracked(records, 'record')]


def _groups(keys: Sequence[Sequence[_Key]]) -> dict[_Key, _Key]:
  """Maps each key to the representative of its connected component."""
  parent = {}

  def find(key: _Key) -> _Key:
    parent.setdefault(key, key)
    while parent[key] != key:
      parent[key] = parent[parent[key]]
      key = parent[key]
    return key

  for own in keys:
    for key in own:
      parent[find(key)] = find(own[0])
  return {key: find(key) for key in parent}


def _choose_part(
  caption: str, fractions: Mapping[str, float], seed: int
) -> str:
  """The part of a group, by a hash that is uniform in [0, 1)."""
  # The hash includes the names of the parts. Otherwise, a part that is split
  # again with the same seed would have hashes from one range only.
  names = ','.join(fractions)
  left = hash_fraction(f'{seed}\n{names}\n{caption}')
  names = [name for name, fraction in fractions.items() if fraction]
  for name in names[:-1]:
    left -= fractions[name]
    if left < 0:
      return name
  return names[-1]


def _describe(key: _Key, record: Record) -> str:
  kind, value = key
  if kind == 'content':
    return f'the content of {record.video}'
  if kind == 'video':
    return f'the video {record.video}'
  start = value if len(value) <= 60 else value[:60] + '...'
  return f'the caption "{start}"'
