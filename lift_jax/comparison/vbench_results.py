"""Result files of VBench and VBench-Long.

A run of either writes two files:

  NAME_eval_results.json   {DIMENSION: [SCORE, [{"video_path", "video_results"},
                           ...]]}
  NAME_full_info.json      the prompts, each with the clips that were found

VBench-Long scores parts of each clip, in split_clip/NAME-INDEX/, and for most
dimensions adds a list with the scores of complete clips.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import itertools
import math
import pathlib
import re
from typing import Any
import zipfile

from lift_jax.comparison.clip_sets import Key
from lift_jax.data.suites import (
  FLICKER,
  NUM_CLIPS,
  VBENCH,
  VBENCH_LONG,
  Suite,
)
from lift_jax.data.vbench_dimensions import DIMENSIONS
from lift_jax.errors import UserError, listing
from lift_jax.runtime import storage
from lift_jax.runtime.files import atomic_path, parse_json

_RESULTS, _FULL_INFO = '_eval_results.json', '_full_info.json'
_SPLIT = 'split_clip'

# VBench itself leaves out clips in which it finds no object to judge.
_SPARSE = ('color',)
# Cosines, which may be negative for a single clip.
_SIGNED = ('appearance_style', 'temporal_style', 'overall_consistency')
# Of this one VBench writes the score as a fraction, those of clips in percent.
_PERCENT = 'imaging_quality'


@dataclasses.dataclass(frozen=True)
class DimensionResult:
  """One dimension of one model.

  Attributes:
    score: of the model, in [0, 1], as the leaderboard takes it.
    clips: score of each clip; 0 for one that is missing.
    missing: clips of the suite that VBench did not find.
    file: the result file.
  """

  score: float
  clips: Mapping[Key, float]
  missing: tuple[Key, ...]
  file: pathlib.Path


@dataclasses.dataclass(frozen=True)
class VBenchResults:
  """The results of one model.

  Attributes:
    evaluator: 'vbench' or 'vbench_long'.
    dimensions: by name, in the order of the leaderboard.
    files: result files.
  """

  evaluator: str
  dimensions: Mapping[str, DimensionResult]
  files: tuple[pathlib.Path, ...]

  @property
  def num_missing(self) -> int:
    return sum(len(result.missing) for result in self.dimensions.values())


def read_results(
  folder: pathlib.Path, suite: Suite, allow_missing: bool
) -> VBenchResults:
  """Reads and checks all result files of a folder.

  Args:
    folder: with one or more pairs of files, each of some dimensions.
    suite: whose clips were evaluated.
    allow_missing: whether clips may be missing. They then count as 0, as
      dimensions without a result do on the leaderboard.

  Raises:
    UserError: no file, one of another version or suite, or a bad entry.
  """
  if not folder.is_dir():
    raise UserError(f'{folder}: no such folder; give the results of VBench')
  found = storage.children(folder)
  files = sorted(path for path in found if path.name.endswith(_RESULTS))
  if not files:
    raise UserError(f'{folder}: no *{_RESULTS}; give the results of VBench')
  dimensions: dict[str, DimensionResult] = {}
  evaluators: dict[str, str] = {}
  for file in files:
    listed = _listed(file)
    for name, entry in _entries(file):
      where = f'{file} ({name})'
      if name in dimensions:
        raise UserError(
          f'{where}: also in {dimensions[name].file}; keep one of the two'
        )
      evaluators[where] = _evaluator(where, entry)
      dimensions[name] = _dimension(
        where, file, name, entry, suite, listed, allow_missing
      )
  _check_evaluators(evaluators, suite)
  in_order = {
    name: dimensions[name] for name in DIMENSIONS if name in dimensions
  }
  return VBenchResults(next(iter(evaluators.values())), in_order, tuple(files))


def _entries(file: pathlib.Path) -> list[tuple[str, Any]]:
  content = _read(file)
  if not isinstance(content, dict) or not content:
    raise UserError(f'{file}: not an object of dimensions; evaluate again')
  # The leaderboard writes blanks.
  entries = [(name.replace(' ', '_'), it) for name, it in content.items()]
  if unknown := {name for name, _ in entries} - DIMENSIONS.keys():
    raise UserError(
      f'{file}: {listing(unknown)} is no dimension of VBench 1; results of '
      'VBench-2.0 and of image-to-video have other totals and are not compared'
    )
  return entries


def _read(file: pathlib.Path) -> Any:
  try:
    return parse_json(storage.read_text(file, 'utf-8-sig'))
  except (OSError, ValueError) as error:
    raise UserError(
      f'{file}: not readable as JSON ({error}); evaluate with VBench again'
    ) from None


def _listed(file: pathlib.Path) -> set[Key] | None:
  """Clips that the run found, from its full-info file; None without one."""
  path = file.with_name(file.name.removesuffix(_RESULTS) + _FULL_INFO)
  if not path.is_file():
    return None
  entries = _read(path)
  if not isinstance(entries, list):
    raise UserError(f'{path}: not a list of prompts; evaluate again')
  videos = [
    video
    for entry in entries
    if isinstance(entry, dict)
    for video in entry.get('video_list') or ()
  ]
  return {_key(str(path), video) for video in videos}


def _key(where: str, video: Any) -> Key:
  """Prompt and index of a clip, or of the clip that a part is from."""
  if not isinstance(video, str):
    raise UserError(f'{where}: a clip without "video_path"; evaluate again')
  path = pathlib.PurePosixPath(video.replace('\\', '/'))
  stem = path.parent.name if _SPLIT in path.parts else path.stem
  match = re.fullmatch(r'(.+)-(\d+)', stem)
  if match is None:
    raise UserError(
      f'{where}: {path.name!r} is not named PROMPT-INDEX.mp4; evaluate the '
      'clips of a suite'
    )
  return match[1], int(match[2])


def _evaluator(where: str, entry: Any) -> str:
  """Which of the two wrote the result of a dimension."""
  if not isinstance(entry, list) or len(entry) not in (2, 3):
    raise UserError(
      f'{where}: not [score, clips]; give the file as VBench wrote it'
    )
  clips = entry[1]
  is_long = len(entry) == 3 or any(
    'inclip_score' in clip or f'/{_SPLIT}/' in str(clip.get('video_path'))
    for clip in clips
    if isinstance(clip, dict)
  )
  return VBENCH_LONG if is_long else VBENCH


def _dimension(
  where: str,
  file: pathlib.Path,
  name: str,
  entry: Sequence[Any],
  suite: Suite,
  listed: set[Key] | None,
  allow_missing: bool,
) -> DimensionResult:
  score = _number(where, entry[0])
  if not 0 <= score <= 1:
    raise UserError(
      f'{where}: the score {score:g} is not between 0 and 1; evaluate with the '
      'current version of VBench'
    )
  details = entry[-1]
  if not isinstance(details, list) or not details:
    raise UserError(f'{where}: no clips; give the file as VBench wrote it')
  clips = _clip_scores(where, name, details)
  wanted = set(_wanted(name, suite))
  for key in clips:
    if key not in wanted:
      raise UserError(
        f'{where}: {key[0]}-{key[1]}.mp4 is no clip of the suite {suite.name} '
        'for this dimension; give the results of its clips'
      )
    if listed is not None and key not in listed:
      raise UserError(
        f'{where}: {key[0]}-{key[1]}.mp4 is not in the *{_FULL_INFO} of the '
        'same name; keep the two files of a run together'
      )
  missing = [key for key in _wanted(name, suite) if key not in clips]
  if name in _SPARSE and (listed is None or wanted <= listed):
    missing = []
  if missing and not allow_missing:
    raise UserError(
      f'{where}: {len(missing)} of {len(wanted)} clips are missing, such as '
      f'{missing[0][0]}-{missing[0][1]}.mp4; evaluate all, or set '
      'suite.allow_missing to count them as 0'
    )
  complete = clips | dict.fromkeys(missing, 0.0)
  score *= len(clips) / len(complete)
  return DimensionResult(score, complete, tuple(missing), file)


def _wanted(name: str, suite: Suite) -> Iterator[Key]:
  """The clips of a dimension; of flicker, those that VBench keeps."""
  for prompt in suite.prompts:
    if name in prompt.dimensions:
      count = prompt.num_clips
      if name == FLICKER:
        count = min(count, NUM_CLIPS)
      yield from ((prompt.name, index) for index in range(count))


def _clip_scores(
  where: str, name: str, details: Sequence[Any]
) -> dict[Key, float]:
  """The score of each clip, the mean over its parts if it was split."""
  parts: dict[Key, list[float]] = {}
  paths: dict[str, None] = {}
  for item in details:
    if not isinstance(item, dict) or 'video_results' not in item:
      raise UserError(
        f'{where}: a clip without "video_results"; give the file as VBench '
        'wrote it'
      )
    key = _key(where, item.get('video_path'))
    path = item['video_path']
    is_part = f'/{_SPLIT}/' in path
    if path in paths or key in parts and not is_part:
      raise UserError(
        f'{where}: two entries for {key[0]}-{key[1]}.mp4; evaluate again'
      )
    paths[path] = None
    number = _number(where, item['video_results'])
    number = number / 100 if name == _PERCENT else number
    low = -1 if name in _SIGNED else 0
    if not low <= number <= 1 and 'mapped_clip2clip_score' not in item:
      raise UserError(
        f'{where}: {path} has {item["video_results"]:g}, outside of the range '
        'of this dimension; evaluate again'
      )
    parts.setdefault(key, []).append(number)
  return {key: math.fsum(them) / len(them) for key, them in parts.items()}


def _number(where: str, value: Any) -> float:
  """A number, or a bool, as dynamic degree and human action have."""
  if not isinstance(value, int | float) or not math.isfinite(value):
    raise UserError(
      f'{where}: {value!r} is not a finite number; a clip of one frame may '
      'cause that: remove it and evaluate again'
    )
  return float(value)


def _check_evaluators(evaluators: Mapping[str, str], suite: Suite) -> None:
  """Raises UserError unless one evaluator wrote all, the suite's own."""
  for (one, first), (other, second) in itertools.pairwise(evaluators.items()):
    if first != second:
      raise UserError(
        f'{one} is from {first}, {other} from {second}; their scores differ, '
        'so evaluate all with one of them'
      )
  where, evaluator = next(iter(evaluators.items()))
  if suite.name in (VBENCH, VBENCH_LONG) and evaluator != suite.name:
    raise UserError(
      f'{where} is from {evaluator}, but the suite is {suite.name}; give the '
      'results of the same evaluator'
    )


def write_submission(
  path: pathlib.Path, results: VBenchResults, allow_missing: bool
) -> None:
  """Writes the zip file that VBench's leaderboard takes.

  Raises:
    UserError: a dimension is missing, which the leaderboard counts as 0 without
      a word.
  """
  missing = DIMENSIONS.keys() - results.dimensions.keys()
  if missing and not allow_missing:
    raise UserError(
      f'{path}: no result for {listing(missing)}, which the leaderboard would '
      'count as 0; evaluate them, or set suite.allow_missing'
    )
  with (
    atomic_path(path) as partial,
    zipfile.ZipFile(partial, 'w', zipfile.ZIP_DEFLATED) as archive,
  ):
    for file in results.files:
      archive.writestr(file.name, file.read_bytes())
