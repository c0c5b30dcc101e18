"""The rounds of a job: embed, denoise, decode, and write while more is made."""

import collections
from collections.abc import Callable, Iterator, Mapping, Sequence
import concurrent.futures
import logging
import pathlib
import time
from typing import Self, TypeVar

import numpy as np

from lift_jax.data.video import write_mp4
from lift_jax.errors import UserError
from lift_jax.runtime.batching import WorkBatch, fill_batches, in_rounds
from lift_jax.runtime.progress import Progress
from lift_jax.runtime.shutdown import StopSignal
from lift_jax.sampling import noise as noise_lib
from lift_jax.sampling.clips import Clip
from lift_jax.sampling.config import OutputConfig, SamplingRunConfig
from lift_jax.sampling.generator import Generator
from lift_jax.sampling.manifest import LATENTS, VIDEOS, Manifest

T = TypeVar('T')


class ClipWriter:
  """Writes clips in threads, and notes each in the manifest once it is whole.

  Use it as a context manager: leaving it waits for what was begun.

  Args:
    manifest: says where files go.
    output: what is written.
    num_threads: clips that are encoded at a time.
    limit: clips that may wait before `put` blocks.
    on_written: called for each clip, by the thread that calls `put`.
  """

  def __init__(
    self,
    manifest: Manifest,
    output: OutputConfig,
    num_threads: int,
    limit: int,
    on_written: Callable[[], None],
  ):
    self._manifest, self._output = manifest, output
    self._limit, self._on_written = limit, on_written
    self._pool = concurrent.futures.ThreadPoolExecutor(num_threads)
    self._waiting = collections.deque()

  def put(
    self, clip: Clip, frames_thw3: np.ndarray, latents_fhwc: np.ndarray
  ) -> None:
    """Hands a clip over; copies, so that the batch can go.

    Raises:
      UserError: this or an earlier clip cannot be written.
    """
    while len(self._waiting) >= self._limit:
      self._finish_one()
    latents = latents_fhwc.copy() if self._output.keep_latents else None
    self._waiting.append(
      self._pool.submit(self._write, clip, frames_thw3.copy(), latents)
    )
    while self._waiting and self._waiting[0].done():
      self._finish_one()

  def _finish_one(self) -> None:
    self._waiting.popleft().result()
    self._on_written()

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
        'run the same command again, which goes on from here'
      ) from error

  def __enter__(self) -> Self:
    return self

  def __exit__(self, kind, *exception) -> None:
    try:
      while kind is None and self._waiting:
        self._finish_one()
    finally:
      self._pool.shutdown(cancel_futures=True)


class Clock:
  """Seconds spent in each stage."""

  def __init__(self):
    self.seconds = collections.Counter()

  def timed(self, stage: str, items: Iterator[T]) -> Iterator[T]:
    """`items`, with the time that each takes to come."""
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
  """Makes the clips that are not finished, until all are or SIGTERM comes.

  Args:
    clips: of this host.
    finished: stems of those that are there already.
    initial_noise: folder of the noise to start from; '' draws it.
    peak_flops: of a device, or None where it is not known.

  Returns:
    Whether none is left.

  Raises:
    UserError: a clip is not finite or cannot be written.
  """
  batch_size = config.batch_per_shard * generator.num_shards
  batches = fill_batches(clips, lambda clip: clip.stem in finished, batch_size)
  rounds = []
  writer = ClipWriter(
    manifest,
    output,
    config.num_writers,
    limit=2 * batch_size + config.num_writers,
    on_written=lambda: progress.update(1),
  )
  with manifest, writer:
    for batches_of_round in in_rounds(batches, config.batches_per_round):
      if stop.received:
        break
      clock = Clock()
      num_clips = _round(
        generator, batches_of_round, initial_noise, stop, clock, writer
      )
      rounds.append((num_clips, clock.seconds))
  if stop.received:
    logger.warning('SIGTERM: what was begun is written; run again to go on')
  _summarize(generator, rounds, peak_flops, logger)
  num_made = sum(number for number, _ in rounds)
  return num_made == sum(clip.stem not in finished for clip in clips)


def _round(generator, batches, initial_noise, stop, clock, writer) -> int:
  """Takes some batches through all stages; returns how many clips it made."""
  texts = list(
    clock.timed(
      'text encoder',
      generator.embed([clip.prompt.text for clip in b.items] for b in batches),
    )
  )
  if stop.received:
    return 0

  def ready_to_denoise():
    for batch, text_bsd in zip(batches, texts, strict=True):
      if stop.received:
        return
      noise = None
      if initial_noise:
        noise = noise_lib.read_initial_noise(
          pathlib.Path(initial_noise), batch.items, generator.latent_shape
        )
      yield text_bsd, [clip.seed for clip in batch.items], noise

  latents = list(
    clock.timed('transformer', generator.denoise(ready_to_denoise()))
  )
  for batch, latents_bfhwc in zip(batches, latents, strict=False):
    _check_finite(batch, latents_bfhwc)
  num_clips = 0
  videos = clock.timed('autoencoder', generator.decode(latents))
  # Videos come first, so that their generator runs to its end, where the
  # network leaves the devices.
  for video_bthw3, batch, latents_bfhwc in zip(
    videos, batches, latents, strict=False
  ):
    for row, clip in enumerate(batch.items):
      if batch.is_new[row]:
        writer.put(clip, video_bthw3[row], latents_bfhwc[row])
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
  rounds: Sequence[tuple[int, Mapping[str, float]]],
  peak_flops: float | None,
  logger: logging.Logger,
) -> None:
  """Where the time went, and the rate once everything is compiled.

  Args:
    rounds: (clips, seconds of each stage) of each round.
    peak_flops: of a device, or None.
  """
  num_clips, seconds = _total(rounds)
  if not num_clips:
    return
  logger.info(
    '%d videos in %.1f s: %s, compilation included',
    num_clips,
    sum(seconds.values()),
    ', '.join(f'{stage} {spent:.1f} s' for stage, spent in seconds.items()),
  )
  num_clips, seconds = _total(rounds[1:])
  if not num_clips:
    return
  chips = generator.mesh.size
  logger.info(
    'after the first round: %.4g s a video and chip, %.3g videos/s/chip',
    chips * sum(seconds.values()) / num_clips,
    num_clips / sum(seconds.values()) / chips,
  )
  if peak_flops is not None:
    done = generator.flops() * num_clips / seconds['transformer'] / chips
    logger.info('of the peak, the transformer: %.1f%%', 100 * done / peak_flops)


def _total(rounds) -> tuple[int, collections.Counter]:
  counts = [clips for clips, _ in rounds]
  return sum(counts), sum((s for _, s in rounds), collections.Counter())
