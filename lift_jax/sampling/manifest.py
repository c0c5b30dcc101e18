"""The list of finished clips, written as a job goes: what may be trusted.

  WORKDIR/manifest.jsonl         one line for each clip
  WORKDIR/.manifest-HOST.jsonl   the lines of the other hosts, while they run

A clip counts from the moment its line is there, which comes after its files
(see `journal`). A run that starts looks at what every file of its clips holds
now.
"""

from collections.abc import Mapping, Sequence
import concurrent.futures
import json
import pathlib
from typing import Any, Self

from lift_jax.errors import UserError
from lift_jax.runtime.files import file_sha256
from lift_jax.runtime.journal import Journal, differences
from lift_jax.sampling.clips import Clip

NAME = 'manifest.jsonl'

# Folder of each kind of file, and its suffix.
VIDEOS, LATENTS = 'videos', 'latents'
_SUFFIXES = {VIDEOS: '.mp4', LATENTS: '.npy'}
_READERS = 8


class Manifest:
  """The lines of one job; use it as a context manager while clips are made.

  Args:
    workdir: where the manifest lies, and the folders of its files.
    made_by: what decides how a clip looks: JSON values, nested dicts.
    kinds: of files that a clip has.
    host: number of this process.
  """

  def __init__(
    self,
    workdir: pathlib.Path,
    made_by: Mapping[str, Any],
    kinds: Sequence[str] = (VIDEOS,),
    host: int = 0,
  ):
    self._workdir = workdir
    self._kinds = kinds
    # As it is read back: tuples become lists.
    self._made_by = json.loads(json.dumps(made_by))
    self._journal = Journal(workdir / NAME, _stem, host)

  @property
  def path(self) -> pathlib.Path:
    return self._journal.path

  def file(self, clip: Clip, kind: str) -> pathlib.Path:
    """Where a file of a clip lies."""
    return self._workdir / kind / f'{clip.stem}{_SUFFIXES[kind]}'

  def gather(self, clips: Sequence[Clip]) -> None:
    """Makes one file of all parts, in the order of `clips`.

    For the first host, while no other writes. Clips of earlier runs that are
    not among `clips` stay, at the end.
    """
    self._journal.gather([clip.stem for clip in clips])

  def finished(self, clips: Sequence[Clip]) -> set[str]:
    """Stems of those `clips` whose files are what the manifest says.

    Raises:
      UserError: a clip of another prompt, seed or setting has the name of one.
    """
    lines = self._journal.read()
    known = [clip for clip in clips if clip.stem in lines]
    for clip in known:
      self._check_same(lines[clip.stem], clip)
    with concurrent.futures.ThreadPoolExecutor(_READERS) as pool:
      is_whole = pool.map(
        lambda clip: self._is_whole(lines[clip.stem], clip), known
      )
      return {
        clip.stem for clip, yes in zip(known, is_whole, strict=True) if yes
      }

  def _line(self, clip: Clip) -> dict[str, Any]:
    return {
      'id': clip.prompt.id,
      'index': clip.index,
      'name': clip.prompt.name,
      'prompt': clip.prompt.text,
      'seed': clip.seed,
      'initial_noise': clip.initial_noise,
      **self._made_by,
    }

  def _check_same(self, line: Mapping[str, Any], clip: Clip) -> None:
    there = {key: line[key] for key in line.keys() - {'files'}}
    for name, old, new in differences(there, self._line(clip)):
      raise UserError(
        f'{self.path}: {clip.stem} was made with {name} = {old!r}, which is '
        f'now {new!r}; give another --workdir'
      )

  def _digests(self, clip: Clip) -> dict[str, str]:
    """Hashes of what the files of a clip hold now."""
    paths = [self.file(clip, kind) for kind in self._kinds]
    return {
      path.relative_to(self._workdir).as_posix(): file_sha256(path)
      for path in paths
    }

  def _is_whole(self, line: Mapping[str, Any], clip: Clip) -> bool:
    """Whether the files of a clip hold what they held when it was made."""
    try:
      return self._digests(clip).items() <= line['files'].items()
    except OSError:
      return False

  def add(self, clip: Clip) -> None:
    """Notes a clip whose files are there; threads may call it."""
    digests = self._digests(clip)
    self._journal.add({'files': digests} | self._line(clip))

  def __enter__(self) -> Self:
    self._journal.__enter__()
    return self

  def __exit__(self, *exception) -> None:
    self._journal.__exit__(*exception)


def _stem(line: Mapping[str, Any]) -> str:
  """That of the clip of a line."""
  (video,) = (name for name in line['files'] if name.endswith('.mp4'))
  return pathlib.PurePosixPath(video).stem
