"""Batches of work items whose batch slots do not change when a run resumes."""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import itertools
from typing import Generic, TypeVar

T = TypeVar('T')


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
  items: Sequence[T], is_done: Callable[[T], bool], batch_size: int
) -> Iterator[WorkBatch[T]]:
  """Batches of the items that are not done.

  An item has the same batch slot in every run. So a resumed run computes it by
  the same instructions, with the same bits as a result, whatever the other
  slots hold.
  """
  queues = [
    [item for item in items[slot::batch_size] if not is_done(item)]
    for slot in range(batch_size)
  ]
  for index in range(max(map(len, queues), default=0)):
    is_new = [index < len(queue) for queue in queues]
    filler = queues[is_new.index(True)][index]
    yield WorkBatch(
      [
        queue[index] if wanted else filler
        for queue, wanted in zip(queues, is_new, strict=True)
      ],
      is_new,
    )


def in_rounds(items: Iterator[T], size: int) -> Iterator[list[T]]:
  """Lists of `size` items each; the last one may be shorter."""
  while taken := list(itertools.islice(items, size)):
    yield taken
