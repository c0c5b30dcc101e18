"""Encodes every clip of a data set once, into a cache.

Each host takes its share of the records and encodes those that are not encoded
yet. Clips are decoded ahead in threads, grouped by size and length, encoded in
full batches, and written in shards of one bucket each. A clip has the same slot
of a batch in every run, so that a resumed run computes it by the same
instructions, with the same bits as a result.
"""

import collections
from collections.abc import Callable, Generator, Sequence
import concurrent.futures
import contextlib
import dataclasses
import functools
import logging
from typing import Protocol

import jax
import numpy as np

from lift_jax import config_lib
from lift_jax.data import cache as cache_lib
from lift_jax.data import picture, video
from lift_jax.data.clip_flags import ClipRules
from lift_jax.data.clip_paths import FOLLOW_LINKS, clip_sha256
from lift_jax.data.frame_difference import frame_difference
from lift_jax.data.json_records import ON_BAD_RECORD
from lift_jax.data.splits import Record
from lift_jax.errors import UserError, listing
from lift_jax.runtime import distributed, storage
from lift_jax.runtime.progress import Progress, tracked
from lift_jax.runtime.shutdown import Stopped, StopSignal


@dataclasses.dataclass(frozen=True)
class DataConfig(ClipRules):
  """Which videos to encode, and at which size and length.

  Attributes:
    root: folder that paths in the JSON files are relative to, or the id of a
      data set on the hub, ORG/NAME[@REVISION]; '' for clips of the toy world.
    synthetic: alignment files of scored videos.
    real: alignment files of real videos, whose reward is 1.
    pairs: files of pairs that people compared, see `pair_records`.
    on_bad_record: 'error' stops at the first bad record; 'skip' lists and
      skips them.
    follow_links: links out of the root that may be followed; see
      `clip_paths.ClipFolder`.
    cache: folder of the encoded videos; '' is `cache` in the workdir.
    sizes: (height, width) of the encoded videos; each video takes the one with
      the nearest aspect ratio.
    max_frames: most frames of a video.
    fps: to resample to, by the times at which frames are shown; None keeps the
      frames of the file.
    resize: a name of `picture.RESIZES`: 'crop' keeps the aspect ratio,
      'stretch' does not (reference).
  """

  root: str
  synthetic: tuple[str, ...]
  real: tuple[str, ...]
  on_bad_record: str
  follow_links: str
  cache: str
  sizes: tuple[tuple[int, int], ...]
  max_frames: int
  fps: float | None
  resize: str
  pairs: tuple[str, ...] = ()

  def __post_init__(self):
    super().__post_init__()
    config_lib.check_choice(
      'data.on_bad_record', self.on_bad_record, ON_BAD_RECORD
    )
    config_lib.check_choice(
      'data.follow_links', self.follow_links, FOLLOW_LINKS
    )
    config_lib.check_choice('data.resize', self.resize, picture.RESIZES)
    if not self.sizes:
      raise UserError('data.sizes is empty; give at least one (height, width)')
    for height, width in self.sizes:
      if height < 1 or width < 1 or height % 2 or width % 2:
        raise UserError(
          f'data.sizes: {height} x {width} is not a valid size of a video; '
          'both must be positive and even'
        )
    if self.max_frames < 1:
      raise UserError(f'data.max_frames is {self.max_frames}; give at least 1')
    if self.fps is not None and self.fps <= 0:
      raise UserError(f'data.fps is {self.fps}; it must be above 0, or None')


@dataclasses.dataclass(frozen=True)
class PrepareConfig:
  """How clips are encoded.

  Attributes:
    batch_per_device: clips that a device encodes at a time.
    records_per_shard: clips per shard; a killed run loses at most one shard
      per bucket and host.
    num_threads: threads that decode.
    compute_dtype: of autoencoder and text encoder.
    keep_dtype: of the stored tensors.
    tiling: whether the VAE works in tiles, as the reference does.
    verify: whether `lift prepare` reads all of a cache that is there, and not
      only shards whose size or time of change is another one.
  """

  batch_per_device: int
  records_per_shard: int
  num_threads: int
  compute_dtype: str
  keep_dtype: str
  tiling: bool
  verify: bool = False

  def __post_init__(self):
    for name in ('batch_per_device', 'records_per_shard', 'num_threads'):
      if getattr(self, name) < 1:
        raise UserError(f'prepare.{name} must be above 0')
    types = ('float32', 'bfloat16')
    config_lib.check_choice('prepare.compute_dtype', self.compute_dtype, types)
    config_lib.check_choice('prepare.keep_dtype', self.keep_dtype, types)


class ClipTensorEncoder(Protocol):
  """Turns clips into tensors; see `training.encoding.ClipEncoder`."""

  def videos(
    self, frames_bthw3: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]: ...

  def captions(
    self, captions: Sequence[str]
  ) -> tuple[np.ndarray, list[bool]]: ...


def fingerprint(config: DataConfig) -> dict[str, object]:
  """Everything that determines which frames of a given clip are encoded."""
  return {
    'sizes': [list(size) for size in config.sizes],
    'max_frames': config.max_frames,
    'fps': config.fps,
    'resize': config.resize,
    'filter': picture.RESIZES[config.resize].filter,
    'decoder': video.DECODER,
  }


@dataclasses.dataclass(frozen=True)
class _Clip:
  record: Record
  frames: np.ndarray
  flags: tuple[str, ...]
  signature: storage.FileSignature
  sha256: str


def _decode(record: Record, config: DataConfig) -> _Clip:
  signature = _check_exists(record)
  with storage.local_file(record.path) as path:
    clip = video.decode(
      path,
      config.max_frames,
      where=record.where,
      fps=config.fps,
      sizes=config.sizes,
      policy=config.resize,
      max_undecodable=config.max_undecodable,
    )
    digest = clip_sha256(path, record.where)
  return _Clip(record, clip.frames, clip.flags, signature, digest)


def _check_exists(record: Record) -> storage.FileSignature:
  """The signature of the video file, which must exist."""
  signature = storage.file_signature(record.path)
  if signature is None:
    raise UserError(
      f'{record.where}: no such video under data.root; add it or delete the '
      'record'
    )
  return signature


def _decoded(
  records: Sequence[Record], config: DataConfig, num_threads: int
) -> Generator[_Clip | UserError, None, None]:
  """Clips in order, decoded a little ahead of their use; or what is wrong."""
  with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
    waiting = collections.deque()
    rest = iter(records)
    try:
      for record in rest:
        waiting.append(pool.submit(_decode, record, config))
        if len(waiting) <= num_threads:
          continue
        yield _result(waiting.popleft())
      while waiting:
        yield _result(waiting.popleft())
    finally:
      for future in waiting:
        future.cancel()


def _result(future: concurrent.futures.Future[_Clip]) -> _Clip | UserError:
  try:
    return future.result()
  except UserError as error:
    return error


def missing_from(
  cache: cache_lib.LatentCache,
  records: Sequence[Record],
  data: DataConfig,
) -> list[Record]:
  """Records that a run has yet to process.

  These are in neither the index nor the list of records that an earlier run
  skipped because of the same video file, and that `data` still skips.

  Raises:
    UserError: a video in the index has changed since.
  """
  entries, skipped = cache.entries(), cache.skipped()
  missing = []
  for record in tracked(records, 'clip'):
    key = cache_lib.record_key(record)
    if key in entries:
      cache_lib.check_unchanged(cache, record, entries[key])
    elif key not in skipped or not _is_settled(skipped[key], record, data):
      missing.append(record)
  return missing


def _is_settled(
  skipped: cache_lib.Skipped, record: Record, data: DataConfig
) -> bool:
  """Whether a record that an earlier run skipped is skipped again."""
  if skipped.flags:
    is_skipped = bool(data.why_skipped(skipped.flags))
  else:
    is_skipped = data.on_bad_record == 'skip'
  now = storage.file_signature(record.path)
  return is_skipped and skipped.video_stamp == now


def drop_damaged(
  cache: cache_lib.LatentCache, config: PrepareConfig, logger: logging.Logger
) -> None:
  """Deletes what is damaged in a cache, for `run` to make again.

  Every host must call it, and reads its share of the shards: those that have
  changed since they were written or read, or all with `prepare.verify`.
  """
  shards = cache.shards()[jax.process_index() :: jax.process_count()]
  distributed.barrier('every host has listed the shards')
  progress = Progress(
    len(shards),
    'shard',
    logger=logger,
    enabled=distributed.is_primary() and bool(shards),
  )
  with (
    distributed.independent_work('every host has read its shards'),
    concurrent.futures.ThreadPoolExecutor(config.num_threads) as pool,
    progress,
  ):
    drop = functools.partial(cache.drop_damaged, verify=config.verify)
    for problems in pool.map(drop, shards):
      for problem in problems:
        logger.warning('%s: made again', problem)
      progress.update(1)
  if distributed.is_primary():
    for problem in cache.drop_damaged_rest():
      logger.warning('%s: made again', problem)
  else:
    cache.forget()  # the primary host may delete the index
  distributed.barrier('the cache is intact')


def run(
  cache: cache_lib.LatentCache,
  records: Sequence[Record],
  make_encoder: Callable[[], ClipTensorEncoder],
  data: DataConfig,
  config: PrepareConfig,
  logger: logging.Logger,
) -> None:
  """Encodes what is not in the cache yet; every host must call it.

  Args:
    cache: the target; may be empty, partial or complete.
    records: all of them, the same on every host.
    make_encoder: called once this host has a batch to encode, so that a bad
      clip among the first is found before any network is loaded.
    data: how clips are read.
    config: how they are encoded.
    logger: logs on the primary host.

  Raises:
    UserError: a clip is unusable and `data.on_bad_record` is 'error', on this
      host or another. The shards that are full by then are kept.
    Stopped: on SIGTERM, to this host or another. Encoded clips are kept.
  """
  if distributed.is_primary():
    cache.start()
  distributed.barrier('cache exists')
  finished = cache.finished()
  todo = []
  for record in records:
    entry = finished.get(cache_lib.record_key(record))
    if entry is None:
      todo.append(record)
    else:
      cache_lib.check_unchanged(cache, record, entry)
  logger.info(
    'prepare: %d of %d clips are in %s', len(records) - len(todo),
    len(records), cache.folder,
  )  # fmt: skip
  if data.on_bad_record == 'error':
    for record in todo:
      _check_exists(record)
  distributed.barrier('cache is read')
  make_encoder = functools.cache(make_encoder)
  mine = records[jax.process_index() :: jax.process_count()]
  with (
    distributed.independent_work('every host has encoded its clips'),
    StopSignal(together=False) as stop,
  ):
    if distributed.is_primary():
      cache.clear_skipped()
    skipped = _encode_all(
      cache, mine, finished, make_encoder, data, config, stop, logger
    )
    wants_null_text = distributed.is_primary() and not stop.received
    if wants_null_text and not cache.null_text_path.exists():
      cache.write_null_text(make_encoder().captions([''])[0][0])
  # Even if every clip was encoded by then: the caller must stop too.
  if not distributed.true_everywhere(not stop.received):
    logger.warning('%s: encoded clips are kept; run again to resume', stop.name)
    raise Stopped
  cache.write_skipped(jax.process_index(), skipped)
  distributed.barrier('everything is encoded')
  if distributed.is_primary():
    cache.write_index()
  distributed.barrier('index is written')
  cache.forget()


def _encode_all(
  cache, records, finished, make_encoder, data, config, stop, logger
):
  """Encodes what is not finished, until SIGTERM.

  Returns:
    The records that were skipped, by key.
  """
  skipped = {}
  batch_size = config.batch_per_device * jax.local_device_count()
  keys = [cache_lib.record_key(record) for record in records]
  todo = [
    r for r, key in zip(records, keys, strict=True) if key not in finished
  ]
  numbers = collections.Counter()  # frames, height, width: clips so far
  pending = collections.defaultdict(dict)  # the same: clips to encode, by slot
  shards = _ShardEncoder(cache, make_encoder, config.records_per_shard)
  progress = Progress(
    len(todo),
    'video',
    logger=logger,
    enabled=distributed.is_primary(),
  )

  def encode(by_slot: dict[int, _Clip]) -> None:
    shards.encode(by_slot)
    progress.update(len(by_slot))

  decoded = _decoded(todo, data, config.num_threads)
  with progress, contextlib.closing(decoded):
    for record, key in zip(records, keys, strict=True):
      if stop.received:
        pending.clear()
        break
      if key in finished:
        shape = finished[key].frames_shape
      else:
        clip = _usable(record, next(decoded), data)
        if isinstance(clip, cache_lib.Skipped):
          skipped[key] = clip
          progress.skip(1)
          continue
        shape = clip.frames.shape[:3]
        pending[shape][numbers[shape] % batch_size] = clip
      numbers[shape] += 1
      if numbers[shape] % batch_size == 0 and shape in pending:
        encode(pending.pop(shape))
    for by_slot in pending.values():
      encode(by_slot)
    shards.write_rest()
  if shards.truncated:
    logger.warning(
      '%d captions are longer than the model reads and were truncated: %s',
      len(shards.truncated),
      listing(shards.truncated),
    )
  return skipped


def _usable(
  record: Record, clip: _Clip | UserError, data: DataConfig
) -> _Clip | cache_lib.Skipped:
  """The clip of a record, or why it is skipped.

  Raises:
    UserError: the clip is unusable, and such records are not to be skipped.
  """
  if isinstance(clip, UserError):
    if data.on_bad_record == 'error':
      raise clip
    signature = storage.file_signature(record.path)
    return cache_lib.Skipped(str(clip), signature, ())
  if why := data.why_skipped(clip.flags):
    reason = f'{record.where}: {why}'
    return cache_lib.Skipped(reason, clip.signature, clip.flags)
  return clip


class _ShardEncoder:
  """Encodes batches of clips and writes the shards that are full.

  Args:
    cache: the target.
    make_encoder: called for each batch.
    records_per_shard: clips of a full shard.

  Attributes:
    truncated: where the captions are that are longer than the model reads.
  """

  def __init__(
    self,
    cache: cache_lib.LatentCache,
    make_encoder: Callable[[], ClipTensorEncoder],
    records_per_shard: int,
  ):
    self._cache, self._make_encoder = cache, make_encoder
    self._records_per_shard = records_per_shard
    self._encoded = collections.defaultdict(list)  # by bucket
    self.truncated: list[str] = []

  def encode(self, by_slot: dict[int, _Clip]) -> None:
    """Encodes the clips of one size in some slots of a batch."""
    encoder = self._make_encoder()
    filler = by_slot[max(by_slot)]
    clips = [by_slot.get(slot, filler) for slot in range(max(by_slot) + 1)]
    mean, logvar = encoder.videos(np.stack([clip.frames for clip in clips]))
    captions = [clip.record.caption for clip in clips]
    text, is_cut = encoder.captions(captions)
    for slot, clip in by_slot.items():
      if is_cut[slot]:
        self.truncated.append(clip.record.where)
      bucket = mean[slot].shape[:3]
      encoded = self._encoded[bucket]
      encoded.append(
        cache_lib.EncodedClip(
          clip.record,
          cache_lib.pack(mean=mean[slot], logvar=logvar[slot], text=text[slot]),
          clip.signature,
          clip.sha256,
          clip.frames.shape[:3],
          clip.flags,
          frame_difference(clip.frames),
        )
      )
      if len(encoded) == self._records_per_shard:
        self._cache.write_shard(bucket, self._encoded.pop(bucket))

  def write_rest(self) -> None:
    """Writes the shards that are not full."""
    for bucket, encoded in self._encoded.items():
      self._cache.write_shard(bucket, encoded)
