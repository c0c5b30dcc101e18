"""Which clips a training run can use: decoded once, before it begins.

  WORKDIR/clips.jsonl   what was found of each clip, one line each

A clip that was found good is not decoded again until its file changes, so a
check that was killed goes on where it stopped.

Once training has begun, its examples have to stay the same: a run resumes only
with those that it began with. `is_settled` keeps what was found then, whatever
has become of the files since.
"""

from collections.abc import Generator, Iterator, Mapping, Sequence
import concurrent.futures
import contextlib
import dataclasses
import logging
import pathlib
from typing import Any

import jax

from lift_jax.data import video
from lift_jax.data.critic_examples import (
  Example,
  FramePreprocessor,
  decode_selected,
)
from lift_jax.data.critic_records import PairQuestion
from lift_jax.data.hra import HRARecord
from lift_jax.errors import UserError
from lift_jax.runtime import distributed, storage
from lift_jax.runtime.journal import Journal, Line
from lift_jax.runtime.progress import Progress, tracked
from lift_jax.runtime.shutdown import Stopped, StopSignal

# The metadata of a clip, or why it cannot be used.
Finding = video.ClipInfo | str


class ClipChecks:
  """What was found of the clips of a run; every host makes one.

  Args:
    path: the journal, in the workdir.
    is_settled: whether findings hold although files have changed.
    num_threads: threads that read clips.
    max_undecodable: see `clip_flags.ClipRules`.
  """

  def __init__(
    self,
    path: pathlib.Path,
    is_settled: bool,
    num_threads: int,
    max_undecodable: float,
  ):
    self._journal = Journal(path, _key, jax.process_index())
    self._is_settled = is_settled
    self._num_threads = num_threads
    self._max_undecodable = max_undecodable
    if distributed.is_primary() and path.exists():
      self._journal.gather(())
    distributed.barrier('earlier checks of clips are merged')
    self._lines = self._journal.read()

  @property
  def settled(self) -> dict[str, Finding]:
    """Findings that hold whatever the files are now, by name of the clip."""
    if not self._is_settled:
      return {}
    return {name: _finding(line) for name, line in self._lines.items()}

  @property
  def failures(self) -> list[str]:
    """What `note_failure` was told in earlier parts of this run."""
    if not self._is_settled:
      return []
    lines = self._lines.values()
    return [failure for line in lines for failure in line.get('failures', [])]

  def probe(
    self, records: Sequence[HRARecord | PairQuestion]
  ) -> dict[str, Finding]:
    """What each clip states of itself, by name; nothing is decoded."""
    settled = self.settled
    new = [record for record in records if record.video not in settled]
    return settled | probe_clips(new, self._num_threads, self._max_undecodable)

  def decode(
    self,
    examples: Sequence[Example],
    probed: Mapping[str, Finding],
    frames: FramePreprocessor,
    on_bad_record: str,
    logger: logging.Logger,
  ) -> dict[str, str]:
    """Decodes each clip once, unless that was done; every host must call it.

    Args:
      examples: whose clips are decoded.
      probed: as from `probe`, with the clips that are not in `examples`.
      frames: of the critic.
      on_bad_record: 'error' raises for the first bad clip of a host.
      logger: for the progress.

    Returns:
      Why clips cannot be used, by name.

    Raises:
      UserError: a bad clip, or the journal cannot be written.
      Stopped: on SIGTERM; what was found is kept.
    """
    first = {}
    for example in examples:
      first.setdefault(example.record.video, example)
    mine = list(first.values())[jax.process_index() :: jax.process_count()]
    todo = [example for example in mine if not self._is_known(example)]
    with (
      distributed.independent_work('every host has checked its clips'),
      StopSignal(together=False) as stop,
      self._writing(),
      Progress(
        len(mine),
        'clip',
        done=len(mine) - len(todo),
        logger=logger,
        enabled=distributed.is_primary(),
      ) as progress,
      contextlib.closing(self._check(todo, frames)) as lines,
    ):
      if distributed.is_primary():
        for name, finding in probed.items():
          if isinstance(finding, str) and not self._is_settled:
            self._journal.add({'video': name, 'error': finding})
      for line in lines:
        if stop.received:
          break
        if 'error' in line and on_bad_record == 'error':
          example = first[line['video']]
          raise UserError(f'{example.record.where}: {line["error"]}')
        self._journal.add(line)
        progress.update(1)
    if not distributed.true_everywhere(not stop.received):
      raise Stopped
    if distributed.is_primary():
      self._journal.gather(list(first))
    distributed.barrier('every host has checked its clips, and all are merged')
    self._lines = self._journal.read()
    return {
      name: self._lines[name]['error']
      for name in first
      if 'error' in self._lines[name]
    }

  def note_failure(self, name: str, failure: str) -> bool:
    """Notes that a good clip has failed since; only one thread may call it.

    Returns:
      Whether this is new.
    """
    line = self._lines[name]
    failures = line.get('failures', [])
    if failure in failures:
      return False
    self._lines[name] = line | {'failures': [*failures, failure]}
    with self._writing():
      self._journal.add(self._lines[name])
    return True

  def _is_known(self, example: Example) -> bool:
    line = self._lines.get(example.record.video)
    if line is None or self._is_settled:
      return line is not None
    is_good = 'clip' in line and 'failures' not in line
    signature = storage.file_signature(example.path)
    return is_good and tuple(line['stamp']) == signature

  def _check(
    self, examples: Sequence[Example], frames: FramePreprocessor
  ) -> Generator[Line]:
    """The line of each clip, in order."""

    def check(example: Example) -> Line:
      line = {'video': example.record.video}
      stamp = storage.file_signature(example.path)
      where = example.record.where
      try:
        decode_selected(
          example.path, example.clip, example.selection, frames, where
        )
      except UserError as error:
        return line | {'error': _without(where, error)}
      return line | {'stamp': stamp, 'clip': dataclasses.asdict(example.clip)}

    with concurrent.futures.ThreadPoolExecutor(self._num_threads) as pool:
      futures = [pool.submit(check, example) for example in examples]
      try:
        for future in futures:
          yield future.result()
      finally:
        pool.shutdown(cancel_futures=True)

  @contextlib.contextmanager
  def _writing(self) -> Iterator[None]:
    """The journal, open; an error of it is a UserError."""
    try:
      with self._journal:
        yield
    except OSError as error:
      raise UserError(
        f'{self._journal.path} cannot be written ({error.strerror}); make room '
        'and run the same command again to resume'
      ) from None


def probe_clips(
  records: Sequence[HRARecord | PairQuestion],
  num_threads: int,
  max_undecodable: float,
) -> dict[str, Finding]:
  """What the clips of records state of themselves, by name."""
  first = {}
  for record in records:
    first.setdefault(record.video, record)

  def probe(record: HRARecord | PairQuestion) -> Finding:
    try:
      with storage.local_file(record.path) as path:
        return video.probe(
          path, where=record.where, max_undecodable=max_undecodable
        )
    except UserError as error:
      return _without(record.where, error)

  with concurrent.futures.ThreadPoolExecutor(num_threads) as pool:
    found = pool.map(probe, first.values())
    return dict(zip(tracked(first, 'clip'), found, strict=True))


def _without(where: str, error: UserError) -> str:
  """The message without its location; each record of the clip adds its own."""
  return str(error).removeprefix(f'{where}: ')


def _key(line: Line) -> str:
  """The clip of a line; an error for lines of another version."""
  _finding(line)
  return line['video']


def _finding(line: Mapping[str, Any]) -> Finding:
  if 'error' in line:
    return line['error']
  clip = line['clip']
  return video.ClipInfo(**clip | {'flags': tuple(clip['flags'])})
