"""Rates videos in full batches of one shape, with frames decoded ahead.

Legend: B videos, Q questions, N tokens of a prefix, M tokens of a question.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
import concurrent.futures
import dataclasses
import logging
import time
from typing import Any

import jax
import numpy as np

from lift_jax.data import video as video_lib
from lift_jax.data.critic_examples import decode_selected
from lift_jax.data.critic_prompts import CriticPrompts
from lift_jax.errors import UserError
from lift_jax.models.critic_protocols import (
  FrameProcessor,
  Frames,
  FrameSelection,
  Tokenizer,
)
from lift_jax.models.critic_tokens import shared_prefix
from lift_jax.rewards.answers import format_answer, split_answer
from lift_jax.runtime import storage
from lift_jax.runtime.batching import Shape, WorkBatch, ahead, fill_batches
from lift_jax.runtime.journal import Journal
from lift_jax.runtime.progress import Progress
from lift_jax.runtime.shutdown import StopSignal
from lift_jax.scoring.config import (
  ScoringPromptsConfig,
  ScoringRunConfig,
  VideosConfig,
)
from lift_jax.scoring.scorer import Prompts, Ratings, Scorer
from lift_jax.scoring.videos import CaptionedVideo

# Largest pixel value of a black clip, and largest change of a static one: the
# error of lossy codecs. x264 at a rate factor of 18 changes the pixels of a
# still image by up to 17.
_NOISE = 18
# Questions are padded to a multiple, as captions may change their first tokens.
_QUESTION_MULTIPLE = 16
# Probability of all labels together below which a rating is flagged.
_LOW_MASS = 0.5


@dataclasses.dataclass(frozen=True)
class RatingTask:
  """A video with its tokenised prompts.

  Attributes:
    video: the clip to rate.
    stamp: signature of its file, before anything was read.
    clip: metadata of the file.
    selection: the frames that its prompts have positions for.
    prefix: token ids that its prompts share.
    questions: token ids of the rest of each prompt.
    length: number of tokens of the padded prefix.
    question_length: number of tokens of each padded question.
  """

  video: CaptionedVideo
  stamp: storage.FileSignature | None
  clip: video_lib.ClipInfo
  selection: FrameSelection
  prefix: list[int]
  questions: list[list[int]]
  length: int
  question_length: int

  @property
  def shape(self) -> Shape:
    """Videos of the same shape share batches."""
    return *self.selection.shape, self.length, self.question_length


def make_task(
  video: CaptionedVideo,
  tokenizer: Tokenizer,
  frames: FrameProcessor,
  prompts: CriticPrompts,
  text_buckets: Sequence[int],
  max_undecodable: float,
) -> RatingTask:
  """Tokenises the prompts of a video.

  Raises:
    UserError: a clip that is not a video, or a text that is too long.
  """
  stamp = storage.file_signature(video.path)
  with storage.local_file(video.path) as path:
    clip = video_lib.probe(
      path, where=video.where, max_undecodable=max_undecodable
    )
  selection = frames.select(clip)
  complete = [
    tokenizer.inference(
      video.caption,
      question,
      selection,
      space_before_caption=prompts.space_before_caption,
      where=video.where,
    )
    for question in prompts.questions.values()
  ]
  split = shared_prefix(complete)
  lengths = [selection.num_positions + text for text in sorted(text_buckets)]
  fitting = [length for length in lengths if length >= split]
  if not fitting:
    raise UserError(
      f'{video.where}: the caption takes {split - selection.num_positions} '
      'tokens, more than the largest of prompts.text_buckets '
      f'({max(text_buckets)}); raise it, or shorten the caption'
    )
  questions = [ids[split:] for ids in complete]
  longest = max(map(len, questions))
  return RatingTask(
    video,
    stamp,
    clip,
    selection,
    complete[0][:split],
    questions,
    fitting[0],
    -(-longest // _QUESTION_MULTIPLE) * _QUESTION_MULTIPLE,
  )


def pad_prompts(tasks: Sequence[RatingTask], pad_id: int) -> Prompts:
  """Prompts of a batch of one shape."""
  first, num_tasks = tasks[0], len(tasks)
  prefix_bn = np.full((num_tasks, first.length), pad_id, np.int32)
  question_bqm = np.full(
    (num_tasks, len(first.questions), first.question_length), pad_id, np.int32
  )
  for slot, task in enumerate(tasks):
    prefix_bn[slot, : len(task.prefix)] = task.prefix
    for number, ids in enumerate(task.questions):
      question_bqm[slot, number, : len(ids)] = ids
  return Prompts(
    prefix_bn,
    np.array([len(task.prefix) for task in tasks], np.int32),
    question_bqm,
    np.array([[len(q) for q in task.questions] for task in tasks], np.int32),
  )


def read_frames(
  task: RatingTask, frames: FrameProcessor
) -> tuple[Frames, list[str]]:
  """Arrays of a clip for the critic, and flags of suspicious properties.

  Flagged clips are rated nevertheless.

  Raises:
    UserError: the clip cannot be decoded, or not to the frames that its prompt
      has positions for.
  """
  video, selection = task.video, task.selection
  clip = decode_selected(video.path, task.clip, selection, frames, video.where)
  flags = list(clip.flags)
  if clip.num_source_frames == 1:
    flags.append('single frame')
  elif selection.is_short:
    flags.append(f'{len(clip.frames)} frames')
  if clip.frames.max() <= _NOISE:
    flags.append('black')
  elif len(clip.frames) > 1 and np.ptp(clip.frames, axis=0).max() <= _NOISE:
    flags.append('static')
  return frames.preprocess(clip.frames, selection), flags


class Rater:
  """Rates videos and writes each rating to a journal.

  Args:
    make_scorer: loads the critic; called once there is something to rate.
    num_shards: number of shards of a batch on the critic's mesh.
    tokenizer: of the critic.
    label_ids: the first token of each label.
    prompts: questions and format of the prompts.
    fingerprint: what determines a rating, written with each.
    frames: of the critic.
    texts: lengths of prompts and answers.
    config: how the work is divided.
    rules: which clips are skipped, with a line that has the error.
  """

  def __init__(
    self,
    make_scorer: Callable[[], Scorer],
    num_shards: int,
    tokenizer: Tokenizer,
    label_ids: Mapping[str, int],
    prompts: CriticPrompts,
    fingerprint: Mapping[str, Any],
    frames: FrameProcessor,
    texts: ScoringPromptsConfig,
    config: ScoringRunConfig,
    rules: VideosConfig,
  ):
    self._make_scorer = make_scorer
    self._scorer: Scorer | None = None
    self._batch_size = config.batch_per_shard * num_shards
    self._tokenizer, self._prompts = tokenizer, prompts
    self._labels = {token: label for label, token in label_ids.items()}
    self._fingerprint, self._frames = dict(fingerprint), frames
    self._texts, self._config = texts, config
    self._rules = rules
    self.seconds = 0.0  # spent waiting for the devices
    self.num_rated = 0

  def run(
    self,
    videos: Sequence[CaptionedVideo],
    done: Mapping[str, Shape],
    journal: Journal,
    stop: StopSignal | None,
    progress: Progress,
    logger: logging.Logger,
  ) -> bool:
    """Rates the videos that are not done, until all are or `stop` is received.

    Args:
      videos: of this host.
      done: keys of the videos that are in the journal, with the shapes that it
        states; () where it does not, so that the clip is opened once more.

    Returns:
      Whether all videos are done.

    Raises:
      UserError: an unusable video, prompts and answers that exceed the context
        of the critic, probabilities that are not finite, or a full disk.
    """
    if all(video.key in done for video in videos):
      return True
    with concurrent.futures.ThreadPoolExecutor(
      self._config.num_readers
    ) as pool:
      tasks = self._tasks(videos, done, pool, journal, progress)
      batches = fill_batches(tasks, self._batch_size)
      for batch, frames in self._read_ahead(batches, pool):
        if stop is not None and stop.received:
          logger.warning('%s: ratings are kept; run again to resume', stop.name)
          return False
        self._rate(batch, frames, journal, progress)
    return True

  def _check_length(self, task: RatingTask) -> None:
    """Raises UserError if prompt and answer exceed the critic's context."""
    prompt_length = task.length + task.question_length
    length = prompt_length + self._texts.max_answer_tokens
    if length > self._tokenizer.max_length:
      raise UserError(
        f'{task.video.where}: prompts of {prompt_length} tokens and '
        f'prompts.max_answer_tokens = {self._texts.max_answer_tokens} make '
        f'{length}, but the critic reads {self._tokenizer.max_length}; lower '
        'prompts.max_answer_tokens or the largest of prompts.text_buckets'
      )

  def _tasks(
    self, videos, done, pool, journal, progress
  ) -> Iterator[tuple[Shape, RatingTask | None]]:
    """(shape, task) of each usable video, in order; no task if it is done.

    Clips are opened a little ahead of their use.
    """

    def begin(video: CaptionedVideo):
      if done.get(video.key):
        return video, None
      return video, pool.submit(
        make_task,
        video,
        self._tokenizer,
        self._frames,
        self._prompts,
        self._texts.text_buckets,
        self._rules.max_undecodable,
      )

    for video, future in ahead(map(begin, videos), self._config.num_readers):
      if future is None:
        yield done[video.key], None
        continue
      is_done = video.key in done
      try:
        task = future.result()
      except UserError as error:
        if not is_done:
          self._reject(video, error, journal, progress)
        continue
      if why := self._rules.why_skipped(task.clip.flags):
        if not is_done:
          self._write_error(video, f'{video.where}: {why}', journal, progress)
        continue
      self._check_length(task)
      yield task.shape, None if is_done else task

  def _reject(self, video, error: UserError, journal, progress) -> None:
    """Raises the error of an unusable video, or writes it to the journal."""
    if self._rules.on_bad_record == 'error':
      raise error
    self._write_error(video, str(error), journal, progress)

  def _write_error(self, video, error: str, journal, progress) -> None:
    line = self._line(video, storage.file_signature(video.path))
    self._write(line | {'error': error}, journal)
    progress.skip(1)

  def _write(self, line: dict[str, Any], journal) -> None:
    try:
      journal.add(line)
    except OSError as error:
      raise UserError(
        f'{journal.path} cannot be written ({error.strerror}); make room and '
        'run the same command again to resume'
      ) from None

  def _read_ahead(
    self, batches: Iterator[WorkBatch[RatingTask]], pool
  ) -> Iterator[tuple[WorkBatch[RatingTask], list]]:
    """Batches with futures of their frames, decoded ahead of use."""

    def submit(batch: WorkBatch[RatingTask]):
      # A video that fills several slots is decoded once.
      futures = {
        task.video.key: pool.submit(read_frames, task, self._frames)
        for task in {task.video.key: task for task in batch.items}.values()
      }
      return batch, [futures[task.video.key] for task in batch.items]

    return ahead(map(submit, batches), self._config.read_ahead)

  def _rate(self, batch, futures, journal, progress) -> None:
    frames, flagged, new = [], [], []
    for task, is_new, future in zip(
      batch.items, batch.is_new, futures, strict=True
    ):
      try:
        clip_frames, flags = future.result()
      except UserError as error:
        if is_new:
          self._reject(task.video, error, journal, progress)
        is_new, flags = False, []
        clip_frames = jax.tree.map(
          lambda shape: np.zeros(shape.shape, shape.dtype),
          self._frames.shapes(task.selection),
        )
      frames.append(clip_frames)
      flagged.append(flags)
      new.append(is_new)
    if not any(new):
      return
    if self._scorer is None:
      self._scorer = self._make_scorer()
    start = time.monotonic()
    prompts = pad_prompts(batch.items, self._tokenizer.pad_id)
    ratings = self._scorer(
      jax.tree.map(lambda *each: np.stack(each), *frames),
      prompts,
      self._texts.max_answer_tokens,
    )
    self.seconds += time.monotonic() - start
    for slot, task in enumerate(batch.items):
      if new[slot]:
        line = self._rated(task, ratings, slot, flagged[slot])
        self._write(line, journal)
    self.num_rated += sum(new)
    progress.update(sum(new))

  def _line(
    self, video: CaptionedVideo, stamp: storage.FileSignature | None
  ) -> dict[str, Any]:
    return {
      'video': video.video,
      'caption': video.caption,
      'stamp': list(stamp or ()),
      **self._fingerprint,
    }

  def _rated(
    self, task: RatingTask, ratings: Ratings, slot: int, flags: list[str]
  ) -> dict[str, Any]:
    """The journal line of a rated video.

    Raises:
      UserError: probabilities that are not finite.
    """
    probabilities_ql = ratings.probabilities_bql[slot]
    if not np.isfinite(probabilities_ql).all():
      raise UserError(
        f'{task.video.where}: the probabilities of the critic are not finite; '
        'try model.compute_dtype = float32, or another critic'
      )
    line = self._line(task.video, task.stamp) | {
      'shape': list(task.shape),
      'flags': list(flags),
    }
    names = self._labels.values()
    line['probabilities'] = {
      dimension: dict(zip(names, map(float, values_l), strict=True))
      for dimension, values_l in zip(
        self._prompts.questions, probabilities_ql, strict=True
      )
    }
    line['label_mass'] = {
      dimension: float(mass)
      for dimension, mass in zip(
        self._prompts.questions, ratings.mass_bq[slot], strict=True
      )
    }
    if min(line['label_mass'].values()) < _LOW_MASS:
      line['flags'].append('low label mass')
    try:
      line['answers'] = {
        dimension: self._answer(ratings, slot, number)
        for number, dimension in enumerate(self._prompts.questions)
      }
      line['labels'] = {
        dimension: split_answer(text, self._prompts.labels)[0]
        for dimension, text in line['answers'].items()
      }
    except UserError as error:
      line['error'] = str(error)
    return line

  def _answer(self, ratings: Ratings, slot: int, number: int) -> str:
    """The text of an answer; only the label if no answer was generated."""
    if ratings.answer_bqa is not None:
      return self._tokenizer.decode(ratings.answer_bqa[slot, number].tolist())
    token = int(ratings.first_bq[slot, number])
    if token not in self._labels:
      raise UserError(
        f'the answer begins with {self._tokenizer.decode([token])!r}, not with '
        f'{", ".join(self._prompts.labels)}; use a critic trained on this '
        'format, with the '
        'questions and the prompt template of its training'
      )
    return format_answer(self._labels[token], '', self._prompts.labels)
