"""Batches of work items whose batch slots do not change when a run resumes."""

import collections
from collections.abc import Iterable, Iterator, Sequence
import dataclasses
import itertools
from typing import Generic, TypeVar

T = TypeVar('T')

# Of an item; those of one program share it.
Shape = tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class WorkBatch(Generic[T]):
  """Work items that are processed together.

  Attributes:
    items: one per batch slot.
    is_new: whether the slot's result is wanted; other slots are padding.
  """

  items: list[T]
  is_new: list[bool]


def fill_batches(
  items: Iterable[tuple[Shape, T | None]], batch_size: int
) -> Iterator[WorkBatch[T]]:
  """Batches of items of one shape each, as soon as they are full.

  Among those of its shape, an item has the same batch slot in every run. So a
  resumed run computes it by the same instructions, with the same bits as a
  result, whatever the other slots hold.

  Args:
    items: (shape, item), in the same order in every run; None in place of an
      item that is done. No more are taken than a batch needs.
    batch_size: number of slots.
  """
  queues_of = collections.defaultdict(
    lambda: [collections.deque() for _ in range(batch_size)]
  )
  numbers = collections.Counter()  # items so far
  for shape, item in items:
    queues = queues_of[shape]
    slot = numbers[shape] % batch_size
    numbers[shape] += 1
    if item is not None:
      queues[slot].append(item)
      if all(queues):
        yield _take(queues)
  for shape in sorted(queues_of):
    while any(queues_of[shape]):
      yield _take(queues_of[shape])


def _take(queues: Sequence[collections.deque[T]]) -> WorkBatch[T]:
  """The first item of each slot; one of them where there is none."""
  is_new = [bool(queue) for queue in queues]
  filler = queues[is_new.index(True)][0]
  items = [queue.popleft() if queue else filler for queue in queues]
  return WorkBatch(items, is_new)


def ahead(items: Iterable[T], count: int) -> Iterator[T]:
  """The items, of which so many are taken before they are used."""
  waiting = collections.deque()
  for item in items:
    waiting.append(item)
    if len(waiting) > count:
      yield waiting.popleft()
  yield from waiting


def in_rounds(items: Iterator[T], size: int) -> Iterator[list[T]]:
  """Lists of `size` items each; the last one may be shorter."""
  while taken := list(itertools.islice(items, size)):
    yield taken
