"""Real clips of `lift rounds`, which may be outside of its workdir."""

import os
import pathlib
from typing import Any

from lift_jax.data.records import read_alignment
from lift_jax.errors import UserError
from lift_jax.jobs.rounds_config import RoundsConfig
from lift_jax.runtime import storage


def common_root(config: RoundsConfig, workdir: pathlib.Path) -> pathlib.Path:
  """The folder that the clips of all rounds, and real ones, are below.

  Raises:
    UserError: there is none, as one of the two is in a bucket.
  """
  if not config.real.root:
    return workdir
  real = storage.to_path(config.real.root)
  if storage.is_remote(real) or storage.is_remote(workdir):
    raise UserError(
      f'real.root is {config.real.root}; real clips and --workdir must both be '
      'on a disk'
    )
  both = (str(real.resolve()), str(workdir.resolve()))
  return pathlib.Path(os.path.commonpath(both))


def real_records(
  config: RoundsConfig, root: pathlib.Path
) -> list[dict[str, Any]]:
  """Video and caption of each real clip, with paths relative to `root`."""
  folder = storage.to_path(config.real.root).resolve()
  found = read_alignment(
    folder,
    (),
    config.real.files,
    config.align.data.on_bad_record,
    follow_links='hub',
  )
  return [
    {
      'video': str((folder / record.video).relative_to(root)),
      'caption': record.caption,
    }
    for record in found.records
  ]
