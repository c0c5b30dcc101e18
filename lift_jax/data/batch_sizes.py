"""Batch sizes of buckets, so that steps on each take about the same time.

With c_b the cost of an example of bucket b, and B the batch size of the bucket
where it is highest, a batch of bucket b has

  B_b = m floor(B max(c) / (m c_b))

examples, where m divides every batch. The gradient of a batch is a mean over
its examples; times B_b / (mean batch size), it counts every example alike.
"""

from collections.abc import Collection, Hashable, Mapping, Sequence
import dataclasses
from fractions import Fraction
import math
from typing import TypeVar

from lift_jax.errors import UserError

# Batches have equally many examples, or steps on them cost equally much.
CLIPS, COST = BATCH_BY = ('clips', 'cost')

K = TypeVar('K', bound=Hashable)


@dataclasses.dataclass(frozen=True)
class BucketSteps:
  """The steps of a run on one bucket.

  Attributes:
    name: of the bucket, for people.
    num_examples: drawn from it in an epoch, on average.
    cost: FLOPs of a step for each example.
    batch_size: examples per step over all hosts.
    padding: share of padding among its tokens.
  """

  name: str
  num_examples: float
  cost: float
  batch_size: int
  padding: float = 0.0

  @property
  def num_steps(self) -> Fraction:
    """In an epoch."""
    return Fraction(self.num_examples) / self.batch_size

  @property
  def step_cost(self) -> float:
    return self.batch_size * self.cost


def choose(
  batch_by: str, costs: Mapping[K, float], batch_size: int, multiple: int
) -> dict[K, int]:
  """The batch size of each bucket; `batch_size` for the most expensive one.

  Args:
    batch_by: one of `BATCH_BY`.
    costs: of an example of each bucket.
    batch_size: a multiple of `multiple`.
    multiple: what divides every batch size.

  Raises:
    UserError: a cost is unknown.
  """
  if batch_by == CLIPS:
    return dict.fromkeys(costs, batch_size)
  if unknown := [bucket for bucket, cost in costs.items() if cost <= 0]:
    raise UserError(
      f"train.batch_by is 'cost', but the model counts no FLOPs for "
      f"{unknown[0]}; set it to 'clips'"
    )
  most = max(costs.values())
  return {
    bucket: multiple * math.floor(batch_size / multiple * (most / cost))
    for bucket, cost in costs.items()
  }


def batch_shares(
  shares: Sequence[float], batch_sizes: Sequence[int]
) -> list[float]:
  """How often to draw batches of each bucket, to draw `shares` of examples."""
  common = math.lcm(*batch_sizes)
  return [
    share * (common // size)
    for share, size in zip(shares, batch_sizes, strict=True)
  ]


def _num_steps(buckets: Collection[BucketSteps]) -> Fraction:
  return sum((bucket.num_steps for bucket in buckets), Fraction())


def mean_batch(buckets: Collection[BucketSteps]) -> Fraction:
  """Examples of a step, the mean over the steps of an epoch."""
  num_examples = sum(Fraction(bucket.num_examples) for bucket in buckets)
  return num_examples / _num_steps(buckets)


def fingerprint(
  buckets: Collection[BucketSteps], batch_size: int
) -> dict[str, dict[str, int]]:
  """The batch sizes, if there are others than `batch_size`."""
  sizes = {bucket.name: bucket.batch_size for bucket in buckets}
  is_uniform = set(sizes.values()) <= {batch_size}
  return {} if is_uniform else {'batch_sizes': sizes}


def describe(buckets: Collection[BucketSteps]) -> list[str]:
  """A line for each bucket."""
  costs = [bucket.cost * bucket.num_examples for bucket in buckets]
  mean = sum(costs) / float(_num_steps(buckets))
  return [
    f'batches of {bucket.batch_size} with {bucket.name} each: '
    f'{bucket.step_cost / mean:.2f} x the mean cost of a step'
    + (f', {bucket.padding:.1%} padding' if bucket.padding else '')
    for bucket in buckets
  ]
