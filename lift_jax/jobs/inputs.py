"""Inputs of several jobs: toy clips, adapters, reports of unusual records."""

from collections.abc import Mapping, Sequence
import logging
import pathlib

import jax

from lift_jax.data import clip_flags, critic_prompts
from lift_jax.errors import UserError
from lift_jax.models.adapters import Adapter
from lift_jax.models.critic_config import CriticModelConfig, choose_template
from lift_jax.models.critics import Critic
from lift_jax.runtime import distributed, storage
from lift_jax.runtime.files import parse_json, write_json
from lift_jax.toyworld import dataset

# Folder of the clips of `toy_clips`, in a workdir.
TOY_CLIPS = 'toy_clips'


def toy_clips(
  workdir: pathlib.Path, num_clips: int, **sizes: int
) -> pathlib.Path:
  """A folder of clips of the toy world; every host must call it.

  Args:
    workdir: gets the folder.
    num_clips: how many.
    **sizes: of the clips; see `dataset.write_clips`.

  Raises:
    UserError: `num_clips` is 0, so that the job has no data.
  """
  if not num_clips:
    raise UserError(
      'data.root is empty: give the folder of the videos, '
      'as --config.data.root=FOLDER'
    )
  folder = workdir / TOY_CLIPS
  if distributed.is_primary():
    dataset.write_clips(folder, num_clips, **sizes)
  distributed.barrier('the toy clips are written')
  return folder


def log_adapters(adapters: Sequence[Adapter], logger: logging.Logger) -> None:
  """Logs each adapter of a model, with its rank, alpha and scale."""
  for adapter in adapters:
    logger.info('adapter %s', adapter.describe())


def critic_template(config: CriticModelConfig, critic: Critic) -> str:
  """The prompt template of a critic: of the config, or of its training."""
  folders = [*(adapter.folder for adapter in critic.adapters), critic.path]
  return choose_template(
    config, critic, critic_prompts.trained_template(folders)
  )


def report_skipped(
  workdir: pathlib.Path,
  reasons: Sequence[str],
  num_left: int,
  logger: logging.Logger,
) -> None:
  """Counts and lists skipped records, on the primary host.

  Args:
    workdir: gets `skipped.json`; lists of an earlier run are deleted.
    reasons: location of each skipped record, and why it was skipped.
    num_left: number of other records.
  """
  if not distributed.is_primary():
    return
  for path in workdir.glob('skipped-*.json'):
    path.unlink()
  path = _skipped_path(workdir)
  path.unlink(missing_ok=True)
  if reasons:
    write_json(path, reasons)
    logger.warning(
      '%d of %d records were skipped, listed in %s',
      len(reasons),
      len(reasons) + num_left,
      path,
    )


def report_flagged(
  workdir: pathlib.Path,
  flags: Mapping[str, Sequence[str]],
  logger: logging.Logger,
) -> None:
  """Counts and lists clips that are unusual, on the primary host.

  Args:
    workdir: gets `flagged.json`; that of an earlier run is deleted.
    flags: of each clip in use, see `clip_flags`.
  """
  if not distributed.is_primary():
    return
  path = workdir / 'flagged.json'
  path.unlink(missing_ok=True)
  flagged = {video: list(found) for video, found in flags.items() if found}
  if flagged:
    write_json(path, flagged)
    logger.warning(
      '%d of %d clips are flagged: %s; listed in %s (skip_flagged leaves them '
      'out)',
      len(flagged),
      len(flags),
      clip_flags.count(flagged.values()),
      path,
    )


def add_skipped(workdir: pathlib.Path, reason: str) -> None:
  """Adds a line to the list of this host, while a job runs.

  That of the primary host is `skipped.json`, of others `skipped-HOST.json`.
  """
  path = _skipped_path(workdir)
  reasons = parse_json(storage.read_text(path)) if path.exists() else []
  write_json(path, [*reasons, reason])


def _skipped_path(workdir: pathlib.Path) -> pathlib.Path:
  host = '' if distributed.is_primary() else f'-{jax.process_index():05}'
  return workdir / f'skipped{host}.json'
