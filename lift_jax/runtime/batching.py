"""Work cut into batches whose rows do not depend on what is done already."""

from collections.abc import Callable, Iterator, Sequence
import dataclasses
import itertools
from typing import Generic, TypeVar

T = TypeVar('T')


@dataclasses.dataclass(frozen=True)
class Batch(Generic[T]):
  """Pieces of work that are done together.

  Attributes:
    items: one for each row.
    is_new: whether the row is wanted; others only fill the batch.
  """

  items: list[T]
  is_new: list[bool]


def fill_batches(
  items: Sequence[T], is_done: Callable[[T], bool], batch_size: int
) -> Iterator[Batch[T]]:
  """Batches of what is not done.

  A piece has the same row of the batch in every run, so that a run that goes on
  after a kill computes it by the same instructions: to the last bit, whatever
  the other rows hold.
  """
  queues = [
    [item for item in items[row::batch_size] if not is_done(item)]
    for row in range(batch_size)
  ]
  nothing = object()
  for row_items in itertools.zip_longest(*queues, fillvalue=nothing):
    filler = next(item for item in row_items if item is not nothing)
    yield Batch(
      [filler if item is nothing else item for item in row_items],
      [item is not nothing for item in row_items],
    )


def in_rounds(items: Iterator[T], size: int) -> Iterator[list[T]]:
  """Lists of `size` items, the last one perhaps shorter."""
  while taken := list(itertools.islice(items, size)):
    yield taken
