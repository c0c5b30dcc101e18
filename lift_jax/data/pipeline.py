"""Grain pipeline from the cache to training batches.

Every host shuffles the full data set in the same way and then reads the
examples of a batch that its devices hold. So the n-th batch is the same on any
number of hosts, and the position in the data is one number.
"""

import collections
from collections.abc import Callable, Iterator, Mapping, Sequence
import concurrent.futures
import dataclasses

import grain
import jax
import numpy as np

from lift_jax.data import batch_sizes as batch_sizes_lib
from lift_jax.data import cache as cache_lib
from lift_jax.data.clip_flags import ClipRules
from lift_jax.data.global_batch import READ_AHEAD, local_indices
from lift_jax.data.pair_records import PairRecord
from lift_jax.data.records import AlignmentRecord
from lift_jax.data.splits import Record
from lift_jax.errors import UserError

# What a batch contains of each video besides latents and caption.
COLUMNS = ('reward', 'is_real', 'optimality')

_OPENERS = 16  # threads that look at the ends of shards


@dataclasses.dataclass(frozen=True)
class ScoredEntry:
  """An encoded video with its reward.

  Attributes:
    entry: in the cache.
    caption: as in the record.
    reward: in [0, 1]; 1 for a real clip. Of a pair that people compared, 1 for
      the winner and 0 for the loser.
    is_real: whether it was filmed, not generated.
    dimensions: see `AlignmentRecord`.
    optimality: how good it is among those of its prompt, in [0, 1]; see
      `rewards.optimality`.
  """

  entry: cache_lib.CacheEntry
  caption: str
  reward: float
  is_real: bool
  dimensions: Mapping[str, int]
  optimality: float = 1.0

  @property
  def video(self) -> str:
    return self.entry.video

  @property
  def motion(self) -> float:
    return self.entry.motion


# Examples that stay together: one, or the two of a pair.
Unit = tuple[ScoredEntry, ...]


@dataclasses.dataclass(frozen=True)
class EncodedPair:
  """Two clips that people compared.

  Attributes:
    record: the comparison.
    entries: of the first and the second clip; None for one that was skipped.
  """

  record: PairRecord
  entries: tuple[cache_lib.CacheEntry | None, cache_lib.CacheEntry | None]


def join(
  cache: cache_lib.LatentCache,
  records: Sequence[AlignmentRecord],
  rules: ClipRules,
) -> list[ScoredEntry]:
  """The cache entry of every record, with its reward.

  Omits records that were skipped when the cache was made, and flagged ones that
  the rules leave out.

  Raises:
    UserError: a record is not in the cache, or none is left.
  """
  find = _finder(cache, rules)
  scored = []
  for record in records:
    entry = find(record)
    if entry is None:
      continue
    scored.append(
      ScoredEntry(
        entry,
        record.caption,
        record.reward,
        record.is_real,
        record.dimensions,
      )
    )
  if records and not scored:
    raise UserError(f'{cache.folder}: every record was skipped; fix the data')
  return scored


def join_pairs(
  cache: cache_lib.LatentCache,
  records: Sequence[PairRecord],
  rules: ClipRules,
) -> list[EncodedPair]:
  """The cache entries of every pair; see `join`.

  Raises:
    UserError: a clip is not in the cache.
  """
  find = _finder(cache, rules)
  pairs = []
  for record in records:
    first, second = map(find, record.clips)
    pairs.append(EncodedPair(record, (first, second)))
  return pairs


def _finder(
  cache: cache_lib.LatentCache, rules: ClipRules
) -> Callable[[Record], cache_lib.CacheEntry | None]:
  """A function from a record to its entry; None if it is to be omitted."""
  entries, skipped = cache.entries(), cache.skipped()

  def find(record):
    key = cache_lib.record_key(record)
    entry = entries.get(key)
    if entry is None and key in skipped:
      return None
    if entry is None:
      raise UserError(
        f'{record.where}: not in the cache {cache.folder}; run lift prepare'
      )
    return None if rules.why_skipped(entry.flags) else entry

  return find


class _ReadLocalLatents(grain.transforms.Map):
  """Indices of the units of a batch to the examples of this host."""

  def __init__(
    self, reader: '_Reader', units: Sequence[Unit], local: np.ndarray
  ):
    self._reader = reader
    self._units = units
    self._local = local

  def map(self, element: np.ndarray) -> dict[str, np.ndarray]:
    examples = [scored for index in element for scored in self._units[index]]
    chosen = [examples[index] for index in self._local]
    tensors = [self._reader.read(scored.entry) for scored in chosen]
    arrays = {
      name: np.stack([tensor[name] for tensor in tensors])
      for name in ('mean', 'logvar', 'text')
    }
    arrays['reward'] = np.array([s.reward for s in chosen], np.float32)
    arrays['is_real'] = np.array([s.is_real for s in chosen], bool)
    arrays['optimality'] = np.array([s.optimality for s in chosen], np.float32)
    return arrays


class _Reader:
  """Random access to the records of a cache.

  Raises:
    DamagedError: a shard is missing or cut.
  """

  def __init__(self, cache: cache_lib.LatentCache):
    self._cache = cache
    sizes = collections.defaultdict(int)  # up to the last record in use
    for entry in cache.entries().values():
      sizes[entry.shard] = max(sizes[entry.shard], entry.position + 1)
    with concurrent.futures.ThreadPoolExecutor(_OPENERS) as pool:
      list(pool.map(cache.check_shard, sizes))
    ends = np.cumsum([0, *sizes.values()]).tolist()
    self._first = dict(zip(sizes, ends, strict=False))
    self._source = grain.sources.ArrayRecordDataSource(
      [f'{cache.shard_path(shard)}[0:{n}]' for shard, n in sizes.items()]
    )

  def read(self, entry: cache_lib.CacheEntry) -> dict[str, np.ndarray]:
    first = self._first[entry.shard]
    data = self._cache.read_record(
      entry, lambda position: self._source[first + position]
    )
    return cache_lib.unpack(data)


def make_iterator(
  cache: cache_lib.LatentCache,
  units: Sequence[Unit],
  batch_sizes: Mapping[cache_lib.Bucket, int],
  sharding: jax.sharding.Sharding,
  seed: int,
  num_threads: int,
) -> grain.DatasetIterator:
  """Endless batches of one bucket each, clips in proportion to the buckets.

  Every epoch of a bucket is reshuffled. The iterator yields the examples that
  this host holds; `global_batch.to_global` makes a global batch of them. Its
  state is the number of batches so far, the same on every host.

  Args:
    units: to train on, all of the same number of examples; those of a unit
      are of one bucket, and next to each other in a batch.
    batch_sizes: examples per batch of each bucket, over all hosts.
    sharding: of a batch along its first axis.
    seed: of the order.
    num_threads: threads that read records.

  Raises:
    DamagedError: a shard of the cache is missing or cut. So does the iterator
      for a damaged record, once it comes to it.
  """
  buckets = _by_bucket(units)
  sizes = [batch_sizes[items[0][0].entry.bucket] for items in buckets]
  reader = _Reader(cache)
  # An endless data set has no remainder to drop. But without drop_remainder
  # Grain computes the number of batches in floats, which overflows.
  datasets = [
    grain.MapDataset.range(len(items))
    .shuffle(seed=seed + number)
    .repeat()
    .batch(size // len(units[0]), drop_remainder=True)
    .map(_ReadLocalLatents(reader, items, local_indices(sharding, size)))
    for number, (items, size) in enumerate(zip(buckets, sizes, strict=True))
  ]
  shares = batch_sizes_lib.batch_shares([len(b) for b in buckets], sizes)
  mixed = (
    datasets[0]
    if len(datasets) == 1
    else grain.MapDataset.mix(datasets, shares)
  )
  return iter(
    mixed.to_iter_dataset(
      grain.ReadOptions(
        num_threads=num_threads, prefetch_buffer_size=READ_AHEAD
      )
    )
  )


def units_in_order(
  cache: cache_lib.LatentCache,
  units: Sequence[Unit],
  batch_size: int,
  sharding: jax.sharding.Sharding,
) -> Iterator[tuple[dict[str, np.ndarray], int]]:
  """All units once, always in the same batches, of one bucket each.

  The last unit of a bucket fills its last batch.

  Args:
    units: see `make_iterator`, as are the other arguments.
    batch_size: examples per batch over all hosts.

  Yields:
    The examples that this host holds, and the number of units without fillers.

  Raises:
    DamagedError: a record is damaged.
  """
  reader = _Reader(cache)
  local = local_indices(sharding, batch_size)
  size = batch_size // len(units[0])
  for items in _by_bucket(units):
    read = _ReadLocalLatents(reader, items, local)
    for start in range(0, len(items), size):
      indices = np.minimum(np.arange(start, start + size), len(items) - 1)
      yield read.map(indices), min(size, len(items) - start)


def _by_bucket(units: Sequence[Unit]) -> list[list[Unit]]:
  """The units of each bucket, buckets in ascending order."""
  buckets = collections.defaultdict(list)
  for unit in units:
    buckets[unit[0].entry.bucket].append(unit)
  return [items for _, items in sorted(buckets.items())]
