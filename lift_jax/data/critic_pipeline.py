"""Grain: from ratings of clips to batches that the critic trains on.

An example is a clip, a question about it and the answer of an annotator. Its
tokens are made once, at the start; its frames are decoded each time, in
threads. As in `pipeline`, the order is drawn on every host alike and a host
decodes the examples that its devices hold, so that the n-th batch is the same
on any number of hosts and the position in the data is one number.

Shape suffixes: B batch, N tokens of a sequence, T frames, H height, W width;
the last axis of 3 is RGB.
"""

import collections
from collections.abc import Iterator, Sequence
import concurrent.futures
import dataclasses
import itertools
import pathlib
from typing import Any, Protocol

import grain
import jax
import numpy as np

from lift_jax import config_lib
from lift_jax.data import video
from lift_jax.data.critic_records import CriticRecords, FeedbackConfig
from lift_jax.data.global_batch import READ_AHEAD, local_rows
from lift_jax.data.hra import HRARecord
from lift_jax.data.json_records import ReadResult
from lift_jax.errors import UserError

LABEL_WEIGHTS = ('none', 'balanced')


@dataclasses.dataclass(frozen=True)
class CriticDataConfig(FeedbackConfig):
  """Which human feedback, and how it is drawn.

  The reference trains on LiFT-HRA and VIDGEN one after the other in one list,
  with rationales and equal weights: `real_share` None, `with_rationale` True,
  `label_weight` 'none'.

  Attributes:
    real_share: part of the examples drawn that are real; None takes every
      example equally often.
    with_rationale: whether the critic learns to say why; else only the label.
    label_weight: 'balanced' gives rare labels more weight, so that each label
      counts the same; 'none' gives every example 1.
    text_buckets: the numbers of tokens that a sequence may have beside those
      of its frames. Each takes the smallest that holds it; every one of them is
      compiled on its own.
    num_threads: that decode.
  """

  real_share: float | None
  with_rationale: bool
  label_weight: str
  text_buckets: tuple[int, ...]
  num_threads: int

  def __post_init__(self):
    super().__post_init__()
    config_lib.check_choice(
      'data.label_weight', self.label_weight, LABEL_WEIGHTS
    )
    # Not the other way round, because of NaN.
    if self.real_share is not None and not 0 < self.real_share < 1:
      raise UserError(
        f'data.real_share is {self.real_share:g}; give a number between 0 and '
        '1, or None, and leave data.real empty for none'
      )
    if not self.text_buckets or min(self.text_buckets) < 1:
      raise UserError(
        f'data.text_buckets is {self.text_buckets}; give at least one number '
        'of tokens above 0'
      )
    if self.num_threads < 1:
      raise UserError('data.num_threads must be above 0')


class FrameSelection(Protocol):
  """The part of `models.critics.FrameSelection` that is read here."""

  indices: tuple[int, ...]
  num_positions: int


class FrameProcessor(Protocol):
  """The part of `models.critics.FrameProcessor` that is called here."""

  def select(self, clip: video.ClipInfo) -> FrameSelection: ...

  def preprocess(
    self, frames_thw3: np.ndarray, selection: FrameSelection
  ) -> Any: ...


class Tokenizer(Protocol):
  """The part of `models.critics.Tokenizer` that is used here."""

  pad_id: int

  def training(
    self,
    caption: str,
    question: str,
    frames: FrameSelection,
    answer: str,
    *,
    where: str,
  ) -> tuple[list[int], list[bool]]: ...


@dataclasses.dataclass(frozen=True)
class Example:
  """A record as the critic sees it, but for its frames.

  Attributes:
    record: what it is made of.
    path: of the clip.
    is_real: whether the clip is real.
    clip: what the file states.
    selection: the frames of the clip that are seen.
    tokens: int32, with positions for the frames.
    is_target: bool, of the same length: what is learned.
    length: tokens of a sequence of its batches, padding included.
  """

  record: HRARecord
  path: pathlib.Path
  is_real: bool
  clip: video.ClipInfo
  selection: FrameSelection
  tokens: np.ndarray
  is_target: np.ndarray
  length: int

  @property
  def shape(self) -> tuple[int, int]:
    """Examples with the same shape share batches."""
    return self.selection.num_positions, self.length


def answer_of(record: HRARecord, with_rationale: bool) -> str:
  """'LABEL. RATIONALE', or 'LABEL.' where there is none or none is wanted."""
  rationale = f' {record.rationale}' if record.rationale else ''
  return f'{record.label}.{rationale if with_rationale else ""}'


def make_examples(
  records: Sequence[HRARecord],
  source: CriticRecords,
  tokenizer: Tokenizer,
  frames: FrameProcessor,
  config: CriticDataConfig,
) -> ReadResult[Example]:
  """Tokenises records; opens each clip to learn how many frames it has.

  Args:
    records: one of the splits.
    source: what they belong to.
    tokenizer: of the critic.
    frames: of the critic.
    config: what the answers are, and how long a sequence may be.

  Raises:
    UserError: a clip that is no video or a text that is too long, unless
      `config.on_bad_record` is 'skip'; or no record is left.
  """
  clip_of = _probe(records, source, config.num_threads)
  examples, skipped = [], []
  for record in records:
    try:
      examples.append(
        _example(
          record, source, clip_of[record.video], tokenizer, frames, config
        )
      )
    except UserError as error:
      if config.on_bad_record == 'error':
        raise
      reason = str(error).removeprefix(f'{record.where}: ')
      skipped.append((record.where, reason))
  if not examples:
    why = f'; the first: {": ".join(skipped[0])}' if skipped else ''
    raise UserError(f'{source.root}: no record is left to train on{why}')
  return ReadResult(examples, skipped)


def _probe(
  records: Sequence[HRARecord], source: CriticRecords, num_threads: int
) -> dict[str, video.ClipInfo | str]:
  """What each video states, or why it cannot be used."""
  first = {}
  for record in records:
    first.setdefault(record.video, record)

  def probe(record: HRARecord) -> video.ClipInfo | str:
    try:
      return video.probe(source.path(record), where=record.where)
    except UserError as error:
      # Each record of the clip says it of itself.
      return str(error).removeprefix(f'{record.where}: ')

  with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
    return dict(zip(first, pool.map(probe, first.values()), strict=True))


def _example(
  record: HRARecord,
  source: CriticRecords,
  clip: video.ClipInfo | str,
  tokenizer: Tokenizer,
  frames: FrameProcessor,
  config: CriticDataConfig,
) -> Example:
  if isinstance(clip, str):
    raise UserError(f'{record.where}: {clip}')
  selection = frames.select(clip)
  tokens, is_target = tokenizer.training(
    record.caption,
    record.question,
    selection,
    answer_of(record, config.with_rationale),
    where=record.where,
  )
  lengths = [selection.num_positions + n for n in sorted(config.text_buckets)]
  length = next((n for n in lengths if n >= len(tokens)), None)
  if length is None:
    excess = len(tokens) - lengths[-1]
    raise UserError(
      f'{record.where}: {len(tokens)} tokens, {excess} more than the longest '
      'row; shorten the caption or the rationale, or raise the last of '
      f'data.text_buckets by {excess}'
    )
  return Example(
    record,
    source.path(record),
    source.is_real(record),
    clip,
    selection,
    np.array(tokens, np.int32),
    np.array(is_target, bool),
    length,
  )


@dataclasses.dataclass(frozen=True)
class _Stream:
  """Examples that are drawn one after the other, each once in an epoch.

  Attributes:
    indices: into the list of examples.
    share: part of all examples drawn that come from here.
  """

  indices: tuple[int, ...]
  share: float


def _streams(
  examples: Sequence[Example], real_share: float | None
) -> dict[tuple[int, int], list[_Stream]]:
  """By shape of the examples: what is drawn there, and how often."""
  count = collections.Counter(e.is_real for e in examples)
  share_of = {True: real_share, False: 1 - (real_share or 0)}
  if real_share is not None and len(count) < 2:
    raise UserError(
      f'data.real_share is {real_share:g}, but all {len(examples)} records '
      f'that train are {"real" if count[True] else "generated"}; set it to '
      'None, or list files of both kinds'
    )
  groups = collections.defaultdict(list)
  for index, example in enumerate(examples):
    # Without a share to keep there is one stream, as if in one file.
    is_apart = real_share is not None and example.is_real
    groups[example.shape, is_apart].append(index)
  streams = collections.defaultdict(list)
  for (shape, is_real), indices in sorted(groups.items()):
    if real_share is None:
      share = len(indices) / len(examples)
    else:
      share = share_of[is_real] * len(indices) / count[is_real]
    streams[shape].append(_Stream(tuple(indices), share))
  return streams


def label_weights(
  examples: Sequence[Example], real_share: float | None, label_weight: str
) -> np.ndarray:
  """How much each example counts, float32; 1 on average over those drawn.

  For 'balanced', examples of label c count 1 / (C p(c)), where p(c) is the
  part of the examples drawn that have that label and C the number of labels
  there are.
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


def decode_selected(
  path: pathlib.Path,
  clip: video.ClipInfo,
  selection: FrameSelection,
  frames: FrameProcessor,
  where: str,
) -> video.VideoClip:
  """The frames of a clip that a critic sees.

  Args:
    path: of the clip.
    clip: what it states.
    selection: what `frames` chose by that; a prompt was made for it.
    frames: of the critic.
    where: names the record in messages.

  Raises:
    UserError: the clip cannot be decoded, or not to as many frames as the
      prompt has positions for.
  """

  def choose(num_frames: int, _: int) -> Sequence[int]:
    found = dataclasses.replace(clip, num_frames=num_frames)
    return frames.select(found).indices

  decoded = video.decode(
    path, len(selection.indices), where=where, choose=choose
  )
  if len(decoded.frames) != len(selection.indices):
    raise UserError(
      f'{where}: {path} shows {decoded.num_source_frames} frames, not as many '
      'as it states; encode it again as mp4, or delete the record'
    )
  return decoded


class _ReadExamples(grain.transforms.Map):
  """A batch of example numbers to the arrays of the examples held here."""

  def __init__(
    self,
    examples: Sequence[Example],
    weights: np.ndarray,
    local: np.ndarray,
    frames: FrameProcessor,
    pad_id: int,
    pool: concurrent.futures.Executor,
  ):
    self._examples = examples
    self._weights = weights
    self._local = local
    self._frames = frames
    self._pad_id = pad_id
    self._pool = pool

  def map(self, element: np.ndarray) -> dict[str, Any]:
    numbers = element[self._local]
    chosen = [self._examples[number] for number in numbers]
    weights = self._weights[numbers]
    return _arrays_of(chosen, weights, self._frames, self._pad_id, self._pool)


def _arrays_of(
  chosen: Sequence[Example],
  weights: np.ndarray,
  frames: FrameProcessor,
  pad_id: int,
  pool: concurrent.futures.Executor,
) -> dict[str, Any]:
  """The arrays of examples of one shape."""

  def read(example: Example) -> Any:
    decoded = decode_selected(
      example.path,
      example.clip,
      example.selection,
      frames,
      example.record.where,
    )
    return frames.preprocess(decoded.frames, example.selection)

  read_frames = pool.map(read, chosen)
  shape = len(chosen), chosen[0].length
  tokens_bn = np.full(shape, pad_id, np.int32)
  is_target_bn = np.zeros(shape, bool)
  segment_ids_bn = np.zeros(shape, np.int32)
  for row, example in enumerate(chosen):
    end = len(example.tokens)
    tokens_bn[row, :end] = example.tokens
    is_target_bn[row, :end] = example.is_target
    segment_ids_bn[row, :end] = 1
  return {
    'frames': jax.tree.map(lambda *each: np.stack(each), *read_frames),
    'tokens': tokens_bn,
    'is_target': is_target_bn,
    'segment_ids': segment_ids_bn,
    'weight': weights,
  }


def in_order(
  examples: Sequence[Example],
  tokenizer: Tokenizer,
  frames: FrameProcessor,
  batch_size: int,
  sharding: jax.sharding.Sharding,
  num_threads: int,
) -> Iterator[dict[str, Any]]:
  """Every example once, batch by batch of one shape, as of `make_iterator`.

  The last batch of a shape is filled up with examples that have no target.
  """
  local = local_rows(sharding, batch_size)
  by_shape = collections.defaultdict(list)
  for example in examples:
    by_shape[example.shape].append(example)
  with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
    for _, same in sorted(by_shape.items()):
      for start in range(0, len(same), batch_size):
        numbers = start + local
        chosen = [same[min(number, len(same) - 1)] for number in numbers]
        weights = np.ones(len(local), np.float32)
        arrays = _arrays_of(chosen, weights, frames, tokenizer.pad_id, pool)
        arrays['is_target'] &= (numbers < len(same))[:, None]
        yield arrays


def make_iterator(
  examples: Sequence[Example],
  tokenizer: Tokenizer,
  frames: FrameProcessor,
  batch_size: int,
  sharding: jax.sharding.Sharding,
  seed: int,
  config: CriticDataConfig,
) -> grain.DatasetIterator:
  """Endless batches of one shape each, shapes in proportion to their examples.

  Every epoch of a shape is shuffled anew; where real clips have a share of
  their own, they and the others each have their epochs. The iterator gives the
  examples that this host holds; `global_batch.to_global` makes a batch of them.
  Its state is the number of batches drawn, the same on every host.

  A batch is a dict: frames, the arrays of `FrameProcessor.preprocess` with a
  batch axis; tokens int32 [B, N], padded at the end; is_target bool [B, N];
  segment_ids int32 [B, N], 1 for tokens and 0 for padding; weight float32 [B].

  Args:
    examples: to train on.
    tokenizer: that made them.
    frames: of the critic.
    batch_size: examples of a batch over all hosts.
    sharding: of a batch along its first axis.
    seed: of the order.
    config: what is drawn how often, and what it counts.

  Raises:
    UserError: a share is asked for that the examples do not allow. Later, from
      `next`: a clip cannot be decoded.
  """
  # Examples are decoded side by side, so that one batch does not wait for a
  # thread while the batches after it have theirs.
  pool = concurrent.futures.ThreadPoolExecutor(config.num_threads)
  read_examples = _ReadExamples(
    examples,
    label_weights(examples, config.real_share, config.label_weight),
    local_rows(sharding, batch_size),
    frames,
    tokenizer.pad_id,
    pool,
  )
  seeds = itertools.count(seed)  # no two streams in the same order
  batches, shares = [], []
  for streams in _streams(examples, config.real_share).values():
    drawn = [
      grain.MapDataset.source(stream.indices).shuffle(seed=next(seeds)).repeat()
      for stream in streams
    ]
    mixed = _mix(drawn, [stream.share for stream in streams])
    # See `pipeline.make_iterator` on what is dropped: nothing.
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
