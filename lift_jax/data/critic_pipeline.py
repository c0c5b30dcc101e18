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

from lift_jax.data.critic_examples import (
  CriticDataConfig,
  Example,
  TrainingTokenizer,
)
from lift_jax.data.example_reader import ExampleReader
from lift_jax.data.global_batch import READ_AHEAD, local_indices
from lift_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class _Stream:
  """Examples that are sampled without replacement within an epoch.

  Attributes:
    indices: into the list of examples.
    share: fraction of all sampled examples that come from this stream.
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
  examples: Sequence[Example], real_share: float | None
) -> dict[tuple[int, ...], list[_Stream]]:
  """The streams of each shape of examples."""
  count = check_real_share(examples, real_share)
  groups = collections.defaultdict(list)
  for index, example in enumerate(examples):
    # Without a given share, real and generated examples form one stream.
    is_separate = real_share is not None and example.is_real
    groups[example.shape, is_separate].append(index)
  streams = collections.defaultdict(list)
  for (shape, is_real), indices in sorted(groups.items()):
    if real_share is None:
      share = len(indices) / len(examples)
    else:
      of_kind = real_share if is_real else 1 - real_share
      share = of_kind * len(indices) / count[is_real]
    streams[shape].append(_Stream(tuple(indices), share))
  return streams


def label_weights(
  examples: Sequence[Example], real_share: float | None, label_weight: str
) -> np.ndarray:
  """Loss weight of each example, float32; 1 on average over sampled examples.

  For 'balanced', examples of label c have weight 1 / (C p(c)), where p(c) is
  the fraction of sampled examples with that label and C the number of labels.
  """
  if label_weight == 'none':
    return np.ones(len(examples), np.float32)
  share_of_label = collections.defaultdict(float)
  for streams in _streams(examples, real_share).values():
    for stream in streams:
      for index in stream.indices:
        label = examples[index].record.label
        share_of_label[label] += stream.share / len(stream.indices)
  return np.array(
    [
      1 / (len(share_of_label) * share_of_label[example.record.label])
      for example in examples
    ],
    np.float32,
  )


class _ReadLocalExamples(grain.transforms.Map):
  """Example indices of a batch to the arrays of the examples of this host."""

  def __init__(
    self,
    examples: Sequence[Example],
    weights: np.ndarray,
    local: np.ndarray,
    reader: ExampleReader,
    pad_id: int,
  ):
    self._examples = examples
    self._weights = weights
    self._local = local
    self._reader = reader
    self._pad_id = pad_id

  def map(self, element: np.ndarray) -> dict[str, Any]:
    read = self._reader.read(element[self._local].tolist())
    indices, frames = zip(*read, strict=True)
    chosen = [self._examples[index] for index in indices]
    weights = self._weights[list(indices)]
    return _arrays_of(chosen, frames, weights, self._pad_id)


def _arrays_of(
  chosen: Sequence[Example],
  frames: Sequence[Any],
  weights: np.ndarray,
  pad_id: int,
) -> dict[str, Any]:
  """The arrays of examples of one shape, given those of their frames."""
  shape = len(chosen), chosen[0].length
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
) -> Iterator[dict[str, Any]]:
  """Batches as of `make_iterator` that contain every example once, in order.

  The last batch of a shape is padded with examples that have no target. So are
  the slots of examples that the reader replaces.
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
      arrays = _arrays_of(chosen, frames, weights, tokenizer.pad_id)
      is_used = (places < len(same)) & (np.array(indices) == wanted)
      arrays['is_target'] &= is_used[:, None]
      yield arrays


def make_iterator(
  examples: Sequence[Example],
  tokenizer: TrainingTokenizer,
  reader: ExampleReader,
  batch_size: int,
  sharding: jax.sharding.Sharding,
  seed: int,
  config: CriticDataConfig,
) -> grain.DatasetIterator:
  """Endless batches of one shape each, shapes in proportion to their examples.

  Every epoch of a shape is reshuffled; with a given `real_share`, real and
  generated clips have separate epochs. The iterator yields the examples that
  this host holds; `global_batch.to_global` makes a global batch of them. Its
  state is the number of batches so far, the same on every host.

  A batch is a dict: frames, the arrays of `FramePreprocessor.preprocess` with a
  batch axis; tokens int32 [B, N], padded on the right; is_target bool [B, N];
  segment_ids int32 [B, N], 1 for tokens and 0 for padding; weight float32 [B].

  Args:
    examples: to train on.
    tokenizer: the one that made them.
    reader: of the same examples.
    batch_size: examples per batch over all hosts.
    sharding: of a batch along its first axis.
    seed: of the order.
    config: how examples are sampled and weighted.

  Raises:
    UserError: `real_share` needs examples of a kind that is missing. Later,
      from `next`: a clip cannot be decoded, nor replaced.
  """
  read_examples = _ReadLocalExamples(
    examples,
    label_weights(examples, config.real_share, config.label_weight),
    local_indices(sharding, batch_size),
    reader,
    tokenizer.pad_id,
  )
  seeds = itertools.count(seed)  # one per stream
  batches, shares = [], []
  for streams in _streams(examples, config.real_share).values():
    datasets = [
      grain.MapDataset.source(stream.indices).shuffle(seed=next(seeds)).repeat()
      for stream in streams
    ]
    mixed = _mix(datasets, [stream.share for stream in streams])
    # Nothing is dropped, see `pipeline.make_iterator`.
    batches.append(
      mixed.batch(batch_size, drop_remainder=True).map(read_examples)
    )
    shares.append(sum(stream.share for stream in streams))
  return iter(
    _mix(batches, shares).to_iter_dataset(
      grain.ReadOptions(num_threads=READ_AHEAD, prefetch_buffer_size=READ_AHEAD)
    )
  )


def _mix(
  datasets: Sequence[grain.MapDataset], shares: Sequence[float]
) -> grain.MapDataset:
  if len(datasets) == 1:
    return datasets[0]
  return grain.MapDataset.mix(datasets, shares)
