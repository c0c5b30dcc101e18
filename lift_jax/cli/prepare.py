"""Encodes videos and captions once, so that training reads them from disk.

usage: lift prepare --config=FILE.py[:variant] --workdir=DIR [--multihost]
                    [--config.SECTION.FIELD=VALUE ...]

Reads the alignment files that the config names, decodes the videos, encodes
them with the model's VAE and their captions with its T5, and writes the cache
(DIR/cache unless data.cache says otherwise). Run it again to go on after a
kill; what is done is not done again. DIR/skipped.json lists the records that
were left out where data.on_bad_record is 'skip'.

example: lift prepare --config=configs/align_sample.py:smoke --workdir=runs/demo
"""

import logging
import pathlib

from lift_jax import distributed
from lift_jax.cli import job_flags
from lift_jax.cli.align_config import AlignConfig
from lift_jax.data import prepare as prepare_lib
from lift_jax.data.cache import Cache, record_key, write_json
from lift_jax.data.records import ReadResult, read_alignment
from lift_jax.data.sample_clips import make_sample_clips
from lift_jax.errors import UserError
from lift_jax.models.cogvideox import encoding
from lift_jax.models.cogvideox.choice import open_chosen
from lift_jax.models.cogvideox.folder import ModelFolder


def main(argv: list[str]) -> int:
  call = job_flags.parse(argv, AlignConfig, 'prepare')
  distributed.initialize(call.multihost)
  logger = distributed.start_logging()
  job_flags.use_compilation_cache()
  records = read_records(call.config.data, call.workdir)
  model = open_chosen(call.config.model, call.workdir)
  job_flags.write_config(call, 'prepare')
  cache = ensure_prepared(call.config, call.workdir, model, records, logger)
  entries = cache.entries().values()
  buckets = sorted({entry.bucket for entry in entries})
  logger.info(
    'prepare: done, %d clips, latents %s, in %s',
    len(entries),
    ', '.join('x'.join(map(str, bucket)) for bucket in buckets),
    cache.folder,
  )
  return 0


def read_records(
  data: prepare_lib.DataConfig, workdir: pathlib.Path
) -> ReadResult:
  """The records of the alignment files, checked but for their videos.

  Raises:
    UserError: a bad file or record.
  """
  # Encoded clips may live on without their videos.
  return read_alignment(
    data.root or _sample_data(data, workdir),
    data.synthetic,
    data.real,
    data.on_bad_record,
    require_files=False,
  )


def ensure_prepared(
  config: AlignConfig,
  workdir: pathlib.Path,
  model: ModelFolder,
  found: ReadResult,
  logger: logging.Logger,
) -> Cache:
  """The cache with every record in it; encodes only what is missing.

  Raises:
    UserError: a bad clip, one that has changed since it was encoded, or a
      cache of other settings.
  """
  data = config.data
  encoding.check_sizes(model, data.sizes)
  folder = pathlib.Path(data.cache) if data.cache else workdir / 'cache'
  kept = {
    'dtype': config.prepare.compute_dtype,
    'keep_dtype': config.prepare.keep_dtype,
    'tiling': config.prepare.tiling,
  }
  cache = Cache(
    folder.expanduser().resolve(),
    encoding.identity(model, **kept) | prepare_lib.identity(data),
  )
  if prepare_lib.missing_from(cache, found.records, data.on_bad_record):
    prepare_lib.run(
      cache,
      found.records,
      lambda: encoding.ClipEncoder(
        model, batch_per_device=config.prepare.batch_per_device, **kept
      ),
      data,
      config.prepare,
      logger,
    )
  _list_skipped(workdir / 'skipped.json', found, cache, logger)
  return cache


def _list_skipped(
  path: pathlib.Path, found: ReadResult, cache: Cache, logger: logging.Logger
) -> None:
  """Counts and lists the records that were left out, on the primary host."""
  if not distributed.is_primary():
    return
  skipped = cache.skipped()
  keys = [record_key(record) for record in found.records]
  reasons = [f'{where}: {reason}' for where, reason in found.skipped]
  reasons += [skipped[key].reason for key in keys if key in skipped]
  path.unlink(missing_ok=True)
  if reasons:
    write_json(path, reasons)
    logger.warning(
      '%d of %d records were skipped, listed in %s',
      len(reasons),
      len(found.records) + len(found.skipped),
      path,
    )


def _sample_data(
  data: prepare_lib.DataConfig, workdir: pathlib.Path
) -> pathlib.Path:
  """Clips of our own, where the config names no data."""
  if not data.sample_clips:
    raise UserError(
      'data.root is empty: give the folder of the videos, '
      'as --config.data.root=FOLDER'
    )
  folder = workdir / 'sample_clips'
  height, width = data.sizes[0]
  if distributed.is_primary():
    make_sample_clips(folder, data.sample_clips, data.max_frames, height, width)
  distributed.barrier('sample clips are written')
  return folder
