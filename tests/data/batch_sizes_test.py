"""Batch sizes of buckets, and what follows from them."""

from fractions import Fraction

import pytest

from lift_jax.data import batch_sizes
from lift_jax.data.batch_sizes import CLIPS, COST, BucketSteps
from lift_jax.errors import UserError

pytestmark = pytest.mark.fast


@pytest.mark.parametrize(
  ('batch_by', 'multiple', 'expected'),
  [
    (CLIPS, 1, [12, 12, 12]),
    (COST, 1, [12, 24, 34]),
    (COST, 4, [12, 24, 32]),
    (COST, 12, [12, 24, 24]),
  ],
)
def test_choose(batch_by, multiple, expected):
  """As many as cost no more than a batch of the most expensive bucket."""
  costs = {'long': 1e12, 'half': 5e11, 'short': 3.5e11}
  sizes = batch_sizes.choose(batch_by, costs, 12, multiple)
  assert sizes == dict(zip(costs, expected, strict=True))


@pytest.mark.parametrize('cost', [0.1, 1 / 3, 1e15 / 7])
def test_the_most_expensive_bucket_has_the_configured_size(cost):
  assert batch_sizes.choose(COST, {0: cost}, 42, 6) == {0: 42}


def test_without_costs():
  with pytest.raises(UserError, match=r'no FLOPs for \(1, 2\); set it to'):
    batch_sizes.choose(COST, {(1, 2): 0.0}, 8, 8)
  assert batch_sizes.choose(CLIPS, {(1, 2): 0.0}, 8, 8) == {(1, 2): 8}


LONG = BucketSteps('long', 16, 3.0, 4)
SHORT = BucketSteps('short', 12, 1.0, 12, padding=0.25)


def test_mean_batch():
  """Of four steps on one bucket and one on the other."""
  assert batch_sizes.mean_batch([LONG, SHORT]) == Fraction(28, 5)
  # Exactly, though a third of an example is none.
  thirds = [BucketSteps('', n, 1.0, 8) for n in (1 / 3, 20 / 3)]
  assert batch_sizes.mean_batch(thirds) == 8


def test_batch_shares():
  assert batch_sizes.batch_shares([16, 12], [4, 12]) == [48, 12]
  # Nothing changes where batches are equally large, not even by rounding.
  assert batch_sizes.batch_shares([0.1, 0.7], [8, 8]) == [0.1, 0.7]


def test_fingerprint():
  """Runs with batches of one size have none, as there was none before."""
  assert batch_sizes.fingerprint([LONG, LONG], 4) == {}
  assert batch_sizes.fingerprint([LONG, SHORT], 4) == {
    'batch_sizes': {'long': 4, 'short': 12}
  }


def test_describe():
  assert batch_sizes.describe([LONG, SHORT]) == [
    'batches of 4 with long each: 1.00 x the mean cost of a step',
    'batches of 12 with short each: 1.00 x the mean cost of a step, 25.0% '
    'padding',
  ]
  other = BucketSteps('other', 4, 1.5, 4)
  assert '0.56 x the mean' in batch_sizes.describe([LONG, other])[1]
