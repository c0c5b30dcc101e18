"""Contents and order of batches, and resuming in the middle of the data."""

import collections
import pathlib
from unittest import mock

from absl.testing import parameterized
import jax
from jax.sharding import NamedSharding, PartitionSpec
import numpy as np
import pytest

from lift_jax.data import cache as cache_lib
from lift_jax.data import pair_records, pipeline
from lift_jax.data.clip_flags import ClipRules
from lift_jax.data.records import AlignmentRecord
from lift_jax.errors import UserError

# How many records lie in each bucket.
_COUNTS = {(1, 2, 2): 12, (2, 2, 2): 4}
_BATCH = 4
_UNIFORM = dict.fromkeys(_COUNTS, _BATCH)


def _record(index: int) -> AlignmentRecord:
  name = f'{index}.mp4'
  return AlignmentRecord(
    name, pathlib.Path('/none') / name, f'caption {index}', index / 100,
    index % 3 == 0, 'a.json', f'record {index}',
  )  # fmt: skip


@pytest.fixture(scope='module')
def cache(tmp_path_factory) -> cache_lib.LatentCache:
  """Records whose every value is their number, in shards of three."""
  cache = cache_lib.LatentCache(tmp_path_factory.mktemp('cache'), {})
  cache.start()
  index = 0
  for bucket, count in _COUNTS.items():
    items = []
    for _ in range(count):
      latents = np.full((*bucket, 16), index, np.float32)
      text = np.full((3, 5), index, np.float32)
      data = cache_lib.pack(mean=latents, logvar=-latents, text=text)
      items.append(
        cache_lib.EncodedClip(
          _record(index), data, (1, 1), 'sum', (1, 1, 1), (), 0.5
        )
      )
      index += 1
    for start in range(0, count, 3):
      cache.write_shard(bucket, items[start : start + 3])
  cache.write_index()
  return cache


class _PipelineTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _cache(self, cache):
    self.cache = cache
    self.records = [_record(index) for index in range(sum(_COUNTS.values()))]
    self.scored = pipeline.join(cache, self.records, ClipRules())
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:4]), ('data',))
    self.sharding = NamedSharding(mesh, PartitionSpec('data'))

  def iterator(self, scored=None, seed=0, batch_sizes=_UNIFORM):
    units = [(item,) for item in scored or self.scored]
    return pipeline.make_iterator(
      self.cache, units, batch_sizes, self.sharding, seed, 2
    )

  def single(self, scored):
    """Batches of one video, on one device."""
    sharding = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    units = [(item,) for item in scored]
    ones = dict.fromkeys(_COUNTS, 1)
    return pipeline.make_iterator(self.cache, units, ones, sharding, 0, 2)

  def numbers(self, batches) -> list[list[int]]:
    """Which records are in each of the batches."""
    return [[int(n) for n in batch['text'][:, 0, 0]] for batch in batches]

  def take(self, iterator, count):
    return [next(iterator) for _ in range(count)]


class BatchTest(_PipelineTest):
  def test_contents(self):
    """Tensors, reward and origin of an example are of one record."""
    for batch in self.take(self.iterator(), 8):
      self.assertEqual(
        sorted(batch),
        ['is_real', 'logvar', 'mean', 'optimality', 'reward', 'text'],
      )
      self.assertIn(batch['mean'].shape[1:4], _COUNTS)
      for row, number in enumerate(self.numbers([batch])[0]):
        self.assertTrue(np.all(batch['mean'][row] == number))
        self.assertTrue(np.all(batch['logvar'][row] == -number))
        np.testing.assert_allclose(batch['reward'][row], number / 100)
        self.assertEqual(batch['is_real'][row], number % 3 == 0)

  def test_pairs(self):
    """Both in the order given, next to each other; shuffled as pairs."""
    pairs = [
      (self.scored[index + 1], self.scored[index]) for index in range(0, 16, 2)
    ]
    iterator = pipeline.make_iterator(
      self.cache, pairs, _UNIFORM, self.sharding, 0, 2
    )
    numbers = self.numbers(self.take(iterator, 4))
    self.assertEqual({len(batch) for batch in numbers}, {_BATCH})
    found = [tuple(batch[i : i + 2]) for batch in numbers for i in (0, 2)]
    self.assertEqual(sorted(found), [(i + 1, i) for i in range(0, 16, 2)])
    self.assertNotEqual(found, sorted(found))

  def test_proportions(self):
    """Buckets take turns in proportion to their videos: 12 to 4."""
    shapes = [b['mean'].shape[1:4] for b in self.take(self.iterator(), 16)]
    for start in range(0, 16, 4):
      count = collections.Counter(shapes[start : start + 4])
      self.assertEqual(count, {(1, 2, 2): 3, (2, 2, 2): 1})

  def test_epochs(self):
    """Each record once in an epoch; no two epochs in the same order."""
    batches = self.take(self.iterator(), 16)
    drawn = {bucket: [] for bucket in _COUNTS}
    for batch, numbers in zip(batches, self.numbers(batches), strict=True):
      drawn[batch['mean'].shape[1:4]] += numbers
    first = 0
    for bucket, count in _COUNTS.items():
      epochs = [
        drawn[bucket][start : start + count]
        for start in range(0, len(drawn[bucket]), count)
      ]
      self.assertLen(epochs, 4)
      for epoch in epochs:
        self.assertEqual(sorted(epoch), list(range(first, first + count)))
      self.assertLen({tuple(epoch) for epoch in epochs}, 4)
      first += count

  def test_seed(self):
    one, same, other = (
      self.numbers(self.take(self.iterator(seed=seed), 4)) for seed in (0, 0, 1)
    )
    self.assertEqual(one, same)
    self.assertNotEqual(one, other)

  def test_bucket_smaller_than_a_batch(self):
    scored = pipeline.join(self.cache, self.records[-3:], ClipRules())
    numbers = sum(self.numbers(self.take(self.iterator(scored), 3)), [])
    self.assertEqual(collections.Counter(numbers), {13: 4, 14: 4, 15: 4})

  def test_order_of_records_decides(self):
    """Not the order of the shards, which a resumed run writes otherwise."""
    half = self.records[::2]
    one = self.numbers(
      self.take(self.iterator(pipeline.join(self.cache, half, ClipRules())), 4)
    )
    backwards = pipeline.join(self.cache, half[::-1], ClipRules())
    other = self.numbers(self.take(self.iterator(backwards), 4))
    self.assertNotEqual(one, other)


class BatchSizesTest(_PipelineTest):
  """Batches of the cheaper bucket are larger."""

  sizes = {(1, 2, 2): 8, (2, 2, 2): 4}

  def test_epochs(self):
    """Clips are still drawn equally often: 24 in three batches of eight."""
    batches = self.take(self.iterator(batch_sizes=self.sizes), 15)
    for start in range(0, 15, 5):
      part = batches[start : start + 5]
      count = collections.Counter(b['mean'].shape[:4] for b in part)
      self.assertEqual(count, {(8, 1, 2, 2): 3, (4, 2, 2, 2): 2})
      numbers = collections.Counter(sum(self.numbers(part), []))
      self.assertEqual(numbers, dict.fromkeys(range(16), 2))

  @parameterized.parameters(1, 3, 7)
  def test_state(self, taken):
    """Of a run in the middle of an epoch, with batches read ahead."""
    iterator = self.iterator(batch_sizes=self.sizes)
    self.take(iterator, taken)
    state = iterator.get_state()
    wanted = self.numbers(self.take(iterator, 6))
    self.assertEqual({len(numbers) for numbers in wanted}, {4, 8})
    resumed = self.iterator(batch_sizes=self.sizes)
    resumed.set_state(state)
    self.assertEqual(self.numbers(self.take(resumed, 6)), wanted)

  @parameterized.parameters(2, 4)
  def test_local_examples(self, num_hosts):
    """Each host reads its part of the batches, whatever their size."""
    wanted = self.numbers(self.take(self.iterator(batch_sizes=self.sizes), 6))
    parts = []
    for host in range(num_hosts):

      def local(_, size, host=host):
        return np.arange(size).reshape(num_hosts, -1)[host]

      with mock.patch.object(pipeline, 'local_indices', local):
        batches = self.take(self.iterator(batch_sizes=self.sizes), 6)
      parts.append(self.numbers(batches))
    for step, numbers in enumerate(wanted):
      self.assertEqual(sum((part[step] for part in parts), []), numbers)


class CountTest(_PipelineTest):
  def test_clips_of_a_cache(self):
    """Whatever it was made with; a plan does not know."""
    self.assertEqual(cache_lib.num_clips(self.cache.folder), _COUNTS)
    self.assertEqual(cache_lib.num_clips(self.cache.folder / 'none'), {})


class ResumeTest(_PipelineTest):
  @parameterized.parameters(0, 1, 5)
  def test_state(self, taken):
    iterator = self.iterator()
    self.take(iterator, taken)
    state = iterator.get_state()
    wanted = self.take(iterator, 8)
    for resumed in (self.iterator(), iterator):
      resumed.set_state(state)
      for batch, again in zip(wanted, self.take(resumed, 8), strict=True):
        for name, array in batch.items():
          np.testing.assert_array_equal(array, again[name])

  @parameterized.parameters(12, 16)  # of one bucket, of two
  def test_state_of_single_videos(self, num_records):
    scored = self.scored[:num_records]
    iterator = self.single(scored)
    epoch = sum(self.numbers(self.take(iterator, num_records)), [])
    self.assertEqual(sorted(epoch), list(range(num_records)))
    state = iterator.get_state()
    wanted = self.numbers(self.take(iterator, 8))
    resumed = self.single(scored)
    resumed.set_state(state)
    self.assertEqual(self.numbers(self.take(resumed, 8)), wanted)


class HostsTest(_PipelineTest):
  @parameterized.parameters(1, 2, 4)
  def test_local_examples(self, num_hosts):
    """Hosts read their part of the batches that one host would read."""
    wanted = self.take(self.iterator(), 8)
    parts = []
    for host in range(num_hosts):
      local = np.arange(_BATCH).reshape(num_hosts, -1)[host]
      with mock.patch.object(pipeline, 'local_indices', return_value=local):
        parts.append(self.take(self.iterator(), 8))
    for step, batch in enumerate(wanted):
      for name, array in batch.items():
        np.testing.assert_array_equal(
          array, np.concatenate([part[step][name] for part in parts])
        )


class JoinTest(_PipelineTest):
  def test_rewards_are_of_the_records(self):
    """New scores cost no new encoding."""
    self.assertEqual(
      [s.reward for s in self.scored], [r.reward for r in self.records]
    )

  def test_not_encoded(self):
    with self.assertRaisesRegex(UserError, 'record 99 .*not in the cache'):
      pipeline.join(self.cache, [_record(99)], ClipRules())

  def test_skipped(self):
    key = cache_lib.record_key(_record(99))
    self.cache.write_skipped(0, {key: cache_lib.Skipped('bad', None, ())})
    try:
      joined = pipeline.join(
        self.cache, [*self.records, _record(99)], ClipRules()
      )
      self.assertLen(joined, len(self.records))
      with self.assertRaisesRegex(UserError, 'every record was skipped'):
        pipeline.join(self.cache, [_record(99)], ClipRules())
    finally:
      self.cache.clear_skipped()


class PairsTest(_PipelineTest):
  def test_join(self):
    """Clips that were skipped when the cache was made are None."""
    clips = [self.records[0], _record(99)]
    pair = pair_records.PairRecord(
      'caption 0', ('0.mp4', '1.mp4'), tuple(r.path for r in clips), 'first',
      {}, '', {}, 'pairs.json record 0',
    )  # fmt: skip
    with self.assertRaisesRegex(UserError, 'pairs.json record 0: not in the'):
      pipeline.join_pairs(self.cache, [pair], ClipRules())
    key = cache_lib.record_key(pair.clips[1])
    skipped = {key: cache_lib.Skipped('bad', None, ())}
    with mock.patch.object(self.cache, 'skipped', lambda: skipped):
      (joined,) = pipeline.join_pairs(self.cache, [pair], ClipRules())
    self.assertEqual(joined.entries, (self.scored[0].entry, None))

  def test_units_in_order(self):
    """All of them once, and the last one of a bucket again to fill a batch."""
    units = list(zip(self.scored[::2], self.scored[1::2], strict=True))
    batches = list(
      pipeline.units_in_order(self.cache, units[1:], _BATCH, self.sharding)
    )
    self.assertEqual(
      self.numbers(arrays for arrays, _ in batches),
      [[2, 3, 4, 5], [6, 7, 8, 9], [10, 11, 10, 11], [12, 13, 14, 15]],
    )
    self.assertEqual([number for _, number in batches], [2, 2, 1, 2])
