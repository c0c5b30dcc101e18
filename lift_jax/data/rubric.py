"""A rubric: the dimensions, questions, labels and rewards of ratings, as data.

It is a JSON file, of which only the questions are required:

  {"questions": {"semantic": " Does the video show ...?", ...},
   "labels": ["Good", "Normal", "Bad"],
   "rewards": {"Good": 0.9, "Normal": 0.2, "Bad": 0.05},
   "guideline": "General advice.",
   "levels": {"semantic": {"Good": "Everything is there.", ...}, ...},
   "examples": {"semantic": {"Good": ["videos/x.mp4"], ...}, ...}}

Other keys are ignored. A prompt JSON as LiFT publishes it is a rubric, too: if
each key of the questions mentions one dimension of LiFT, as "motion issues"
does, that is its name.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import pathlib
import re
from typing import Any

from lift_jax.data.json_records import (
  DuplicateKey,
  RecordError,
  as_object,
  check_unicode,
  is_printable,
  json_type,
  parse_json,
  read_text,
  text_field,
)
from lift_jax.errors import UserError, listing
from lift_jax.runtime import storage

# LiFT rates clips in these three dimensions with these labels, the best one
# first (arXiv 2412.04814, section 3).
DIMENSIONS = ('semantic', 'motion', 'fidelity')
LABELS = ('Good', 'Normal', 'Bad')
REWARDS = {'Good': 0.9, 'Normal': 0.2, 'Bad': 0.05}

_WANTED = '{"questions": {"semantic": ..., "motion": ..., "fidelity": ...}}'


@dataclasses.dataclass(frozen=True)
class Scale:
  """Dimensions, and labels with their rewards; by default LiFT's.

  Attributes:
    dimensions: names.
    labels: from the best to the worst.
    rewards: of each label, in this order, in [0, 1].
  """

  dimensions: tuple[str, ...] = DIMENSIONS
  labels: tuple[str, ...] = LABELS
  rewards: tuple[float, ...] = tuple(REWARDS.values())

  @property
  def classes(self) -> tuple[str, ...]:
    """Labels from the worst to the best; a class is an index into these."""
    return self.labels[::-1]

  def score(self, label: str) -> float:
    """The reward of one label; a UserError if it is unknown."""
    if label not in self.labels:
      raise UserError(f'label {label!r}; write one of {", ".join(self.labels)}')
    return self.rewards[self.labels.index(label)]


LIFT = Scale()


def majority(votes: Sequence[str], labels: Sequence[str]) -> str:
  """The most frequent of at least one vote; in a tie, the worst label.

  Args:
    votes: a label each.
    labels: all of them, from the best to the worst.
  """
  # `max` returns the first in a tie.
  return max(reversed(labels), key=votes.count)


@dataclasses.dataclass(frozen=True)
class Rubric:
  """What clips are rated for, and how.

  Attributes:
    questions: by dimension, with one white space before it, as it follows a
      caption.
    labels: from the best to the worst, at least two.
    rewards: of each label, in [0, 1].
    guideline: general advice to annotators, as plain text; may be empty.
    levels: what each label means, by dimension and label; may be incomplete.
    examples: clips of the data root, by dimension and label; may be incomplete.
  """

  questions: Mapping[str, str]
  labels: tuple[str, ...] = LABELS
  rewards: Mapping[str, float] = dataclasses.field(default_factory=REWARDS.copy)
  guideline: str = ''
  levels: Mapping[str, Mapping[str, str]] = dataclasses.field(
    default_factory=dict
  )
  examples: Mapping[str, Mapping[str, tuple[str, ...]]] = dataclasses.field(
    default_factory=dict
  )

  @property
  def dimensions(self) -> tuple[str, ...]:
    return tuple(self.questions)

  @property
  def scale(self) -> Scale:
    rewards = tuple(self.rewards[label] for label in self.labels)
    return Scale(self.dimensions, self.labels, rewards)


def read_rubric(path: str | pathlib.Path) -> Rubric:
  """Reads a rubric.

  Raises:
    UserError: a bad file, or settings that contradict one another.
  """
  name = str(path)
  value = parse_json(name, read_text(name, storage.to_path(path)), _WANTED)
  try:
    return from_json(value)
  except RecordError as error:
    raise UserError(f'{name}: {error}') from None


def from_json(value: Any) -> Rubric:
  """The rubric of the contents of a file.

  Raises:
    RecordError: what is wrong with it.
  """
  item = as_object(value, _WANTED)
  questions = _questions(item)
  labels = _labels(item)
  guideline = item['guideline'] if 'guideline' in item else ''
  if not isinstance(guideline, str):
    raise RecordError(f'"guideline" is {json_type(guideline)}; write a string')
  check_unicode(guideline, '"guideline"')
  levels = _by_label(item, 'levels', questions, labels, str, 'a text')
  examples = _by_label(item, 'examples', questions, labels, list, 'a list')
  for by_label in examples.values():
    for videos in by_label.values():
      if not all(isinstance(video, str) and video for video in videos):
        raise RecordError('"examples": write lists of paths such as "x.mp4"')
  return Rubric(
    questions,
    labels,
    _rewards(item, labels),
    guideline,
    levels,
    {
      dimension: {label: tuple(videos) for label, videos in by_label.items()}
      for dimension, by_label in examples.items()
    },
  )


def to_json(rubric: Rubric) -> dict[str, Any]:
  """The contents of a file of this rubric."""
  return dataclasses.asdict(rubric)


def _questions(item: dict[str, Any]) -> dict[str, str]:
  if 'questions' not in item:
    raise RecordError(f'no "questions"; write {_WANTED}')
  by_key = as_object(item['questions'], _WANTED)
  if not by_key:
    raise RecordError('"questions" is empty; add a question')
  questions, named = {}, {key: named_dimensions(key) for key in by_key}
  is_lift = all(len(names) == 1 for names in named.values())
  for key in by_key:
    dimension = named[key][0] if is_lift else key
    if dimension in questions:
      raise RecordError(f'{key!r} is a second {dimension} question; keep one')
    _check_name(dimension, 'the dimension')
    questions[dimension] = _question(by_key, key)
  if len(set(questions.values())) < len(questions):
    raise RecordError(
      'two dimensions have the same question; word them differently'
    )
  return questions


def named_dimensions(text: str) -> list[str]:
  """The dimensions of LiFT that a question or its key mentions.

  Published keys are "semantic consistency", "motion issues" and "fidelity
  issues".
  """
  return [name for name in DIMENSIONS if re.search(rf'(?i)\b{name}', text)]


def _question(questions: dict[str, str], key: str) -> str:
  text = text_field(questions, key)
  check_unicode(text, f'"{key}"')
  if text != ' ' + text.strip():
    raise RecordError(
      f'"{key}" is appended to captions unchanged; begin it with one space and '
      'end it with none'
    )
  return text


def _labels(item: dict[str, Any]) -> tuple[str, ...]:
  if 'labels' not in item:
    return LABELS
  labels = item['labels']
  if not isinstance(labels, list) or not all(
    isinstance(label, str) for label in labels
  ):
    raise RecordError('"labels" is not a list of strings; write one')
  if len(labels) < 2 or len(set(labels)) < len(labels):
    raise RecordError(
      '"labels" needs two or more different labels, from the best to the worst'
    )
  for label in labels:
    _check_name(label, 'the label')
    if '.' in label or ',' in label:
      raise RecordError(
        f'the label {label!r} is followed by a full stop or a comma in '
        'answers; choose one without'
      )
  return tuple(labels)


def _check_name(name: str, subject: str) -> None:
  check_unicode(name, subject)
  if not name.strip() or name != name.strip() or not is_printable(name):
    raise RecordError(
      f'{subject} {name!r} is blank or begins, ends or breaks in white space; '
      'write a plain name'
    )


def _rewards(
  item: dict[str, Any], labels: tuple[str, ...]
) -> Mapping[str, float]:
  if 'rewards' not in item:
    if labels != LABELS:
      raise RecordError(
        'labels of your own need "rewards", a number from 0 to 1 for each'
      )
    return REWARDS.copy()
  rewards = as_object(item['rewards'], '{"Good": 0.9, ...}')
  if set(rewards) != set(labels):
    raise RecordError(
      f'"rewards" has the keys {listing(rewards) or "(none)"}; give one for '
      f'each of {", ".join(labels)}'
    )
  check_rewards(rewards)
  ordered = {label: float(rewards[label]) for label in labels}
  values = list(ordered.values())
  if values != sorted(values, reverse=True):
    raise RecordError(
      f'"rewards" {ordered} gives a worse label a higher reward; list labels '
      'from the best to the worst'
    )
  return ordered


def check_rewards(rewards: Mapping[str, Any]) -> None:
  """Raises RecordError unless all rewards are numbers in [0, 1]."""
  for label, value in rewards.items():
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    # NaN and infinity fail the comparison, too.
    if not is_number or not 0 <= value <= 1:
      raise RecordError(
        f'the reward of {label!r} is {value!r}; give a number from 0 to 1'
      )


def _by_label(
  item: dict[str, Any],
  key: str,
  questions: Mapping[str, str],
  labels: tuple[str, ...],
  kind: type,
  what: str,
) -> dict[str, dict[str, Any]]:
  """The object at `key`: values by dimension and label."""
  if key not in item:
    return {}
  section = item[key]
  if isinstance(section, DuplicateKey) or not isinstance(section, dict):
    raise RecordError(f'"{key}" is no object; write {{DIMENSION: {{LABEL: }}}}')
  for dimension, by_label in section.items():
    if dimension not in questions:
      raise RecordError(f'"{key}": no question for {dimension!r}; add it')
    for label, value in as_object(by_label, f'"{key}" by label').items():
      if label not in labels:
        raise RecordError(
          f'"{key}": {label!r} is none of {", ".join(labels)}; correct it'
        )
      if not isinstance(value, kind):
        raise RecordError(
          f'"{key}" of {dimension}, {label} is {json_type(value)}; write {what}'
        )
  return section
