"""Dividing records by what they show, never record by record.

A clip is asked about three times, and a prompt makes several clips. Records
that share a clip or a caption therefore stay together, and so does all that
hangs together through them: a model is never tested on a clip or a prompt that
it was trained on.
"""

from collections.abc import Mapping, Sequence
import functools
import hashlib
import pathlib
from typing import Protocol, TypeVar

from lift_jax.errors import UserError
from lift_jax.runtime.files import file_sha256

# What two records may share: its kind, and what it is.
_Tie = tuple[str, str]


class Record(Protocol):
  """What the records of every reader have."""

  video: str
  caption: str

  @property
  def where(self) -> str: ...


_R = TypeVar('_R', bound=Record)


def split_records(
  records: Sequence[_R],
  fractions: Mapping[str, float],
  seed: int,
  *,
  root: str | pathlib.Path | None = None,
  by_content: bool = False,
) -> dict[str, list[_R]]:
  """Divides records into parts that share no clip and no caption.

  A group of records that hang together goes where a hash of the seed and of
  the smallest caption among them falls. So it stays there when others are
  added, in whatever order, unless they tie it to another group. The fractions
  hold for the groups, and the more exactly the more of them there are.

  Args:
    records: to divide; each part keeps their order.
    fractions: of the parts, by name; they add up to 1.
    seed: of the hash.
    root: the folder of the clips: two names are one clip if they lead to one
      file there. None compares the names.
    by_content: whether files of equal bytes are one clip; reads them all.

  Raises:
    UserError: the fractions do not add up, or a part gets nothing.
  """
  values = fractions.values()
  # Not the other way round, because of NaN.
  if not (min(values) >= 0 and abs(sum(values) - 1) < 1e-6):
    told = ', '.join(f'{name} {value:g}' for name, value in fractions.items())
    raise UserError(
      f'split fractions {told}: give numbers from 0 that add up to 1'
    )
  parts = {name: [] for name in fractions}
  ties = _ties(records, root, by_content)
  group_of = _groups(ties)
  smallest = {}
  for own in ties:
    group, caption = group_of[own[0]], own[0][1]
    smallest[group] = min(caption, smallest.get(group, caption))
  for record, own in zip(records, ties, strict=True):
    name = _side(smallest[group_of[own[0]]], fractions, seed)
    parts[name].append(record)
  for name, fraction in fractions.items():
    if fraction and not parts[name]:
      raise UserError(
        f'split: of {len(smallest)} groups of records that share a video or a '
        f'caption none falls to {name}; raise its fraction, take another seed, '
        'or add records'
      )
  return parts


def check_disjoint(
  named: Mapping[str, Sequence[Record]],
  *,
  root: str | pathlib.Path | None = None,
  by_content: bool = False,
) -> None:
  """Refuses sets of records that share a clip or a caption.

  Args:
    named: the sets, by name.
    root: see `split_records`.
    by_content: see `split_records`.

  Raises:
    UserError: two sets do; it names the records.
  """
  members = [(name, record) for name in named for record in named[name]]
  ties = _ties([record for _, record in members], root, by_content)
  first = {}
  for (name, record), own in zip(members, ties, strict=True):
    for tie in own:
      other_name, other = first.setdefault(tie, (name, record))
      if other_name != name:
        raise UserError(
          f'{record.where} is in {name} and shares {_describe(tie, record)} '
          f'with {other.where} in {other_name}; delete one of the two, or '
          'keep all records that share it in one set'
        )


def normal_caption(caption: str) -> str:
  """The caption without what does not make it another: white space, case."""
  return ' '.join(caption.split()).casefold()


def _ties(
  records: Sequence[Record], root: str | pathlib.Path | None, by_content: bool
) -> list[list[_Tie]]:
  """What each record may share with others; its caption comes first."""
  if root is None and by_content:
    raise ValueError('the content of clips is only found below a root')
  digest = functools.cache(file_sha256)

  def ties_of(record: Record) -> list[_Tie]:
    caption = 'caption', normal_caption(record.caption)
    if root is None:
      return [caption, ('video', record.video)]
    path = (pathlib.Path(root) / record.video).resolve()
    content = [('content', digest(path))] if by_content else []
    return [caption, ('video', str(path)), *content]

  return [ties_of(record) for record in records]


def _groups(ties: Sequence[Sequence[_Tie]]) -> dict[_Tie, _Tie]:
  """For every tie the one that stands for all that hangs together with it."""
  parent = {}

  def find(tie: _Tie) -> _Tie:
    parent.setdefault(tie, tie)
    while parent[tie] != tie:
      parent[tie] = parent[parent[tie]]
      tie = parent[tie]
    return tie

  for own in ties:
    for tie in own:
      parent[find(tie)] = find(own[0])
  return {tie: find(tie) for tie in parent}


def _side(caption: str, fractions: Mapping[str, float], seed: int) -> str:
  """Where a hash that is even over [0, 1) falls."""
  # With the names of the parts: a part that is divided again with the same seed
  # holds only hashes of one range.
  names = ','.join(fractions)
  digest = hashlib.sha256(f'{seed}\n{names}\n{caption}'.encode()).digest()
  left = int.from_bytes(digest[:6]) / 2**48
  names = [name for name, fraction in fractions.items() if fraction]
  for name in names[:-1]:
    left -= fractions[name]
    if left < 0:
      return name
  return names[-1]


def _describe(tie: _Tie, record: Record) -> str:
  kind, value = tie
  if kind == 'content':
    return f'the content of {record.video}'
  if kind == 'video':
    return f'the video {record.video}'
  start = value if len(value) <= 60 else value[:60] + '...'
  return f'the caption "{start}"'
