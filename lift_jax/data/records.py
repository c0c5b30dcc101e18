"""Alignment records: clips with captions and rewards.

The published schema is a list of `{"video", "caption", "score"}`. `video` is a
path below a root folder. `lift score` adds `labels`, an object of one label per
dimension, and with labels other than LiFT's `ranks`, an object of integers that
are 0 for the worst label; other keys are allowed and ignored. Files of real
clips may omit `score`: their reward is 1 by definition, so that they enter the
loss as plain likelihood.

A record that cannot be used is never given a default score: it is an error
that names file, record and remedy or, if asked for, a counted skip.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import math
import pathlib
from typing import Any

from lift_jax.data.clip_paths import ClipFolder
from lift_jax.data.hra import LABELS
from lift_jax.data.json_records import (
  BadRecords,
  ReadResult,
  RecordError,
  as_object,
  check_unicode,
  fetch_clips,
  find_files,
  json_type,
  load_list,
  location,
  text_field,
)
from lift_jax.errors import UserError
from lift_jax.runtime.progress import tracked


@dataclasses.dataclass(frozen=True)
class AlignmentRecord:
  """One clip with its caption and reward.

  Attributes:
    video: see `clip_paths.ClipFolder.find`.
    path: of the file, absolute, with symbolic links resolved.
    caption: the text, as in the file.
    reward: in [0, 1]; 1 for a real clip.
    is_real: whether it comes from a file of real clips.
    file: the JSON file, as the caller named it.
    place: in that file: 'record 3', or 'line 4' of JSON lines.
    dimensions: by dimension, the rank of its label: 0 for Bad, 2 for Good, or
      that of "ranks"; empty if the record has no labels.
  """

  video: str
  path: pathlib.Path
  caption: str
  reward: float
  is_real: bool
  file: str
  place: str
  dimensions: Mapping[str, int] = dataclasses.field(
    default_factory=dict, hash=False
  )

  @property
  def where(self) -> str:
    """For messages: 'alignment.json record 3 (videos/x.mp4)'."""
    return f'{location(self.file, self.place)} ({self.video})'


def read_alignment(
  root: str | pathlib.Path,
  synthetic: Sequence[str],
  real: Sequence[str] = (),
  on_bad_record: str = 'error',
  require_files: bool = True,
  follow_links: str = 'hub',
) -> ReadResult[AlignmentRecord]:
  """Reads and checks alignment files.

  Args:
    root: the folder that `video` paths are relative to, and may not leave.
    synthetic: JSON files of scored clips, relative to the root or absolute.
    real: JSON files of real clips, likewise.
    on_bad_record: 'error' raises at the first bad record; 'skip' collects bad
      records. A file that cannot be read as a list is an error in both cases.
    require_files: whether each clip must exist; a run from cached latents does
      not need them.
    follow_links: see `clip_paths.ClipFolder`.

  Raises:
    UserError: a bad file or record, or no usable record.
  """
  bad = BadRecords(on_bad_record)
  clips = ClipFolder.open(root, follow_links)
  files = _files(clips.root, synthetic, real)
  records, first_by_key = [], {}
  for name, path, is_real in files:
    items = load_list(name, path, 'objects with "video", "caption" and "score"')
    if require_files:
      fetch_clips(clips.root, [item for _, item in items])
    for place, item in tracked(items, 'record'):
      try:
        record = _record(clips, item, is_real, name, place, require_files)
        key = (record.path, record.caption)
        first = first_by_key.setdefault(key, record)
        if first is not record:
          raise RecordError(
            f'same video and caption as {first.where}; delete one of the two'
          )
      except RecordError as error:
        bad.add(name, place, error)
      else:
        records.append(record)
  return bad.result(records, [name for name, _, _ in files])


def _files(
  root: pathlib.Path, synthetic: Sequence[str], real: Sequence[str]
) -> list[tuple[str, pathlib.Path, bool]]:
  """(name, path, is_real) of each JSON file, each listed once."""
  for names in (synthetic, real):
    if isinstance(names, str):
      raise UserError(f'{names}: give a list of alignment files, not a string')
  names = [*synthetic, *real]
  if not names:
    raise UserError(
      f'{root}: no alignment file is given; list one as synthetic or real'
    )
  paths = find_files(root, names, 'list a file once, as synthetic or as real')
  is_real = [False] * len(synthetic) + [True] * len(real)
  return list(zip(map(str, names), paths, is_real, strict=True))


def _record(
  clips: ClipFolder,
  item: Any,
  is_real: bool,
  file: str,
  place: str,
  require_files: bool,
) -> AlignmentRecord:
  item = as_object(item, '{"video", "caption", "score"}')
  text = text_field(item, 'video')
  caption = text_field(item, 'caption')
  check_unicode(caption, 'the caption')
  video, path = clips.find(text, require_files)
  reward = _real_reward(item) if is_real else _reward(item)
  return AlignmentRecord(
    video, path, caption, reward, is_real, file, place, _dimensions(item)
  )


def _dimensions(item: dict[str, Any]) -> dict[str, int]:
  if 'ranks' in item:
    ranks = as_object(item['ranks'], '"ranks" as an object by dimension')
    if not all(type(rank) is int and rank >= 0 for rank in ranks.values()):
      raise RecordError('"ranks": write integers from 0 on')
    return ranks
  if 'labels' not in item:
    return {}
  wanted = f'"labels" as an object of {", ".join(LABELS)} by dimension'
  labels = as_object(item['labels'], wanted)
  for name, label in labels.items():
    if label not in LABELS:
      raise RecordError(
        f'"labels": {name} is {label!r}; write one of {", ".join(LABELS)}'
      )
  ranks = {label: rank for rank, label in enumerate(reversed(LABELS))}
  return {name: ranks[label] for name, label in labels.items()}


def _reward(item: dict[str, Any]) -> float:
  if 'score' not in item:
    raise RecordError(
      'no "score"; score the clip, or list the file under real if its clips '
      'are real'
    )
  score = _number(item['score'])
  if not 0 <= score <= 1:  # true for NaN as well, which Python's JSON accepts
    raise RecordError(f'"score" is {score:g}; give a number between 0 and 1')
  return score


def _real_reward(item: dict[str, Any]) -> float:
  score = _number(item.get('score', 1))
  if score != 1:
    raise RecordError(
      f'"score" is {score:g} but a real clip has reward 1; list the file '
      'under synthetic, or delete the score'
    )
  return score


def _number(value: Any) -> float:
  if isinstance(value, bool) or not isinstance(value, int | float):
    raise RecordError(
      f'"score" is {json_type(value)}; write a number between 0 and 1 without '
      'quotes'
    )
  try:
    return float(value)
  except OverflowError:
    return math.inf
