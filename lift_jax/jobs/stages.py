"""Jobs that run other jobs in sequence, such as `lift demo`.

A stage runs a job, or prepares data for the next one. DIR/stages/ has a file
for each finished stage, with what it was made of; the same command again runs
only what is missing. Every host runs every stage.
"""

from collections.abc import Callable, Mapping, Sequence
import json
import logging
import pathlib
import time
from typing import Any

import ml_collections

from lift_jax.cli import job_flags
from lift_jax.errors import UserError
from lift_jax.models.generators import VideoModel
from lift_jax.runtime import distributed
from lift_jax.runtime.files import (
  json_sha256,
  read_json,
  remove_partials,
  write_json,
)
from lift_jax.runtime.journal import differences


class StagedJob:
  """A job in a workdir; finished stages are not run again.

  Args:
    call: of the job.
    job: its name, for the log.
    stages: names of all stages of this run, for the log. A name may be that of
      a file in a folder, as 'round_1/sample'.
    logger: for the stages and their jobs.
  """

  def __init__(
    self,
    call: job_flags.Invocation,
    job: str,
    stages: Sequence[str],
    logger: logging.Logger,
  ):
    self.workdir = call.workdir
    self._source = call.source
    self._job = job
    self._stages = stages
    self._logger = logger

  def stage(
    self, name: str, fingerprint: Mapping[str, Any], work: Callable[[], None]
  ) -> None:
    """Runs a stage, unless it is finished.

    Args:
      name: of the stage.
      fingerprint: JSON values that determine the result.
      work: runs the stage; resumes if it was interrupted.

    Raises:
      UserError: the stage is finished, but with another fingerprint.
    """
    number = f'{self._stages.index(name) + 1} of {len(self._stages)}'
    path = self._marker(name)
    fingerprint = json.loads(json.dumps(fingerprint))
    # Together, as one host may see the file before another does.
    if distributed.true_everywhere(path.is_file()):
      found = read_json(path)['made_of']
      for field, old, new in differences(found, fingerprint):
        raise UserError(
          f'{path}: stage {name!r} was made with {field} = {old!r}, which is '
          f'now {new!r}; give another --workdir'
        )
      self._logger.info(
        '%s: stage %s, %s: already done', self._job, number, name
      )
      return
    self._logger.info('%s: stage %s, %s', self._job, number, name)
    start = time.monotonic()
    work()
    seconds = time.monotonic() - start
    if distributed.is_primary():
      remove_partials(path.parent)
      write_json(path, {'made_of': fingerprint, 'seconds': round(seconds, 2)})
    distributed.barrier(f'{path} is written')

  def seconds(self) -> dict[str, float]:
    """The duration of each stage, in this run or an earlier one."""
    return {
      name: read_json(self._marker(name))['seconds'] for name in self._stages
    }

  def _marker(self, name: str) -> pathlib.Path:
    return self.workdir / 'stages' / f'{name}.json'

  def _fingerprints(self, *stages: str) -> dict[str, str]:
    """Hashes of the fingerprints of earlier stages, by name."""
    return {
      name: json_sha256(read_json(self._marker(name))['made_of'])[:16]
      for name in stages
    }

  def _section(self, name: str) -> Any:
    """A section of the config as JSON values."""
    section = self._source[name]
    if isinstance(section, ml_collections.ConfigDict):
      return json.loads(section.to_json_best_effort())
    return section

  def _call(
    self,
    section: str,
    config_class: type,
    folder: pathlib.Path,
    settings: Mapping[str, Any],
  ) -> job_flags.Invocation:
    """The invocation of a job, whose config is a section of this one."""
    return job_flags.make_call(
      self._source[section], config_class, folder, settings
    )


def model_fingerprint(model: VideoModel) -> dict[str, str]:
  """The fingerprint of each component of a model."""
  return {
    component: model.fingerprint(component)[:16]
    for component in ('transformer', 'vae', 'text_encoder')
  }
