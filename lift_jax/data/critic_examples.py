"""Training examples of a critic: tokenised ratings of clips.

An example is a clip, a question about it and the answer of an annotator.

Shape suffixes: T frames, H height, W width; the last axis of 3 is RGB.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib
from typing import Any, Protocol

import numpy as np

from lift_jax import config_lib
from lift_jax.data import video
from lift_jax.data.clip_flags import ClipRules
from lift_jax.data.critic_records import (
  CriticRecords,
  FeedbackConfig,
  PairQuestion,
)
from lift_jax.data.hra import HRARecord
from lift_jax.data.json_records import ReadResult
from lift_jax.errors import UserError
from lift_jax.runtime import storage

LABEL_WEIGHTS = ('none', 'balanced')

# In place of an answer that is not known; it is cut off again.
_ANY_ANSWER = 'A.'


@dataclasses.dataclass(frozen=True)
class CriticDataConfig(FeedbackConfig, ClipRules):
  """Which human feedback to use, and how to sample it.

  The reference trains on the concatenation of LiFT-HRA and VIDGEN, with
  rationales and equal weights: `real_share` None, `with_rationale` True,
  `label_weight` 'none'.

  Attributes:
    real_share: fraction of the sampled examples that are real; None samples
      every example equally often.
    with_rationale: whether the critic learns to give a rationale, or only the
      label.
    label_weight: 'balanced' gives rare labels more weight, so that each label
      counts the same; 'none' gives every example 1.
    text_buckets: allowed numbers of tokens of a sequence besides those of its
      frames. Each sequence takes the smallest that fits; one program is
      compiled for each.
    num_threads: threads that decode.
    rated_pairs: whether two rated clips of one prompt are a pair too, for the
      loss of pairs.
  """

  real_share: float | None
  with_rationale: bool
  label_weight: str
  text_buckets: tuple[int, ...]
  num_threads: int
  rated_pairs: bool = dataclasses.field(default=True, kw_only=True)

  def __post_init__(self):
    FeedbackConfig.__post_init__(self)
    ClipRules.__post_init__(self)
    config_lib.check_choice(
      'data.label_weight', self.label_weight, LABEL_WEIGHTS
    )
    # In this form it rejects NaN too.
    if self.real_share is not None and not 0 < self.real_share < 1:
      raise UserError(
        f'data.real_share is {self.real_share:g}; give a number between 0 and '
        '1, or None; to use no real clips, leave data.real empty'
      )
    if not self.text_buckets or min(self.text_buckets) < 1:
      raise UserError(
        f'data.text_buckets is {self.text_buckets}; give at least one number '
        'of tokens above 0'
      )
    if self.num_threads < 1:
      raise UserError('data.num_threads must be above 0')


class SelectedFrames(Protocol):
  """The part of `models.critic_protocols.FrameSelection` that is read here."""

  @property
  def indices(self) -> tuple[int, ...]: ...

  @property
  def num_positions(self) -> int: ...

  @property
  def shape(self) -> tuple[int, ...]: ...


class FramePreprocessor(Protocol):
  """The part of `models.critic_protocols.FrameProcessor` that is called here.

  It and the tokenizer take the selections that it makes.
  """

  def select(self, clip: video.ClipInfo) -> SelectedFrames: ...

  def preprocess(self, frames_thw3: np.ndarray, selection: Any) -> Any: ...


class TrainingTokenizer(Protocol):
  """The part of `models.critic_protocols.Tokenizer` that is used here."""

  pad_id: int

  def training(
    self,
    caption: str,
    question: str,
    frames: Any,
    answer: str,
    *,
    where: str,
  ) -> tuple[list[int], list[bool]]: ...


@dataclasses.dataclass(frozen=True)
class Example:
  """A record as input of the critic, without the pixels of its frames.

  Attributes:
    record: its source.
    is_real: whether the clip is real.
    clip: metadata of the file.
    selection: the frames of the clip that the critic sees.
    tokens: int32, with placeholders for the frames.
    is_target: bool, of the same length: the tokens of the answer; without a
      rating there is none.
    length: number of tokens after padding.
  """

  record: HRARecord | PairQuestion
  is_real: bool
  clip: video.ClipInfo
  selection: SelectedFrames
  tokens: np.ndarray
  is_target: np.ndarray
  length: int

  @property
  def path(self) -> pathlib.Path:
    """The file of the clip."""
    return self.record.path

  @property
  def label(self) -> str | None:
    """Of the rating; None without one."""
    return self.record.label if isinstance(self.record, HRARecord) else None

  @property
  def votes(self) -> Mapping[str, int]:
    """How many people chose each label; empty without a rating."""
    if not isinstance(self.record, HRARecord):
      return {}
    return self.record.votes or {self.record.label: 1}

  @property
  def rating_position(self) -> int:
    """Position of the token that predicts the label."""
    answer = np.flatnonzero(self.is_target)
    return int(answer[0] if answer.size else len(self.tokens)) - 1

  @property
  def shape(self) -> tuple[int, ...]:
    """Examples of the same shape share batches."""
    return *self.selection.shape, self.length


def answer_of(record: HRARecord, with_rationale: bool) -> str:
  """'LABEL. RATIONALE', or 'LABEL.' without a rationale."""
  rationale = f' {record.rationale}' if record.rationale else ''
  return f'{record.label}.{rationale if with_rationale else ""}'


def make_examples(
  records: Sequence[HRARecord | PairQuestion],
  source: CriticRecords,
  clip_of: Mapping[str, video.ClipInfo | str],
  tokenizer: TrainingTokenizer,
  frames: FramePreprocessor,
  config: CriticDataConfig,
) -> ReadResult[Example]:
  """Tokenises records.

  Args:
    records: one of the splits.
    source: all records of the data set.
    clip_of: the metadata of each clip, or why it cannot be used.
    tokenizer: of the critic.
    frames: of the critic.
    config: format of the answers, and maximum length of a sequence.

  Raises:
    UserError: a clip that cannot be used or a text that is too long, unless
      `config.on_bad_record` is 'skip'; or no record is left.
  """
  examples, skipped = [], []
  for record in records:
    clip = clip_of[record.video]
    if not isinstance(clip, str) and (why := config.why_skipped(clip.flags)):
      skipped.append((record.where, why))
      continue
    try:
      examples.append(_example(record, source, clip, tokenizer, frames, config))
    except UserError as error:
      if config.on_bad_record == 'error':
        raise
      reason = str(error).removeprefix(f'{record.where}: ')
      skipped.append((record.where, reason))
  return _checked(ReadResult(examples, skipped), source)


def without(
  found: ReadResult[Example], bad: Mapping[str, str], source: CriticRecords
) -> ReadResult[Example]:
  """The examples without those of bad clips.

  Args:
    found: examples, and skipped records.
    bad: why clips cannot be used, by name.
    source: all records of the data set.

  Raises:
    UserError: no record is left.
  """
  left = [e for e in found.records if e.record.video not in bad]
  skipped = [
    (example.record.where, bad[example.record.video])
    for example in found.records
    if example.record.video in bad
  ]
  return _checked(ReadResult(left, found.skipped + skipped), source)


def _checked(
  found: ReadResult[Example], source: CriticRecords
) -> ReadResult[Example]:
  if not found.records:
    first = f': {": ".join(found.skipped[0])}' if found.skipped else ''
    raise UserError(
      f'{source.root}: no record is left to train on; add some, or fix those '
      f'that are skipped{first}'
    )
  return found


def _example(
  record: HRARecord | PairQuestion,
  source: CriticRecords,
  clip: video.ClipInfo | str,
  tokenizer: TrainingTokenizer,
  frames: FramePreprocessor,
  config: CriticDataConfig,
) -> Example:
  if isinstance(clip, str):
    raise UserError(f'{record.where}: {clip}')
  selection = frames.select(clip)
  is_rated = isinstance(record, HRARecord)
  tokens, is_target = tokenizer.training(
    record.caption,
    record.question,
    selection,
    answer_of(record, config.with_rationale) if is_rated else _ANY_ANSWER,
    where=record.where,
  )
  if not is_rated:
    prompt = is_target.index(True)
    tokens, is_target = tokens[:prompt], is_target[:prompt]
  lengths = [selection.num_positions + n for n in sorted(config.text_buckets)]
  length = next((n for n in lengths if n >= len(tokens)), None)
  if length is None:
    excess = len(tokens) - lengths[-1]
    raise UserError(
      f'{record.where}: {len(tokens)} tokens, {excess} more than the longest '
      'sequence; shorten the caption or the rationale, or raise the largest '
      f'of data.text_buckets by {excess}'
    )
  return Example(
    record,
    source.is_real(record),
    clip,
    selection,
    np.array(tokens, np.int32),
    np.array(is_target, bool),
    length,
  )


def decode_selected(
  path: pathlib.Path,
  clip: video.ClipInfo,
  selection: SelectedFrames,
  frames: FramePreprocessor,
  where: str,
) -> video.VideoClip:
  """The frames of a clip that a critic sees.

  Args:
    path: of the clip.
    clip: metadata of the file.
    selection: what `frames` selected given these metadata; the prompt has
      positions for it.
    frames: of the critic.
    where: location of the record, for messages.

  Raises:
    UserError: the clip cannot be decoded, or not to as many frames as the
      prompt has positions for.
  """

  def choose(num_frames: int, _: int) -> Sequence[int]:
    actual = dataclasses.replace(clip, num_frames=num_frames)
    return frames.select(actual).indices

  with storage.local_file(path) as local:
    decoded = video.decode(
      local, len(selection.indices), where=where, choose=choose
    )
  if len(decoded.frames) != len(selection.indices):
    raise UserError(
      f'{where}: {path} has {decoded.num_source_frames} frames, not as many as '
      'when the job began; start it again, or delete the record'
    )
  return decoded
