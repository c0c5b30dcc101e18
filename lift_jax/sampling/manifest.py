"""Manifest of finished clips, appended to while a job runs.

  WORKDIR/manifest.jsonl         one line for each clip
  WORKDIR/.manifest-HOST.jsonl   the lines of the other hosts, while they run

A clip is finished once it has a line, which is written after its files (see
`journal`). Every run first compares the files of its clips with their hashes;
it reads those that have changed since they were hashed (see `hashes`).
"""

from collections.abc import Mapping, Sequence
import concurrent.futures
import dataclasses
import json
import pathlib
from typing import Any, Self

from lift_jax.errors import UserError
from lift_jax.runtime.batching import ahead
from lift_jax.runtime.hashes import FileHashes
from lift_jax.runtime.journal import Journal, differences
from lift_jax.runtime.progress import tracked
from lift_jax.sampling.clips import Clip

NAME = 'manifest.jsonl'

# Folder of each kind of file, and its suffix.
VIDEOS, LATENTS = 'videos', 'latents'
_SUFFIXES = {VIDEOS: '.mp4', LATENTS: '.npy'}
_READERS = 8


@dataclasses.dataclass(frozen=True)
class ListedClip:
  """A finished clip.

  Attributes:
    video: path of the mp4 file in the workdir of the job.
    path: of the mp4 file.
    prompt: id of its prompt.
    caption: text of its prompt.
    seed: see `clips.Clip`.
  """

  video: str
  path: pathlib.Path
  prompt: str
  caption: str
  seed: int


def read_lines(workdir: pathlib.Path) -> dict[str, dict[str, Any]]:
  """The lines of the manifest of a finished job, by their videos, in order."""
  return Journal(workdir / NAME, _video).read()


def read(workdir: pathlib.Path) -> list[ListedClip]:
  """The clips of a finished job, in the order of its manifest."""
  return [
    ListedClip(video, workdir / video, line['id'], line['prompt'], line['seed'])
    for video, line in read_lines(workdir).items()
  ]


def file_name(clip: Clip, kind: str) -> str:
  """The name of a file of a clip, in the folder of its kind."""
  return f'{clip.stem}{_SUFFIXES[kind]}'


class Manifest:
  """The manifest of one job; use it as a context manager while clips are added.

  Args:
    workdir: contains the manifest, and the folders of its files.
    fingerprint: what determines a clip besides prompt and seed: JSON values,
      nested dicts.
    kinds: of files that a clip has.
    host: number of this process.
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    fingerprint: Mapping[str, Any],
    kinds: Sequence[str] = (VIDEOS,),
    host: int = 0,
  ):
    self._workdir = workdir
    self._kinds = kinds
    # In the form that is read back: tuples become lists.
    self._fingerprint = json.loads(json.dumps(fingerprint))
    self._journal = Journal(workdir / NAME, _stem, host)
    self._hashes = FileHashes(workdir, host)

  @property
  def path(self) -> pathlib.Path:
    return self._journal.path

  def file(self, clip: Clip, kind: str) -> pathlib.Path:
    """The path of a file of a clip."""
    return self._workdir / kind / file_name(clip, kind)

  def gather(self, clips: Sequence[Clip]) -> None:
    """Merges the lines of all hosts into one file, in the order of `clips`.

    Only the primary host calls it, while no other writes. Clips of earlier runs
    that are not in `clips` are kept, at the end.
    """
    self._journal.gather([clip.stem for clip in clips])
    self._hashes.gather()

  def finished(
    self, clips: Sequence[Clip], *, verify: bool = False
  ) -> set[str]:
    """Stems of those `clips` whose files match their hashes in the manifest.

    Args:
      clips: to look for.
      verify: whether to read all files, and not only changed ones.

    Raises:
      UserError: a clip of the same name has another prompt, seed or setting.
    """
    lines = self._journal.read()
    known = [clip for clip in clips if clip.stem in lines]
    for clip in known:
      self._check_same(lines[clip.stem], clip)
    with (
      self._hashes,
      concurrent.futures.ThreadPoolExecutor(_READERS) as pool,
    ):
      futures = (
        pool.submit(self._is_intact, lines[clip.stem], clip, verify)
        for clip in known
      )
      is_intact = ahead(futures, 2 * _READERS)
      return {
        clip.stem
        for clip, future in zip(tracked(known, 'clip'), is_intact, strict=True)
        if future.result()
      }

  def _line(self, clip: Clip) -> dict[str, Any]:
    return {
      'id': clip.prompt.id,
      'index': clip.index,
      'name': clip.prompt.name,
      'prompt': clip.prompt.text,
      'seed': clip.seed,
      'initial_noise': clip.initial_noise,
      **self._fingerprint,
    }

  def _check_same(self, line: Mapping[str, Any], clip: Clip) -> None:
    found = {key: line[key] for key in line.keys() - {'files'}}
    for name, old, new in differences(found, self._line(clip)):
      raise UserError(
        f'{self.path}: {clip.stem} was made with {name} = {old!r}, which is '
        f'now {new!r}; give another --workdir'
      )

  def _digests(self, clip: Clip, *, read: bool) -> dict[str, str]:
    """Hashes of the current files of a clip; see `FileHashes.sha256`."""
    paths = [self.file(clip, kind) for kind in self._kinds]
    return {
      path.relative_to(self._workdir).as_posix(): self._hashes.sha256(
        path, read=read
      )
      for path in paths
    }

  def _is_intact(
    self, line: Mapping[str, Any], clip: Clip, verify: bool
  ) -> bool:
    """Whether the files of a clip are unchanged since it was generated."""
    try:
      digests = self._digests(clip, read=verify)
      return digests.items() <= line['files'].items()
    except OSError:
      return False

  def add(self, clip: Clip) -> None:
    """Adds a clip whose files are written; thread-safe."""
    digests = self._digests(clip, read=True)
    self._journal.add({'files': digests} | self._line(clip))

  def __enter__(self) -> Self:
    self._hashes.__enter__()
    self._journal.__enter__()
    return self

  def __exit__(self, *exception) -> None:
    self._journal.__exit__(*exception)
    self._hashes.__exit__(*exception)


def _video(line: Mapping[str, Any]) -> str:
  """The mp4 file of the clip of a line."""
  (video,) = (name for name in line['files'] if name.endswith('.mp4'))
  return video


def _stem(line: Mapping[str, Any]) -> str:
  """The stem of the clip of a line."""
  return pathlib.PurePosixPath(_video(line)).stem
