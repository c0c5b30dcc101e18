"""Encodes videos and captions once, so that training reads them from disk.

usage: lift prepare --config=FILE.py[:variant] --workdir=DIR [--multihost]
                    [--config.SECTION.FIELD=VALUE ...]

Reads the alignment files of the config, decodes the videos, encodes them with
the model's autoencoder and their captions with its text encoder, and writes the
cache (DIR/cache, or data.cache if set). The same command again resumes: it
encodes what is missing or damaged, and for that reads the parts of the cache
that have changed, or all with prepare.verify. On SIGTERM the job keeps encoded
clips and exits with status 143. If data.on_bad_record is 'skip',
DIR/skipped.json lists the skipped records; DIR/flagged.json lists clips that
are unusual.

example: lift prepare --config=configs/align_sample.py:smoke --workdir=runs/lift
"""

from collections.abc import Mapping
import dataclasses
import functools
import logging
import pathlib

from lift_jax.cli import job_flags
from lift_jax.data import prepare as prepare_lib
from lift_jax.data.cache import LatentCache, record_key
from lift_jax.data.cache_lists import CacheEntry
from lift_jax.data.clip_flags import ClipRules
from lift_jax.data.json_records import ReadResult
from lift_jax.data.pair_records import PairRecord, read_pairs, settle
from lift_jax.data.records import AlignmentRecord, read_alignment
from lift_jax.data.splits import Record
from lift_jax.jobs import inputs
from lift_jax.jobs.align_config import AlignConfig
from lift_jax.models.generator_config import open_chosen, open_named
from lift_jax.models.generators import VideoModel
from lift_jax.runtime import hub, lock, storage
from lift_jax.toyworld.measures import MIN_FRAMES
from lift_jax.training import encoding

# Objectives that compare clips need several of a prompt.
_TOY_CLIPS_PER_PROMPT = 4


def main(argv: list[str]) -> int:
  with job_flags.start(argv, AlignConfig, 'prepare') as (call, logger):
    run(call, logger)
  return 0


def run(call: job_flags.Invocation, logger: logging.Logger) -> None:
  """Runs the job."""
  model, records = open_inputs(call.config, call.workdir)
  job_flags.write_config(call, 'prepare')
  cache = ensure_prepared(
    call.config, call.workdir, model, records, logger, repair=True
  )
  entries = cache.entries().values()
  buckets = sorted({entry.bucket for entry in entries})
  logger.info(
    'prepare: done, %d clips, latents %s, in %s',
    len(entries),
    ', '.join('x'.join(map(str, bucket)) for bucket in buckets),
    cache.folder,
  )


@dataclasses.dataclass(frozen=True)
class AlignRecords:
  """The records of the files of a config.

  Attributes:
    scored: of clips with a score, and of real clips.
    pairs: that people compared, each once.
    skipped: (where, reason and remedy) of each skipped record.
  """

  scored: list[AlignmentRecord]
  pairs: list[PairRecord]
  skipped: list[tuple[str, str]]

  @functools.cached_property
  def clips(self) -> list[Record]:
    """A record of every clip and its caption."""
    records = [
      *self.scored,
      *(clip for pair in self.pairs for clip in pair.clips),
    ]
    by_key = {}
    for record in records:
      by_key.setdefault(record_key(record), record)
    return list(by_key.values())


def open_inputs(
  config: AlignConfig, workdir: pathlib.Path
) -> tuple[VideoModel, AlignRecords]:
  """The model and the records.

  A model with a path and its adapters are checked first; a random one is made
  once the records are known to be good.
  """
  named = open_named(config.model)
  found = read_records(config, workdir)
  return named or open_chosen(config.model, workdir), found


def read_records(config: AlignConfig, workdir: pathlib.Path) -> AlignRecords:
  """The records of the files in the config; videos are not checked.

  Raises:
    UserError: a bad file or record.
  """
  data = config.data
  files = (*data.synthetic, *data.real, *data.pairs)
  root = hub.data_folder(data.root, files) or _toy_clips(config, workdir)
  settings = {
    'on_bad_record': data.on_bad_record,
    # Videos may be deleted once they are encoded.
    'require_files': False,
    'follow_links': data.follow_links,
  }
  scored = pairs = ReadResult([], [])
  if data.synthetic or data.real or not data.pairs:
    scored = read_alignment(root, data.synthetic, data.real, **settings)
  if data.pairs:
    pairs = read_pairs(root, data.pairs, **settings)
  return AlignRecords(
    scored.records, settle(pairs.records), [*scored.skipped, *pairs.skipped]
  )


def ensure_prepared(
  config: AlignConfig,
  workdir: pathlib.Path,
  model: VideoModel,
  found: AlignRecords,
  logger: logging.Logger,
  *,
  repair: bool = False,
) -> LatentCache:
  """The cache with every record in it; encodes only missing ones.

  Args:
    repair: whether to encode damaged records again. Otherwise the reader of a
      damaged record raises an error.

  Raises:
    UserError: a bad clip, one that has changed since it was encoded, or a
      cache made with other settings.
  """
  data = config.data
  encoding.check_sizes(model, data.sizes)
  folder = storage.to_path(data.cache) if data.cache else workdir / 'cache'
  settings = {
    'dtype': config.prepare.compute_dtype,
    'keep_dtype': config.prepare.keep_dtype,
    'tiling': config.prepare.tiling,
  }
  cache = LatentCache(
    storage.resolved(folder),
    encoding.fingerprint(model, **settings) | prepare_lib.fingerprint(data),
  )
  # Jobs with workdirs of their own may share a cache.
  locked = functools.partial(lock.locked, cache.folder / lock.NAME)
  if repair:
    with locked():
      prepare_lib.drop_damaged(cache, config.prepare, logger)
  missing = prepare_lib.missing_from(cache, found.clips, data)
  if missing:
    hub.fetch(hub.data_folder(data.root), [r.video for r in missing])
    with locked():
      prepare_lib.run(
        cache,
        found.clips,
        lambda: encoding.ClipEncoder(
          model, batch_per_device=config.prepare.batch_per_device, **settings
        ),
        data,
        config.prepare,
        logger,
      )
  entries = cache.entries()
  reasons = _why_skipped(found, cache, entries, data)
  num_left = len(found.clips) + len(found.skipped) - len(reasons)
  inputs.report_skipped(workdir, reasons, num_left, logger)
  keys = map(record_key, found.clips)
  used = [entries[key] for key in keys if key in entries]
  flags = {
    entry.video: entry.flags
    for entry in used
    if not data.why_skipped(entry.flags)
  }
  inputs.report_flagged(workdir, flags, logger)
  return cache


def _why_skipped(
  found: AlignRecords,
  cache: LatentCache,
  entries: Mapping[str, CacheEntry],
  rules: ClipRules,
) -> list[str]:
  """Location of each skipped record, and why it was skipped."""
  skipped = cache.skipped()
  reasons = [f'{where}: {reason}' for where, reason in found.skipped]
  for record in found.clips:
    key = record_key(record)
    if key in skipped:
      reasons.append(skipped[key].reason)
    elif key in entries and (why := rules.why_skipped(entries[key].flags)):
      reasons.append(f'{record.where}: {why}')
  return reasons


def _toy_clips(config: AlignConfig, workdir: pathlib.Path) -> pathlib.Path:
  """Clips of the toy world, of the configured size and length."""
  height, width = config.data.sizes[0]
  return inputs.toy_clips(
    workdir,
    config.toy_clips,
    num_frames=max(config.data.max_frames, MIN_FRAMES),
    height=height,
    width=width,
    clips_per_prompt=_TOY_CLIPS_PER_PROMPT,
  )
