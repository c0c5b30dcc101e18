"""Grain pipeline from tokenised ratings to batches for training a critic.

Frames are decoded each time an example is used. As in `pipeline`, every host
shuffles in the same way and decodes the examples that its devices hold, so that
the n-th batch is the same on any number of hosts and the position in the data
is one number.

Shape suffixes: B batch, N tokens of a sequence.
"""

import collections
from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import itertools
from typing import Any

import grain
import jax
import numpy as np

from lift_jax.data.batch_sizes import batch_shares
from lift_jax.data.critic_examples import (
  CriticDataConfig,
  Example,
  TrainingTokenizer,
)
from lift_jax.data.critic_units import (
  Preference,
  Shape,
  Unit,
  shape_of,
  single_units,
)
from lift_jax.data.example_reader import ExampleReader
from lift_jax.data.global_batch import READ_AHEAD, local_indices
from lift_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class _Stream:
  """Units that are sampled without replacement within an epoch.

  Attributes:
    indices: into the list of units.
    share: fraction of all sampled units that come from this stream.
  """

  indices: tuple[int, ...]
  share: float


def check_real_share(
  examples: Sequence[Example], real_share: float | None
) -> Mapping[bool, int]:
  """The number of real and of generated examples.

  Raises:
    UserError: `real_share` needs examples of a kind that is missing.
  """
  count = collections.Counter(e.is_real for e in examples)
  if real_share is not None and len(count) < 2:
    raise UserError(
      f'data.real_share is {real_share:g}, but all {len(examples)} training '
      f'records are {"real" if count[True] else "generated"}; set it to None, '
      'or list files of both kinds'
    )
  return count


def _streams(
  units: Sequence[Unit], examples: Sequence[Example], real_share: float | None
) -> dict[Shape, list[_Stream]]:
  """The streams of each shape of units."""
  first = [examples[unit.members[0]] for unit in units]
  count = check_real_share(first, real_share)
  groups = collections.defaultdict(list)
  for index, (unit, example) in enumerate(zip(units, first, strict=True)):
    # Without a given share, real and generated examples form one stream.
    is_separate = real_share is not None and example.is_real
    groups[shape_of(unit, examples), is_separate].append(index)
  streams = collections.defaultdict(list)
  for (shape, is_real), indices in sorted(groups.items()):
    if real_share is None:
      share = len(indices) / len(units)
    else:
      of_kind = real_share if is_real else 1 - real_share
      share = of_kind * len(indices) / count[is_real]
    streams[shape].append(_Stream(tuple(indices), share))
  return streams


def units_by_shape(
  units: Sequence[Unit], examples: Sequence[Example], real_share: float | None
) -> dict[Shape, tuple[list[Unit], float]]:
  """The units of each shape, and their share among all sampled units."""
  return {
    shape: (
      [units[index] for stream in streams for index in stream.indices],
      sum(stream.share for stream in streams),
    )
    for shape, streams in _streams(units, examples, real_share).items()
  }


def label_weights(
  units: Sequence[Unit],
  examples: Sequence[Example],
  real_share: float | None,
  label_weight: str,
) -> np.ndarray:
  """Loss weight of each example, float32; 1 on average over sampled examples.

  For 'balanced', examples of label c have weight 1 / (C p(c)), where p(c) is
  the fraction of sampled examples with that label and C the number of labels.
  """
  if label_weight == 'none':
    return np.ones(len(examples), np.float32)
  share_of_label = collections.defaultdict(float)
  for streams in _streams(units, examples, real_share).values():
    for stream in streams:
      for index in stream.indices:
        members = units[index].members
        for member in members:
          label = examples[member].label
          if label is not None:
            share = stream.share / len(stream.indices) / len(members)
            share_of_label[label] += share
  return np.array(
    [
      1.0
      if example.label is None
      else 1 / (len(share_of_label) * share_of_label[example.label])
      for example in examples
    ],
    np.float32,
  )


class _ReadLocalExamples(grain.transforms.Map):
  """Unit indices of a batch to the arrays of the examples of this host."""

  def __init__(
    self,
    units: Sequence[Unit],
    examples: Sequence[Example],
    weights: np.ndarray,
    local: np.ndarray,
    reader: ExampleReader,
    pad_id: int,
    labels: Sequence[str] | None,
  ):
    self._units = units
    self._examples = examples
    self._weights = weights
    self._local = local
    self._reader = reader
    self._pad_id = pad_id
    self._labels = labels

  def map(self, element: np.ndarray) -> dict[str, Any]:
    units = [self._units[index] for index in element]
    length = shape_of(units[0], self._examples)[-1]
    slots = [
      (unit, member) for unit in units for member in range(len(unit.members))
    ]
    local = [slots[slot] for slot in self._local]
    wanted = [unit.members[member] for unit, member in local]
    indices, frames = zip(*self._reader.read(wanted), strict=True)
    chosen = [self._examples[index] for index in indices]
    weights = self._weights[list(indices)]
    arrays = _arrays_of(chosen, frames, weights, self._pad_id, length)
    if self._labels is not None:
      arrays['ratings'] = _ratings_of(chosen, self._labels)
      is_own_b = np.array(indices) == wanted
      size = len(units[0].members)
      arrays['ratings'] |= {
        'preference': _without_substitutes(
          [unit.preference_of(member) for unit, member in local],
          is_own_b,
          min(size, 2),
        ),
        'overall': _without_substitutes(
          [unit.overall for unit, _ in local], is_own_b, size
        ),
      }
    return arrays


def _without_substitutes(
  preference_b3: Sequence[Preference], is_own_b: np.ndarray, size: int
) -> np.ndarray:
  """Preferences; 0 for groups of `size` in which an example was replaced."""
  is_whole_u = is_own_b.reshape(-1, size).all(axis=1)
  is_whole_b = np.repeat(is_whole_u, size)
  return (np.array(preference_b3) * is_whole_b[:, None]).astype(np.float32)


def _ratings_of(
  chosen: Sequence[Example], labels: Sequence[str]
) -> dict[str, np.ndarray]:
  """`critic_step.Ratings` of examples that are not compared."""
  no_preference_b3 = np.zeros((len(chosen), 3), np.float32)
  return {
    'position': np.array([e.rating_position for e in chosen], np.int32),
    'shares': np.stack([_shares(e, labels) for e in chosen]),
    'preference': no_preference_b3,
    'overall': no_preference_b3,
  }


def _shares(example: Example, labels: Sequence[str]) -> np.ndarray:
  """Of each label among the votes; all 0 without a rating."""
  counts = np.array([example.votes.get(name, 0) for name in labels], np.float32)
  return counts / max(counts.sum(), 1)


def _arrays_of(
  chosen: Sequence[Example],
  frames: Sequence[Any],
  weights: np.ndarray,
  pad_id: int,
  length: int,
) -> dict[str, Any]:
  """The arrays of examples of one shape, given those of their frames."""
  shape = len(chosen), length
  tokens_bn = np.full(shape, pad_id, np.int32)
  is_target_bn = np.zeros(shape, bool)
  segment_ids_bn = np.zeros(shape, np.int32)
  for slot, example in enumerate(chosen):
    end = len(example.tokens)
    tokens_bn[slot, :end] = example.tokens
    is_target_bn[slot, :end] = example.is_target
    segment_ids_bn[slot, :end] = 1
  return {
    'frames': jax.tree.map(lambda *each: np.stack(each), *frames),
    'tokens': tokens_bn,
    'is_target': is_target_bn,
    'segment_ids': segment_ids_bn,
    'weight': weights,
  }


def validation_batches(
  examples: Sequence[Example],
  tokenizer: TrainingTokenizer,
  reader: ExampleReader,
  batch_size: int,
  sharding: jax.sharding.Sharding,
  labels: Sequence[str] | None = None,
) -> Iterator[dict[str, Any]]:
  """Batches as of `make_iterator` that contain every example once, in order.

  They have one more array: index int32 [B], of each example, and -1 in slots
  that only fill the last batch of a shape, or hold what the reader has put in
  place of an example. These have no target and no votes.
  """
  local = local_indices(sharding, batch_size)
  by_shape = collections.defaultdict(list)
  for index, example in enumerate(examples):
    by_shape[example.shape].append(index)
  for _, same in sorted(by_shape.items()):
    for start in range(0, len(same), batch_size):
      places = start + local
      wanted = [same[min(place, len(same) - 1)] for place in places]
      indices, frames = zip(*reader.read(wanted), strict=True)
      chosen = [examples[index] for index in indices]
      weights = np.ones(len(local), np.float32)
      arrays = _arrays_of(
        chosen, frames, weights, tokenizer.pad_id, chosen[0].length
      )
      is_used = (places < len(same)) & (np.array(indices) == wanted)
      arrays['is_target'] &= is_used[:, None]
      arrays['index'] = np.where(is_used, wanted, -1).astype(np.int32)
      if labels is not None:
        arrays['ratings'] = _ratings_of(chosen, labels)
        arrays['ratings']['shares'] *= is_used[:, None]
      yield arrays


def make_iterator(
  examples: Sequence[Example],
  tokenizer: TrainingTokenizer,
  reader: ExampleReader,
  batch_sizes: Mapping[Shape, int],
  sharding: jax.sharding.Sharding,
  seed: int,
  config: CriticDataConfig,
  units: Sequence[Unit] | None = None,
  labels: Sequence[str] | None = None,
) -> grain.DatasetIterator:
  """Endless batches of one shape each, shapes in proportion to their examples.

  Every epoch of a shape is reshuffled; with a given `real_share`, real and
  generated clips have separate epochs. The iterator yields the examples that
  this host holds; `global_batch.to_global` makes a global batch of them. Its
  state is the number of batches so far, the same on every host.

  A batch is a dict: frames, the arrays of `FramePreprocessor.preprocess` with a
  batch axis; tokens int32 [B, N], padded on the right; is_target bool [B, N];
  segment_ids int32 [B, N], 1 for tokens and 0 for padding; weight float32 [B];
  and with `labels` ratings, those of `critic_step.Ratings` as a dict.

  Args:
    examples: to train on.
    tokenizer: the one that made them.
    reader: of the same examples.
    batch_sizes: examples per batch of each shape, over all hosts.
    sharding: of a batch along its first axis.
    seed: of the order.
    config: how examples are sampled and weighted.
    units: what is sampled, all of one size, which divides the batch of each
      device; by default each example alone.
    labels: those that votes are shared among, if they are learnt from.

  Raises:
    UserError: `real_share` needs examples of a kind that is missing. Later,
      from `next`: a clip cannot be decoded, nor replaced.
  """
  units = single_units(examples) if units is None else units
  weights = label_weights(
    units, examples, config.real_share, config.label_weight
  )
  seeds = itertools.count(seed)  # one per stream
  batches, shares, sizes = [], [], []
  for shape, streams in _streams(units, examples, config.real_share).items():
    datasets = [
      grain.MapDataset.source(stream.indices).shuffle(seed=next(seeds)).repeat()
      for stream in streams
    ]
    mixed = _mix(datasets, [stream.share for stream in streams])
    size = batch_sizes[shape]
    read_examples = _ReadLocalExamples(
      units,
      examples,
      weights,
      local_indices(sharding, size),
      reader,
      tokenizer.pad_id,
      labels,
    )
    # Nothing is dropped, see `pipeline.make_iterator`.
    batches.append(
      mixed.batch(size // len(units[0].members), drop_remainder=True).map(
        read_examples
      )
    )
    shares.append(sum(stream.share for stream in streams))
    sizes.append(size)
  return iter(
    _mix(batches, batch_shares(shares, sizes)).to_iter_dataset(
      grain.ReadOptions(num_threads=READ_AHEAD, prefetch_buffer_size=READ_AHEAD)
    )
  )


def _mix(
  datasets: Sequence[grain.MapDataset], shares: Sequence[float]
) -> grain.MapDataset:
  if len(datasets) == 1:
    return datasets[0]
  return grain.MapDataset.mix(datasets, shares)
