"""Batches of unfinished work items."""

import random

from absl.testing import parameterized
import pytest

from lift_jax.runtime import batching

pytestmark = pytest.mark.fast


def of_one_shape(items, done=()):
  return (((1,), None if item in done else item) for item in items)


class FillBatchesTest(parameterized.TestCase):
  def test_whole(self):
    batches = list(batching.fill_batches(of_one_shape(range(7)), 3))
    self.assertEqual(
      [batch.items for batch in batches],
      [[0, 1, 2], [3, 4, 5], [6, 6, 6]],
    )
    self.assertEqual(batches[0].is_new, [True, True, True])
    self.assertEqual(batches[2].is_new, [True, False, False])

  def test_slots_stay(self):
    batches = list(
      batching.fill_batches(of_one_shape(range(7), {0, 1, 3, 5}), 3)
    )
    self.assertEqual([batch.items for batch in batches], [[6, 4, 2]])

  def test_shapes(self):
    """Slots are counted per shape; what is left comes in order of shapes."""
    shapes = [(2,), (1,), (2,), (2,), (1,), (1,), (2,)]
    items = zip(shapes, [0, 1, 2, None, 4, 5, 6], strict=True)
    batches = batching.fill_batches(items, 2)
    self.assertEqual(
      [(batch.items, batch.is_new) for batch in batches],
      [
        ([0, 2], [True, True]),
        ([1, 4], [True, True]),
        ([5, 5], [True, False]),
        ([6, 6], [False, True]),
      ],
    )

  def test_takes_no_more_than_it_needs(self):
    items = of_one_shape(iter(range(9)))
    next(batching.fill_batches(items, 4))
    self.assertEqual(next(items), ((1,), 4))

  @parameterized.parameters(*range(60))
  def test_property(self, seed):
    rng = random.Random(seed)
    batch_size = rng.randint(1, 5)
    items = [f'item {n}' for n in range(rng.randint(0, 23))]
    share = rng.choice([0.0, 0.1, 0.5, 0.9, 1.0])
    finished = {item for item in items if rng.random() < share}
    finished.add('of another run')
    slot_of = {item: index % batch_size for index, item in enumerate(items)}
    made = []
    for batch in batching.fill_batches(
      of_one_shape(items, finished), batch_size
    ):
      self.assertLen(batch.items, batch_size)
      self.assertLen(batch.is_new, batch_size)
      self.assertTrue(any(batch.is_new))
      new = []
      for slot, (item, is_new) in enumerate(
        zip(batch.items, batch.is_new, strict=True)
      ):
        if is_new:
          self.assertEqual(slot_of[item], slot)
          new.append(item)
      for item in batch.items:
        self.assertIn(item, new)  # padding repeats one of them
      made += new
    self.assertCountEqual(
      made, [item for item in items if item not in finished]
    )
    # The items of a slot keep their order.
    for slot in range(batch_size):
      of_slot = [items.index(item) for item in made if slot_of[item] == slot]
      self.assertEqual(of_slot, sorted(of_slot))


class AheadTest(parameterized.TestCase):
  @parameterized.parameters(0, 2, 9)
  def test_so_many(self, count):
    source = iter(range(6))
    for number, item in enumerate(batching.ahead(source, count)):
      self.assertEqual(item, number)
      taken = min(6, number + 1 + count)
      self.assertEqual(source.__length_hint__(), 6 - taken)


class InRoundsTest(parameterized.TestCase):
  @parameterized.parameters(
    (0, 3, []),
    (3, 3, [[0, 1, 2]]),
    (7, 3, [[0, 1, 2], [3, 4, 5], [6]]),
    (2, 5, [[0, 1]]),
    (2, 1, [[0], [1]]),
  )
  def test_sizes(self, num, size, expected):
    self.assertEqual(list(batching.in_rounds(iter(range(num)), size)), expected)

  def test_consumes_one_round_at_a_time(self):
    items = iter(range(9))
    next(batching.in_rounds(items, 4))
    self.assertEqual(next(items), 4)
