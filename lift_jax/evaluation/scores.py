"""Scored records: a critic's answers about clips.

`lift score` writes one object per clip, of which these keys are read:

  {"video", "caption", "critic", "flags",
   "labels": {"semantic": "Good", ...},
   "probabilities": {"semantic": {"Good": 0.8, "Normal": 0.1, "Bad": 0.1}, ...},
   "semantic consistency": "Good. ...", "motion issues": ..., ...}

or, for a clip that could not be scored, {"video", "caption", "error"}. The
published critic writes only the texts: their first words are then the labels,
and there are no probabilities.
"""

from collections.abc import Sequence
import dataclasses
import pathlib
from typing import Any

import numpy as np

from lift_jax.data.clip_paths import ClipFolder
from lift_jax.data.json_records import (
  BadRecords,
  ReadResult,
  RecordError,
  as_object,
  check_unicode,
  find_files,
  json_type,
  load_list,
  location,
  text_field,
)
from lift_jax.data.rubric import LIFT, Scale
from lift_jax.errors import UserError, listing
from lift_jax.rewards.answers import split_answer
from lift_jax.rewards.uncertainty import Distributions
from lift_jax.runtime.progress import tracked
from lift_jax.scoring.output import answer_key

# Of LiFT. A class is an index into the labels in ascending order.
CLASSES = LIFT.classes

# Probabilities are written with a few digits.
_SUM_TOLERANCE = 1e-3

_WANTED = '{"video", "caption", "labels", "probabilities"}'


@dataclasses.dataclass(frozen=True)
class Answer:
  """A critic's answer about one dimension.

  Attributes:
    label: a class.
    text: as generated; may be empty.
    probabilities: by class, summing to 1; None if the critic gave none.
  """

  label: int
  text: str
  probabilities: tuple[float, ...] | None

  def distribution(self, scale: Scale) -> dict[str, float]:
    """Probabilities by label; all of it on its own label if it gave none."""
    given = self.probabilities or np.eye(len(scale.classes))[self.label]
    return dict(zip(scale.classes, map(float, given), strict=True))

  def score(self, scale: Scale) -> float:
    """The score of the label."""
    return scale.score(scale.classes[self.label])

  def soft_reward(self, scale: Scale) -> float:
    """The expected score under the probabilities; that of the label if None."""
    if self.probabilities is None:
      return self.score(scale)
    return sum(
      probability * scale.score(name)
      for probability, name in zip(
        self.probabilities, scale.classes, strict=True
      )
    )


@dataclasses.dataclass(frozen=True)
class ScoredRecord:
  """A critic's answers about one clip.

  Attributes:
    video: see `clip_paths.ClipFolder.find`.
    path: of the file, absolute, with symbolic links resolved.
    caption: the text, without white space at its ends.
    answers: by dimension; empty if there is an error.
    error: why there is no answer, or ''.
    critic: name of the critic, or ''.
    flags: suspicious properties that `lift score` reported.
    file: the JSON file, as the caller named it.
    place: in that file: 'record 3', or 'line 4' of JSON lines.
  """

  video: str
  path: pathlib.Path
  caption: str
  answers: dict[str, Answer]
  error: str
  critic: str
  flags: tuple[str, ...]
  file: str
  place: str

  def distributions(self, scale: Scale) -> Distributions:
    """Of each answer; see `Answer.distribution`."""
    return {
      name: answer.distribution(scale) for name, answer in self.answers.items()
    }

  @property
  def where(self) -> str:
    """For messages: 'scores.json record 3 (videos/x.mp4)'."""
    return f'{location(self.file, self.place)} ({self.video})'


def read_scores(
  root: str | pathlib.Path,
  files: Sequence[str],
  on_bad_record: str = 'error',
  follow_links: str = 'hub',
  scale: Scale = LIFT,
) -> ReadResult[ScoredRecord]:
  """Reads and checks scored records. Their clips need not exist.

  Args:
    root: the folder that `video` paths are relative to, and may not leave.
    files: lists of them (see `json_records.parse_list`), relative to the
      current folder, or absolute.
    on_bad_record: 'error' raises at the first bad record; 'skip' collects bad
      records. A record with an "error" of the critic is not bad.
    follow_links: see `clip_paths.ClipFolder`.
    scale: dimensions and labels of the answers; others are an error.

  Raises:
    UserError: a bad file or record, no usable record, or records of several
      critics.
  """
  bad = BadRecords(on_bad_record)
  clips = ClipFolder.open(root, follow_links)
  if not files:
    raise UserError(
      'scores.files is empty; set --config.scores.files to a file that '
      'lift score wrote'
    )
  names = [str(name) for name in files]
  records, first_by_key = [], {}
  paths = find_files(pathlib.Path(), files)
  for name, path in zip(names, paths, strict=True):
    items = load_list(name, path, f'objects like {_WANTED}')
    for place, item in tracked(items, 'record'):
      try:
        record = _record(clips, item, name, place, scale)
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
  result = bad.result(records, names)
  critics = {record.critic for record in records if record.critic}
  if len(critics) > 1:
    raise UserError(
      f'{", ".join(names)}: scores of {len(critics)} critics '
      f'({listing(critics)}); give those of one critic, and for lift evaluate '
      'those of others as --config.scores.others=FILE'
    )
  _check_all_or_none(records)
  return result


def _check_all_or_none(records: Sequence[ScoredRecord]) -> None:
  """Checks that all answers have probabilities, or none."""
  first = {}
  for record in records:
    for answer in record.answers.values():
      first.setdefault(answer.probabilities is None, record)
  if len(first) == 2:
    raise UserError(
      f'{first[True].where} has no probabilities, but {first[False].where} '
      'does; score all clips with the same settings'
    )


def _record(
  clips: ClipFolder, item: Any, file: str, place: str, scale: Scale
) -> ScoredRecord:
  item = as_object(item, _WANTED)
  video, path = clips.find(text_field(item, 'video'), require_file=False)
  caption = text_field(item, 'caption').strip()
  check_unicode(caption, 'the caption')
  error = text_field(item, 'error') if 'error' in item else ''
  answers = {} if error else _answers(item, scale)
  if not error and not answers:
    raise RecordError(
      f'no answer and no error; write "labels" for '
      f'{", ".join(scale.dimensions)}'
    )
  return ScoredRecord(
    video=video,
    path=path,
    caption=caption,
    answers=answers,
    error=' '.join(error.split()),
    critic=text_field(item, 'critic') if 'critic' in item else '',
    flags=_flags(item),
    file=file,
    place=place,
  )


def _answers(item: dict[str, Any], scale: Scale) -> dict[str, Answer]:
  """The answers, by dimension, for those that the critic was asked about."""
  labels = _section(item, 'labels', 'label', scale)
  probabilities = _section(item, 'probabilities', 'object', scale)
  answers = {}
  for dimension in scale.dimensions:
    key = answer_key(dimension)
    text = item.get(key, '')
    if not isinstance(text, str):
      raise RecordError(
        f'"{key}" is {json_type(text)}; write a string in quotes'
      )
    check_unicode(text, f'"{key}"')
    if dimension in labels:
      label = labels[dimension]
      if label not in scale.labels:
        raise RecordError(
          f'"labels": {dimension} is {label!r}; write one of '
          f'{", ".join(scale.labels)}'
        )
    elif text.strip() and 'labels' not in item:
      try:
        label, _ = split_answer(text, scale.labels)
      except ValueError as error:
        raise RecordError(f'"{key}": {error}') from None
    else:
      continue
    answers[dimension] = Answer(
      scale.classes.index(label),
      text,
      _probabilities(probabilities[dimension], dimension, scale)
      if dimension in probabilities
      else None,
    )
  return answers


def _section(
  item: dict[str, Any], key: str, what: str, scale: Scale
) -> dict[str, Any]:
  """The object at `key`, whose keys are dimensions; empty if missing."""
  if key not in item:
    return {}
  first, *others = scale.dimensions
  rest = ''.join(f', "{name}": ...' for name in others)
  wanted = f'"{key}" as {{"{first}": {what}{rest}}}'
  section = as_object(item[key], wanted)
  unknown = set(section) - set(scale.dimensions)
  if unknown:
    raise RecordError(
      f'"{key}" has unknown keys {listing(unknown)}; write {wanted}'
    )
  return section


def _probabilities(
  value: Any, dimension: str, scale: Scale
) -> tuple[float, ...]:
  where = f'"probabilities" of {dimension}'
  names = ', '.join(f'"{label}"' for label in scale.labels)
  item = as_object(value, f'{where} as {{{names}}}')
  if set(item) != set(scale.labels):
    raise RecordError(
      f'{where} has the keys {listing(item) or "(none)"}; give one for each of '
      f'{", ".join(scale.labels)}'
    )
  numbers = [_fraction(item[name], where) for name in scale.classes]
  total = sum(numbers)
  if abs(total - 1) > _SUM_TOLERANCE:
    raise RecordError(f'{where} sum to {total:g}; give numbers that sum to 1')
  return tuple(number / total for number in numbers)


def _fraction(value: Any, where: str) -> float:
  if isinstance(value, bool) or not isinstance(value, int | float):
    raise RecordError(
      f'{where}: {json_type(value)}; write numbers without quotes'
    )
  if not 0 <= value <= 1:  # true for NaN as well, which Python's JSON accepts
    raise RecordError(f'{where}: {value:g}; give numbers between 0 and 1')
  return float(value)


def _flags(item: dict[str, Any]) -> tuple[str, ...]:
  flags = item.get('flags', [])
  if not isinstance(flags, list) or not all(
    isinstance(flag, str) for flag in flags
  ):
    raise RecordError('"flags" is not a list of strings; write [] or delete it')
  return tuple(flags)
