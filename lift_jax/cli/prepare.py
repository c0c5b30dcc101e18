"""Encodes videos and captions once, so that training reads them from disk.

usage: lift prepare --config=FILE.py[:variant] --workdir=DIR [--multihost]
                    [--config.SECTION.FIELD=VALUE ...]

Reads the alignment files that the config names, decodes the videos, encodes
them with the model's VAE and their captions with its T5, and writes the cache
(DIR/cache unless data.cache says otherwise). Run it again to go on after a
kill; what is done is not done again.

example: lift prepare --config=configs/align_sample.py:smoke --workdir=runs/demo
"""

import logging
import pathlib

from lift_jax import distributed
from lift_jax.cli import job_flags
from lift_jax.cli.align_config import AlignConfig
from lift_jax.data import prepare as prepare_lib
from lift_jax.data.cache import Cache
from lift_jax.data.records import AlignmentRecord, read_alignment
from lift_jax.data.sample_clips import make_sample_clips
from lift_jax.errors import UserError
from lift_jax.models.cogvideox import encoding
from lift_jax.models.cogvideox.choice import open_chosen
from lift_jax.models.cogvideox.folder import ModelFolder


def main(argv: list[str]) -> int:
  call = job_flags.parse(argv, AlignConfig, 'prepare')
  distributed.initialize(call.multihost)
  logger = distributed.start_logging()
  model = open_chosen(call.config.model, call.workdir)
  cache, _ = ensure_prepared(call.config, call.workdir, model, logger)
  entries = cache.entries().values()
  buckets = sorted({entry.bucket for entry in entries})
  logger.info(
    'prepare: done, %d clips, latents %s, in %s',
    len(entries),
    ', '.join('x'.join(map(str, bucket)) for bucket in buckets),
    cache.folder,
  )
  return 0


def ensure_prepared(
  config: AlignConfig,
  workdir: pathlib.Path,
  model: ModelFolder,
  logger: logging.Logger,
) -> tuple[Cache, list[AlignmentRecord]]:
  """The cache with every record in it; encodes only what is missing.

  Raises:
    UserError: a bad record or clip, or a cache of other settings.
  """
  data = config.data
  encoding.check_sizes(model, data.sizes, data.max_frames)
  root = pathlib.Path(data.root) if data.root else _sample_data(data, workdir)
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
  # Encoded clips may live on without their videos.
  result = read_alignment(
    root, data.synthetic, data.real, data.on_bad_record, require_files=False
  )
  for where, reason in result.skipped:
    logger.warning('skipped %s: %s', where, reason)
  missing = prepare_lib.missing_from(cache, result.records)
  if not missing:
    return cache, result.records
  prepare_lib.run(
    cache,
    result.records,
    lambda: encoding.ClipEncoder(
      model, batch_per_device=config.prepare.batch_per_device, **kept
    ),
    data,
    config.prepare,
    logger,
  )
  return cache, result.records


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
