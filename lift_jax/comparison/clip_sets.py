"""The clips of one model: what `lift sample` left, checked against a suite."""

from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
import concurrent.futures
import dataclasses
import pathlib
from typing import Any

from lift_jax.data import suites, video
from lift_jax.data.suites import Suite
from lift_jax.data.video import ClipInfo
from lift_jax.errors import UserError, listing
from lift_jax.runtime import storage
from lift_jax.runtime.journal import differences
from lift_jax.runtime.progress import tracked
from lift_jax.sampling import manifest

# (name of the prompt, index among its clips).
Key = tuple[str, int]

_READERS = 16
# Of a line of the manifest, what belongs to the clip; the rest are settings.
OF_CLIP = ('id', 'index', 'name', 'prompt', 'seed', 'initial_noise', 'files')


@dataclasses.dataclass(frozen=True)
class SampledClip:
  """A line of a manifest.

  Attributes:
    key: name of its prompt, and its index.
    prompt: the text that it was generated from.
    seed: of its noise, with the hash of the file that it started from, if any.
    video: path relative to the folder.
    path: of the file, resolved.
    settings: what else determined it: model, sampler, size.
  """

  key: Key
  prompt: str
  seed: tuple[int, str | None]
  video: str
  path: pathlib.Path
  settings: Mapping[str, Any]

  @property
  def where(self) -> str:
    """For messages: 'runs/base/videos/a-0.mp4'."""
    return str(self.path)


@dataclasses.dataclass(frozen=True)
class ClipSet:
  """The clips of one model.

  Attributes:
    model: its name in the report.
    folder: workdir of `lift sample`.
    clips: by key.
    doubles: files of further clips with the same key.
    unlisted: mp4 files that the manifest does not list.
    absent: files that it lists, but that are not there.
  """

  model: str
  folder: pathlib.Path
  clips: Mapping[Key, SampledClip]
  doubles: tuple[str, ...] = ()
  unlisted: tuple[str, ...] = ()
  absent: tuple[str, ...] = ()


def read_clips(model: str, folder: pathlib.Path) -> ClipSet:
  """The clips that `lift sample` wrote to a folder.

  Raises:
    UserError: there are none, or a line that `lift sample` did not write.
  """
  folder = storage.resolved(folder)
  path = folder / manifest.NAME
  clips: dict[Key, SampledClip] = {}
  doubles = []
  lines = manifest.read_lines(folder)
  settings: dict[str, Any] = {}
  for name, line in lines.items():
    own = {k: v for k, v in line.items() if k not in OF_CLIP}
    # Mostly those of the clip before: one object, as they are large.
    settings = settings if own == settings else own
    try:
      clip = SampledClip(
        key=(line['name'], line['index']),
        prompt=line['prompt'],
        seed=(line['seed'], line['initial_noise']),
        video=name,
        path=folder / name,
        settings=settings,
      )
    except KeyError as error:
      raise UserError(
        f'{path} ({name}): no {error}; give the workdir of lift sample'
      ) from None
    if clips.setdefault(clip.key, clip) is not clip:
      doubles.append(name)
  if not clips:
    raise UserError(f'{path}: lists no clip; give the workdir of lift sample')
  videos = folder / manifest.VIDEOS
  present = {
    f'{manifest.VIDEOS}/{file.name}'
    for file in (storage.children(videos) if videos.is_dir() else ())
    if file.suffix == '.mp4'
  }
  return ClipSet(
    model,
    folder,
    clips,
    tuple(doubles),
    unlisted=tuple(sorted(present - lines.keys())),
    absent=tuple(
      name
      for name in lines
      if name not in present and not (folder / name).is_file()
    ),
  )


def probe_clip(clip: SampledClip) -> ClipInfo | str:
  """Size, frames and rate of a clip, or why it cannot be read."""
  try:
    with storage.local_file(clip.path) as path:
      return video.probe(path, where=clip.video)
  except UserError as error:
    return str(error)


def probe_clips(clips: Collection[SampledClip]) -> dict[Key, ClipInfo | str]:
  """The same of all clips, in threads."""
  with concurrent.futures.ThreadPoolExecutor(_READERS) as pool:
    infos = pool.map(probe_clip, clips)
    return dict(
      zip((clip.key for clip in tracked(clips, 'clip')), infos, strict=True)
    )


@dataclasses.dataclass(frozen=True)
class Fault:
  """What is wrong with a set of clips.

  Attributes:
    kind: such as 'missing'.
    clips: names of the clips.
    detail: what is expected instead; '' if the kind says it.
  """

  kind: str
  clips: tuple[str, ...]
  detail: str = ''

  def __str__(self) -> str:
    what = f'{len(self.clips)} {self.kind} ({listing(self.clips, 3)})'
    return f'{what}: {self.detail}' if self.detail else what


# The only fault that `allow_missing` allows.
MISSING = 'missing'


def check_listed(found: ClipSet, suite: Suite) -> list[Fault]:
  """What is wrong with a set, as far as one can tell without opening a clip.

  Args:
    found: the clips of a model.
    suite: the clips that there should be.
  """
  wanted = dict.fromkeys(suite.keys)
  texts = {prompt.name: prompt.text for prompt in suite.prompts}
  faults = [
    Fault(MISSING, _names(key for key in wanted if key not in found.clips)),
    Fault('extra', _names(key for key in found.clips if key not in wanted)),
    Fault('double', found.doubles, 'one clip of a prompt and index is enough'),
    Fault('not in the manifest', found.unlisted),
    Fault('without a file', found.absent, 'run lift sample again'),
    Fault(
      'from another text',
      tuple(
        clip.video
        for clip in found.clips.values()
        if texts.get(clip.key[0], clip.prompt) != clip.prompt
      ),
      'than the suite states',
    ),
    *_unlike(found),
  ]
  if suite.name in suites.VBENCH_SUITES:
    misnamed = [
      key
      for key, clip in found.clips.items()
      if clip.path.name != f'{key[0]}-{key[1]}.mp4'
    ]
    faults.append(
      Fault(
        'that VBench does not find',
        _videos(found, misnamed),
        'it looks for NAME-INDEX.mp4; sample with output.name={prompt}-{index}',
      )
    )
  return [fault for fault in faults if fault.clips]


def check_opened(
  found: ClipSet, suite: Suite, infos: Mapping[Key, ClipInfo | str]
) -> list[Fault]:
  """What is wrong with clips of a set: cut, or not all of one kind.

  Args:
    found: the clips of a model.
    suite: the clips that there should be.
    infos: of some clips, see `probe_clip`. Others should be as most of them,
      or as the first where there is no majority.
  """
  faults = _picture_faults(found, infos)
  if suite.name in suites.VBENCH_SUITES:
    faults.append(_length_fault(found, suite, infos))
  return [fault for fault in faults if fault.clips]


def _length_fault(
  found: ClipSet, suite: Suite, infos: Mapping[Key, ClipInfo | str]
) -> Fault:
  """Clips that the other of the two evaluators of VBench scores."""
  is_long = {
    key: info.num_frames / info.fps >= suites.LONG_SECONDS
    for key, info in infos.items()
    if isinstance(info, ClipInfo) and info.fps
  }
  limit = f'{suites.LONG_SECONDS:g} s'
  wants_long = suite.name == suites.VBENCH_LONG
  kind, other, name = (
    (f'below {limit}', 'VBench', suites.VBENCH)
    if wants_long
    else (f'of {limit} or more', 'VBench-Long', suites.VBENCH_LONG)
  )
  wrong = [key for key, yes in is_long.items() if yes != wants_long]
  detail = f'{other} scores those; make the suite with --suite={name}'
  return Fault(kind, _videos(found, wrong), detail)


def _names(keys: Iterable[Key]) -> tuple[str, ...]:
  return tuple(f'{name}-{index}' for name, index in keys)


def _videos(found: ClipSet, keys: Iterable[Key]) -> tuple[str, ...]:
  return tuple(found.clips[key].video for key in keys)


def _unlike(found: ClipSet) -> list[Fault]:
  """Clips whose settings or checkpoint differ from those of the first."""
  clips = list(found.clips.values())
  first = clips[0]
  by_setting: dict[str, list[str]] = {}
  details = {}
  for clip in clips[1:]:
    if clip.settings == first.settings:
      continue
    for name, usual, other in differences(first.settings, clip.settings)[:1]:
      by_setting.setdefault(name, []).append(clip.video)
      details[name] = f'{other!r} instead of {usual!r}'
  return [
    Fault(f'with another {name}', tuple(videos), details[name])
    for name, videos in by_setting.items()
  ]


def _picture_faults(
  found: ClipSet, infos: Mapping[Key, ClipInfo | str]
) -> list[Fault]:
  """Clips that are cut, or of another size, length or rate than most."""
  readable = {k: v for k, v in infos.items() if isinstance(v, ClipInfo)}
  cut = [key for key in infos if key not in readable]
  faults = [Fault('cut or damaged', _videos(found, cut))]
  for what, of in (
    ('size', lambda info: f'{info.height}x{info.width}'),
    ('number of frames', lambda info: str(info.num_frames)),
    ('rate', lambda info: f'{info.fps:g} fps'),
  ):
    values = {key: of(info) for key, info in readable.items()}
    usual = _most_common(list(values.values()))
    unlike = [key for key, value in values.items() if value != usual]
    faults.append(
      Fault(f'of another {what}', _videos(found, unlike), f'not {usual}')
    )
  return faults


def _most_common(values: Sequence[str]) -> str:
  return Counter(values).most_common(1)[0][0] if values else ''


def refused_faults(faults: Sequence[Fault], allow_missing: bool) -> list[Fault]:
  """Faults that a set may not have."""
  return [
    fault for fault in faults if fault.kind != MISSING or not allow_missing
  ]


def refuse(
  found: ClipSet, faults: Sequence[Fault], *, allow_missing: bool = False
) -> None:
  """Raises UserError if a set has faults that it may not have."""
  if refused := refused_faults(faults, allow_missing):
    more = f' (and {len(refused) - 1} more faults)' if refused[1:] else ''
    remedy = (
      '; sample them, or set suite.allow_missing'
      if refused[0].kind == MISSING
      else '; lift compare check lists all'
    )
    raise UserError(f'{found.folder}: {refused[0]}{more}{remedy}')


def check_same_prompts(sets: Sequence[ClipSet]) -> None:
  """Raises UserError unless all sets are of the same prompts and texts."""
  first, *others = sets
  texts = {clip.key[0]: clip.prompt for clip in first.clips.values()}
  for other in others:
    theirs = {clip.key[0]: clip.prompt for clip in other.clips.values()}
    if unpaired := texts.keys() ^ theirs.keys():
      raise UserError(
        f'{first.folder} and {other.folder} have different prompts, such as '
        f'{min(unpaired)!r}; sample the same file of prompts with both models'
      )
    changed = [name for name in texts if texts[name] != theirs[name]]
    if changed:
      raise UserError(
        f'{first.folder} and {other.folder}: clips of {changed[0]!r} were '
        'generated from different texts; sample the same file of prompts with '
        'both models'
      )


def share_of_same_noise(base: ClipSet, other: ClipSet) -> float:
  """Fraction of the clips of both that start from the same noise."""
  shared = base.clips.keys() & other.clips.keys()
  same = [base.clips[key].seed == other.clips[key].seed for key in shared]
  return sum(same) / max(1, len(same))
