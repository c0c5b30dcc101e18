"""Records that a job leaves out, and clips of our own where it has none."""

from collections.abc import Sequence
import logging
import pathlib

from lift_jax.data.sample_clips import make_sample_clips
from lift_jax.errors import UserError
from lift_jax.runtime import distributed
from lift_jax.runtime.files import write_json


def sample_clips(
  workdir: pathlib.Path, num_clips: int, **arguments
) -> pathlib.Path:
  """The folder of clips of our own; every host must call it.

  Args:
    workdir: gets `sample_clips`.
    num_clips: how many.
    **arguments: see `make_sample_clips`.

  Raises:
    UserError: none are asked for, so that there is nothing to work on.
  """
  if not num_clips:
    raise UserError(
      'data.root is empty: give the folder of the videos, '
      'as --config.data.root=FOLDER'
    )
  folder = workdir / 'sample_clips'
  if distributed.is_primary():
    make_sample_clips(folder, num_clips, **arguments)
  distributed.barrier('sample clips are written')
  return folder


def report_skipped(
  workdir: pathlib.Path,
  reasons: Sequence[str],
  num_left: int,
  logger: logging.Logger,
) -> None:
  """Counts and lists what was left out, on the primary host.

  Args:
    workdir: gets `skipped.json`, or loses that of an earlier run.
    reasons: where each record stands, and why it was left out.
    num_left: how many records were not.
  """
  if not distributed.is_primary():
    return
  path = workdir / 'skipped.json'
  path.unlink(missing_ok=True)
  if reasons:
    write_json(path, reasons)
    logger.warning(
      '%d of %d records were skipped, listed in %s',
      len(reasons),
      len(reasons) + num_left,
      path,
    )
