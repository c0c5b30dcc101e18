"""Readers for annotations of other tools: Label Studio and Argilla.

Label Studio exports tasks (JSON), or one record for each annotation (JSON_MIN);
Argilla nested or flattened records. In all of them

  the clip is the value at `video_key`: a path, a URL, an uploaded file or HTML
  with a `src`; its file is found below the data root by the end of its path;
  the caption is at `caption_key`;
  a question named like a dimension, as "motion" or "motion issues", has the
  label, and one named like "motion reason" or "motion_comment" the reason;
  a question named "reason" has the reason of all dimensions.
"""

from collections.abc import Iterator, Mapping, Sequence
import dataclasses
import datetime
import pathlib
import re
from typing import Any
import urllib.parse

from lift_jax.data.clip_paths import ClipFolder
from lift_jax.data.json_records import (
  RecordError,
  as_object,
  check_unicode,
  json_type,
  text_field,
)
from lift_jax.data.rubric import Rubric
from lift_jax.errors import listing

_REASON = re.compile(r'(?i)(?:\b|_)(?:reason|rationale|comment|why|text)s?\Z')
_SRC = re.compile(r'\bsrc\s*=\s*["\']([^"\']+)["\']')
# Label Studio puts eight digits before the names of uploaded files.
_UPLOADED = re.compile(r'[0-9a-f]{8}-(.+)')

_WANTED = 'an object of Label Studio or Argilla'


@dataclasses.dataclass(frozen=True)
class Keys:
  """Where records have the clip and its caption.

  Attributes:
    video: key of the clip.
    caption: key of its caption.
  """

  video: str = 'video'
  caption: str = 'caption'


@dataclasses.dataclass(frozen=True)
class ForeignAnswer:
  """Labels that somebody gave to a clip in another tool.

  Attributes:
    video: see `clip_paths.ClipFolder.find`.
    caption: of the clip.
    rater: name of the person there.
    labels: by dimension; may be incomplete.
    reasons: by dimension, of those with a label.
    seconds: that it took; 0 if unknown.
    time: of the last change, seconds since 1970; 0 if unknown.
    is_gold: whether it was marked as the right answer.
  """

  video: str
  caption: str
  rater: str
  labels: Mapping[str, str]
  reasons: Mapping[str, str]
  seconds: float
  time: float
  is_gold: bool


@dataclasses.dataclass(frozen=True)
class _Response:
  """Values by question of one person; for the others see `ForeignAnswer`."""

  rater: str
  values: Mapping[str, Any]
  seconds: float = 0.0
  time: float = 0.0
  is_gold: bool = False


class ForeignReader:
  """Reads records of a data root and a rubric."""

  def __init__(self, clips: ClipFolder, rubric: Rubric, keys: Keys):
    self._clips, self._rubric, self._keys = clips, rubric, keys
    self._by_name: dict[str, list[str]] | None = None

  def read(self, item: Any) -> list[ForeignAnswer]:
    """The answers of one record; none if nobody answered.

    Raises:
      RecordError: a record of another form, or one that names no clip of the
        root, no dimension or an unknown label.
    """
    item = as_object(item, _WANTED)
    fields, responses = _responses(item)
    if not responses:
      return []
    for key in (self._keys.video, self._keys.caption):
      if key not in fields:
        raise RecordError(
          f'no {key!r} among {listing(map(repr, fields)) or "no fields"}; give '
          'the right ones as --video_key=KEY and --caption_key=KEY'
        )
    caption = text_field(fields, self._keys.caption).strip()
    check_unicode(caption, 'the caption')
    video = self._find(text_field(fields, self._keys.video))
    return [self._answer(video, caption, response) for response in responses]

  def _find(self, text: str) -> str:
    """The name of the clip that a value is about."""
    source = _SRC.search(text)
    text = source[1] if source else text.strip()
    if text.startswith('data:'):
      raise RecordError(
        'the clip is inside of the record; put its path into a field or the '
        'metadata, and give its name as --video_key=KEY'
      )
    url = urllib.parse.urlsplit(text)
    query = urllib.parse.parse_qs(url.query)
    path = query['d'][0] if 'd' in query else urllib.parse.unquote(url.path)
    if not url.scheme and not path.startswith('/data/'):
      try:
        return self._clips.find(path, require_file=True)[0]
      except RecordError:
        pass  # It may be below another folder there.
    return self._by_end(pathlib.PurePosixPath(path))

  def _by_end(self, path: pathlib.PurePosixPath) -> str:
    """The only file of the root with most of the last parts of a path."""
    if self._by_name is None:
      self._by_name = {}
      for file in sorted(self._clips.root.rglob('*.mp4')):
        name = file.relative_to(self._clips.root).as_posix()
        self._by_name.setdefault(file.name, []).append(name)
    uploaded = _UPLOADED.fullmatch(path.name)
    names = [path.name, *([uploaded[1]] if uploaded else [])]
    found = [name for key in names for name in self._by_name.get(key, ())]
    for parts in range(len(path.parts), 1, -1):
      end = '/'.join(path.parts[-parts:])
      longer = [name for name in found if f'/{name}'.endswith(f'/{end}')]
      if longer:
        found = longer
        break
    if len(found) != 1:
      raise RecordError(
        f'{len(found)} clips named {path.name!r} below the data root; copy the '
        'clip there, under a name of its own'
      )
    return self._clips.find(found[0], require_file=True)[0]

  def _answer(
    self, video: str, caption: str, response: _Response
  ) -> ForeignAnswer:
    labels, reasons = {}, {}
    for question, value in response.values.items():
      match = _REASON.search(question)
      if match:
        subject = question[: match.start()].strip(' _-')
        text = _text(question, value)
        of = self._dimension(subject)
        if subject and of is None:
          continue
        for dimension in [of] if of else self._rubric.dimensions:
          reasons.setdefault(dimension, text)
      elif dimension := self._dimension(question):
        labels[dimension] = self._label(question, value)
    if not labels:
      raise RecordError(
        f'none of the questions {listing(map(repr, response.values))} is named '
        f'like a dimension ({", ".join(self._rubric.dimensions)}); rename them'
      )
    return ForeignAnswer(
      video,
      caption,
      response.rater,
      labels,
      {name: text for name, text in reasons.items() if name in labels},
      response.seconds,
      response.time,
      response.is_gold,
    )

  def _dimension(self, question: str) -> str | None:
    """The dimension that the name of a question begins with."""
    name = question.strip().casefold()
    found = [
      dimension
      for dimension in self._rubric.dimensions
      if re.match(rf'{re.escape(dimension.casefold())}(?![^\W_])', name)
    ]
    return max(found, key=len, default=None)

  def _label(self, question: str, value: Any) -> str:
    if isinstance(value, list) and len(value) == 1:
      value = value[0]
    if isinstance(value, str):
      for label in self._rubric.labels:
        if label.casefold() == value.strip().casefold():
          return label
    raise RecordError(
      f'{question!r} is {str(value)[:40]!r}, none of '
      f'{", ".join(self._rubric.labels)}; correct it or the rubric'
    )


def _text(question: str, value: Any) -> str:
  texts = value if isinstance(value, list) else [value]
  if not all(isinstance(text, str) for text in texts):
    raise RecordError(f'{question!r} is {json_type(value)}; write a text')
  text = '\n'.join(texts).strip()
  check_unicode(text, repr(question))
  return text


def _responses(
  item: dict[str, Any],
) -> tuple[dict[str, Any], Sequence[_Response]]:
  """The fields of a record of any of the four forms, and the responses."""
  if 'data' in item and 'annotations' in item:
    return as_object(item['data'], 'an object'), list(_of_tasks(item))
  if 'annotation_id' in item or 'annotator' in item:
    return item, list(_of_annotation(item))
  if 'fields' in item and 'responses' in item:
    metadata = as_object(item.get('metadata', {}), 'an object')
    fields = metadata | as_object(item['fields'], 'an object')
    return fields, list(_of_nested(item))
  if any(key.endswith('.responses') for key in item):
    return item, list(_of_flat(item))
  raise RecordError(
    f'the keys {listing(map(repr, item))} are those of no export of Label '
    'Studio or Argilla; export as JSON'
  )


def _of_tasks(item: dict[str, Any]) -> Iterator[_Response]:
  """Label Studio, JSON: an object for each task."""
  annotations = item['annotations']
  if not isinstance(annotations, list):
    raise RecordError('"annotations" is no list; export as JSON')
  for entry in annotations:
    entry = as_object(entry, 'an annotation')
    if entry.get('was_cancelled'):
      continue
    values = {}
    for result in entry.get('result') or []:
      result = as_object(result, 'a result')
      value = as_object(result.get('value', {}), 'a value')
      kind = result.get('type')
      if kind == 'choices':
        values[text_field(result, 'from_name')] = value.get('choices')
      elif kind == 'textarea':
        values[text_field(result, 'from_name')] = value.get('text')
    yield _Response(
      _rater(entry.get('completed_by')),
      values,
      _seconds(entry),
      _time(entry),
      bool(entry.get('ground_truth')),
    )


def _of_annotation(item: dict[str, Any]) -> Iterator[_Response]:
  """Label Studio, JSON_MIN: an object for each annotation."""
  values = {}
  for key, value in item.items():
    if isinstance(value, dict) and len(value) == 1:  # {"choices": [...]}
      (value,) = value.values()
    values[key] = value
  yield _Response(
    _rater(item.get('annotator')), values, _seconds(item), _time(item)
  )


def _of_nested(item: dict[str, Any]) -> Iterator[_Response]:
  """Argilla, nested; drafts cannot be told from submitted responses."""
  by_rater = {}
  for question, given in as_object(item['responses'], 'an object').items():
    for response in given or []:
      response = as_object(response, 'a response')
      rater = _rater(response.get('user_id'))
      by_rater.setdefault(rater, {})[question] = response.get('value')
  for rater, values in by_rater.items():
    yield _Response(rater, values)


def _of_flat(item: dict[str, Any]) -> Iterator[_Response]:
  """Argilla, flattened; only submitted responses are read."""
  by_rater = {}
  for key, values in item.items():
    if not key.endswith('.responses') or values is None:
      continue
    users = item.get(f'{key}.users') or [None] * len(values)
    states = item.get(f'{key}.status') or ['submitted'] * len(values)
    for value, user, state in zip(values, users, states, strict=True):
      if state == 'submitted':
        question = key.removesuffix('.responses')
        by_rater.setdefault(_rater(user), {})[question] = value
  for rater, values in by_rater.items():
    yield _Response(rater, values, time=_time(item))


def _rater(value: Any) -> str:
  """Name of a person: an e-mail address, or else an id."""
  if isinstance(value, dict):
    value = value.get('email') or value.get('id')
  return f'rater {value}' if isinstance(value, int) else str(value or 'unknown')


def _seconds(item: Mapping[str, Any]) -> float:
  value = item.get('lead_time')
  return float(value) if isinstance(value, int | float) and value >= 0 else 0.0


def _time(item: Mapping[str, Any]) -> float:
  for key in ('updated_at', 'created_at', 'inserted_at'):
    if isinstance(item.get(key), str):
      try:
        time = datetime.datetime.fromisoformat(item[key])
      except ValueError:
        continue
      if time.tzinfo is None:
        time = time.replace(tzinfo=datetime.UTC)
      return time.timestamp()
  return 0.0
