"""The list of finished clips, written as a job goes: what may be trusted.

  WORKDIR/manifest.jsonl         one line for each clip
  WORKDIR/.manifest-HOST.jsonl   the lines of the other hosts, while they run

A clip counts from the moment its line is there, which comes after its files. A
run that starts drops torn lines, takes over the lines of hosts that were
killed, and looks at what every file of its clips holds now.
"""

from collections.abc import Mapping, Sequence
import concurrent.futures
import contextlib
import json
import os
import pathlib
import threading
from typing import Any, Self

from lift_jax.data.cache import file_sha256
from lift_jax.errors import UserError
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
    self._part = self._part_of(host)
    self._lock = threading.Lock()

  @property
  def path(self) -> pathlib.Path:
    return self._workdir / NAME

  def _part_of(self, host: int) -> pathlib.Path:
    return self._workdir / f'.manifest-{host}.jsonl' if host else self.path

  def file(self, clip: Clip, kind: str) -> pathlib.Path:
    """Where a file of a clip lies."""
    return self._workdir / kind / f'{clip.stem}{_SUFFIXES[kind]}'

  def gather(self, clips: Sequence[Clip]) -> None:
    """Makes one file of all parts, in the order of `clips`.

    For the first host, while no other writes. Clips of earlier runs that are
    not among `clips` stay, at the end.
    """
    parts = sorted(self._workdir.glob('.manifest-*.jsonl'))
    lines = {}
    for path in (self.path, *parts):
      lines |= _read(path)
    order = [clip.stem for clip in clips if clip.stem in lines]
    order += sorted(lines.keys() - set(order))
    partial = self.path.with_name(f'.{NAME}.partial')
    text = ''.join(_dump(lines[stem]) for stem in order)
    partial.write_text(text, encoding='utf-8')
    os.replace(partial, self.path)
    for path in parts:
      path.unlink()

  def finished(self, clips: Sequence[Clip]) -> set[str]:
    """Stems of those `clips` whose files are what the manifest says.

    Raises:
      UserError: a clip of another prompt, seed or setting has the name of one.
    """
    lines = _read(self.path)
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
    there, here = _flat(line), _flat(self._line(clip))
    for name in sorted((there.keys() | here.keys()) - {'files'}):
      if there.get(name) != here.get(name):
        raise UserError(
          f'{self.path}: {clip.stem} was made with {name} = '
          f'{there.get(name)!r}, which is now {here.get(name)!r}; give '
          'another --workdir'
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
    text = _dump({'files': digests} | self._line(clip))
    with self._lock:
      self._file.write(text)
      self._file.flush()

  def __enter__(self) -> Self:
    self._file = open(self._part, 'a', encoding='utf-8')  # noqa: SIM115
    return self

  def __exit__(self, *exception) -> None:
    # A full disk has been told by `add`, which leaves nothing to be lost.
    with contextlib.suppress(OSError):
      self._file.close()


def _dump(line: Mapping[str, Any]) -> str:
  return json.dumps(line, ensure_ascii=False) + '\n'


def _read(path: pathlib.Path) -> dict[str, dict[str, Any]]:
  """Lines by the stem of the clip, the last one of each; {} without a file.

  A line that a killed run has torn is passed over, and its clip made again.
  """
  lines = {}
  try:
    text = path.read_text(encoding='utf-8', errors='replace')
  except FileNotFoundError:
    return {}
  # Not splitlines: prompts may hold line separators of Unicode.
  for row in text.split('\n'):
    try:
      line = json.loads(row)
      (video,) = (name for name in line['files'] if name.endswith('.mp4'))
    except (ValueError, KeyError, TypeError, AttributeError):
      continue
    lines[pathlib.PurePosixPath(video).stem] = line
  return lines


def _flat(tree: Mapping[str, Any], prefix: str = '') -> dict[str, Any]:
  """{'sampler.name': 'dpm', ...}; 'files' stays as it is."""
  flat = {}
  for key, value in tree.items():
    if isinstance(value, Mapping) and key != 'files':
      flat |= _flat(value, f'{prefix}{key}.')
    else:
      flat[prefix + key] = value
  return flat
