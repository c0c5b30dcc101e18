"""Sampling loop: rounds of embedding, denoising and decoding."""

import collections
from collections.abc import Iterator, Mapping, Sequence
import concurrent.futures
import logging
import time
from typing import Self, TypeVar

import numpy as np

from lift_jax.data.video_write import write_mp4
from lift_jax.errors import UserError
from lift_jax.runtime import storage
from lift_jax.runtime.batching import WorkBatch, fill_batches, in_rounds
from lift_jax.runtime.progress import Progress
from lift_jax.runtime.shutdown import StopSignal
from lift_jax.sampling import noise as noise_lib
from lift_jax.sampling.clips import Clip
from lift_jax.sampling.config import OutputConfig, SamplingRunConfig
from lift_jax.sampling.generator import Generator
from lift_jax.sampling.manifest import LATENTS, VIDEOS, Manifest

T = TypeVar('T')

_Round = tuple[int, Mapping[str, float]]  # clips, seconds of each stage


class ClipWriter:
  """Writes clips in threads and adds each to the manifest once it is complete.

  Use it as a context manager: leaving it waits for pending clips.

  Args:
    manifest: decides the paths of files.
    output: which files to write.
    num_threads: clips that are encoded at a time.
    limit: clips that may be pending before `put` blocks.
  """

  def __init__(
    self,
    manifest: Manifest,
    output: OutputConfig,
    num_threads: int,
    limit: int,
  ):
    self._manifest, self._output = manifest, output
    self._limit, self._num_new = limit, 0
    self._pool = concurrent.futures.ThreadPoolExecutor(num_threads)
    self._pending = collections.deque()

  def put(
    self, clip: Clip, frames_thw3: np.ndarray, latents_fhwc: np.ndarray
  ) -> None:
    """Queues a clip for writing; copies it, so that the batch can be freed.

    Raises:
      UserError: this or an earlier clip cannot be written.
    """
    while len(self._pending) >= self._limit:
      self._finish_one()
    latents = latents_fhwc.copy() if self._output.keep_latents else None
    self._pending.append(
      self._pool.submit(self._write, clip, frames_thw3.copy(), latents)
    )
    while self._pending and self._pending[0].done():
      self._finish_one()

  def _finish_one(self) -> None:
    self._pending.popleft().result()
    self._num_new += 1

  def take_count(self) -> int:
    """The number of clips that were completed since the last call."""
    count, self._num_new = self._num_new, 0
    return count

  def _write(self, clip, frames_thw3, latents_fhwc) -> None:
    video = self._manifest.file(clip, VIDEOS)
    try:
      if latents_fhwc is not None:
        noise_lib.write_latents(
          self._manifest.file(clip, LATENTS), latents_fhwc
        )
      write_mp4(video, frames_thw3, self._output.fps, self._output.crf)
      self._manifest.add(clip)
    except OSError as error:
      raise UserError(
        f'{video} cannot be written ({error.strerror or error}); make room and '
        'run the same command again to resume'
      ) from error

  def __enter__(self) -> Self:
    return self

  def __exit__(self, kind, *exception) -> None:
    try:
      while kind is None and self._pending:
        self._finish_one()
    finally:
      self._pool.shutdown(cancel_futures=True)


class Clock:
  """Seconds spent in each stage."""

  def __init__(self):
    self.seconds: dict[str, float] = collections.defaultdict(float)

  def timed(self, stage: str, items: Iterator[T]) -> Iterator[T]:
    """Yields `items` and counts the time spent waiting for each."""
    while True:
      start = time.monotonic()
      try:
        item = next(items)
      except StopIteration:
        return
      finally:
        self.seconds[stage] += time.monotonic() - start
      yield item


def run(
  generator: Generator,
  clips: Sequence[Clip],
  finished: set[str],
  manifest: Manifest,
  config: SamplingRunConfig,
  output: OutputConfig,
  initial_noise: str,
  stop: StopSignal,
  progress: Progress,
  peak_flops: float | None,
  logger: logging.Logger,
) -> bool:
  """Generates missing clips until all are finished or SIGTERM arrives.

  Args:
    clips: of this host.
    finished: stems of the clips that exist already.
    initial_noise: folder of the initial noise; '' samples it.
    peak_flops: per second and device; None if unknown.

  Returns:
    Whether all clips are finished.

  Raises:
    UserError: a clip is not finite or cannot be written.
  """
  batch_size = config.batch_per_shard * generator.num_shards
  batches = fill_batches(
    (((), None if clip.stem in finished else clip) for clip in clips),
    batch_size,
  )
  todo = list(in_rounds(batches, config.batches_per_round))
  rounds = []
  writer = ClipWriter(
    manifest,
    output,
    config.num_writers,
    limit=2 * batch_size + config.num_writers,
  )
  with manifest, writer:
    for number, batches_of_round in enumerate(todo, 1):
      if stop.received:
        break
      clock = Clock()
      num_clips = _round(
        generator,
        batches_of_round,
        initial_noise,
        stop,
        clock,
        writer,
        keep=number < len(todo),
      )
      rounds.append((num_clips, clock.seconds))
      # Clips of a round are finished almost together.
      progress.update(writer.take_count())
  if num_last := writer.take_count():
    progress.update(num_last)
  if stop.received:
    logger.warning(
      '%s: pending clips are written; run again to resume', stop.name
    )
  _summarize(generator, rounds, peak_flops, logger)
  num_made = sum(number for number, _ in rounds)
  return num_made == sum(clip.stem not in finished for clip in clips)


def _round(
  generator, batches, initial_noise, stop, clock, writer, *, keep: bool
) -> int:
  """Runs batches through all stages; returns the number of new clips.

  `keep` tells whether another round needs the networks.
  """
  prompts = ([clip.prompt.text for clip in b.items] for b in batches)
  texts = list(clock.timed('text encoder', generator.embed(prompts, keep=keep)))
  if stop.received:
    return 0

  def ready_to_denoise():
    for batch, text_bsd in zip(batches, texts, strict=True):
      if stop.received:
        return
      noise = None
      if initial_noise:
        noise = noise_lib.read_initial_noise(
          storage.to_path(initial_noise), batch.items, generator.latent_shape
        )
      yield text_bsd, [clip.seed for clip in batch.items], noise

  latents = list(
    clock.timed('transformer', generator.denoise(ready_to_denoise(), keep=keep))
  )
  for batch, latents_bfhwc in zip(batches, latents, strict=False):
    _check_finite(batch, latents_bfhwc)
  num_clips = 0
  videos = clock.timed('autoencoder', generator.decode(latents, keep=keep))
  # Videos come first in zip, so that their generator runs to its end, where the
  # network leaves the devices.
  for video_bthw3, batch, latents_bfhwc in zip(
    videos, batches, latents, strict=False
  ):
    for slot, clip in enumerate(batch.items):
      if batch.is_new[slot]:
        writer.put(clip, video_bthw3[slot], latents_bfhwc[slot])
        num_clips += 1
  return num_clips


def _check_finite(batch: WorkBatch, latents_bfhwc: np.ndarray) -> None:
  """Raises UserError rather than write a black video."""
  for clip, latents_fhwc in zip(batch.items, latents_bfhwc, strict=True):
    if not np.isfinite(latents_fhwc).all():
      raise UserError(
        f'{clip.prompt.where}: the latents of video {clip.index} are not '
        'finite; try model.compute_dtype = float32, or another checkpoint'
      )


def _summarize(
  generator: Generator,
  rounds: Sequence[_Round],
  peak_flops: float | None,
  logger: logging.Logger,
) -> None:
  """Logs the time of each stage, and the throughput without compilation.

  Args:
    rounds: (clips, seconds of each stage) of each round.
    peak_flops: per second and device; None if unknown.
  """
  num_clips, seconds = _total(rounds)
  if not num_clips:
    return
  logger.info(
    '%d videos in %.1f s: %s, including compilation',
    num_clips,
    sum(seconds.values()),
    ', '.join(f'{stage} {spent:.1f} s' for stage, spent in seconds.items()),
  )
  num_clips, seconds = _total(rounds[1:])
  if not num_clips:
    return
  chips = generator.mesh.size
  logger.info(
    'after the first round: %.4g chip-seconds per video, %.3g videos/s/chip',
    chips * sum(seconds.values()) / num_clips,
    num_clips / sum(seconds.values()) / chips,
  )
  if peak_flops is not None:
    achieved = generator.flops() * num_clips / seconds['transformer'] / chips
    logger.info('MFU of the transformer: %.1f%%', 100 * achieved / peak_flops)


def _total(rounds: Sequence[_Round]) -> tuple[int, dict[str, float]]:
  total = collections.defaultdict(float)
  for _, seconds in rounds:
    for stage, spent in seconds.items():
      total[stage] += spent
  return sum(num_clips for num_clips, _ in rounds), total
