"""Measuring of files that belong to clips, with results kept in a journal."""

import abc
from collections.abc import Mapping
import pathlib
from typing import Any

import jax

from lift_jax.comparison.clip_sets import ClipSet, Key, SampledClip
from lift_jax.runtime import storage
from lift_jax.runtime.journal import Journal
from lift_jax.runtime.progress import Progress
from lift_jax.runtime.shutdown import StopSignal
from lift_jax.sampling.clips import safe_name


class FileMeasurer(abc.ABC):
  """Measures a file of each clip of one model, for `measuring.measure_all`.

  A file is measured again once it or `made_by` has changed. Each host measures
  its share.

  Args:
    workdir: gets `KIND_MODEL.jsonl`.
    kind: of the files.
    found: the clips.
    made_by: JSON values that determine the results.
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    kind: str,
    found: ClipSet,
    made_by: Mapping[str, Any],
  ):
    self._found, self._made_by = found, dict(made_by)
    name = f'{kind}_{safe_name(found.model, 100)}.jsonl'
    self._journal = Journal(
      workdir / name, lambda line: line['video'], jax.process_index()
    )

  @abc.abstractmethod
  def file(self, clip: SampledClip) -> pathlib.Path:
    """The file of a clip."""

  @property
  def num_clips(self) -> int:
    """On all hosts together."""
    return len(self._found.clips)

  @abc.abstractmethod
  def run(
    self, num_readers: int, stop: StopSignal | None, progress: Progress
  ) -> bool:
    """See `measuring.ClipMeasurer.run`."""

  def gather(self) -> None:
    """Merges the lines of all hosts; only the primary host calls it."""
    clips = self._found.clips.values()
    self._journal.gather([clip.video for clip in clips])

  def _share(self) -> tuple[list[SampledClip], list[SampledClip]]:
    """The clips of this host, and those of them that are not measured yet."""
    lines = self._journal.read()
    clips = list(self._found.clips.values())
    mine = clips[jax.process_index() :: jax.process_count()]

    def is_done(clip: SampledClip) -> bool:
      line = lines.get(clip.video)
      return (
        line is not None
        and line['made_by'] == self._made_by
        and tuple(line['stamp']) == storage.file_signature(self.file(clip))
      )

    return mine, [clip for clip in mine if not is_done(clip)]

  def _add(
    self,
    clip: SampledClip,
    stamp: storage.FileSignature | None,
    values: Mapping[str, float],
  ) -> None:
    self._journal.add(
      {
        'video': clip.video,
        'stamp': list(stamp or ()),
        'made_by': self._made_by,
        'values': dict(values),
      }
    )

  def results(self) -> dict[Key, dict[str, float]]:
    """The values of each clip, by name."""
    lines = self._journal.read()
    return {
      key: lines[clip.video]['values']
      for key, clip in self._found.clips.items()
    }
