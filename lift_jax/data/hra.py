"""Human feedback records (HRA): a label and a rationale per clip and dimension.

The published schema, that of LiFT-HRA and of the VIDGEN set released with it,
is a JSON list with one entry per clip and dimension:

  {"video": "videos/x.mp4", "conversations": [
    {"from": "human", "value": "<video>\\n CAPTION QUESTION"},
    {"from": "gpt", "value": "LABEL. RATIONALE"}]}

Nothing separates the caption from the question. As a file asks the same few
questions about all its clips, `find_questions` finds them as the endings that
its human turns have in common; `read_questions` reads them from a prompt file
instead.
"""

from collections.abc import Iterable, Mapping, Sequence
import dataclasses
import pathlib
import re
from typing import Any

from lift_jax.data.json_records import (
  BadRecords,
  ReadResult,
  RecordError,
  as_object,
  check_unicode,
  data_root,
  fetch_clips,
  find_files,
  find_video,
  json_type,
  load_list,
  location,
  parse_json,
  read_text,
  text_field,
)
from lift_jax.errors import UserError, listing

# LiFT rates clips in these three dimensions (arXiv 2412.04814, section 3).
DIMENSIONS = ('semantic', 'motion', 'fidelity')
LABELS = ('Good', 'Normal', 'Bad')

_VIDEO = '<video>'
_PROMPT_FILE = 'give the questions in a prompt JSON'

# Longest question that can be found; published ones have 45 words.
_MAX_WORDS = 200

# Words of a text in reverse order, each with the white space before it, so that
# joining them in reverse gives the text again.
_Words = tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class HRARecord:
  """One rating: the answer to one question about one clip.

  Attributes:
    video: path relative to the root, with '/' and without '.' parts.
    caption: what the clip should show.
    question: as in the file, with the white space before it.
    dimension: one of `DIMENSIONS`.
    label: one of `LABELS`.
    rationale: the rest of the answer; may be empty.
    file: the JSON file, as the caller named it.
    index: position in that file, from 0.
  """

  video: str
  caption: str
  question: str
  dimension: str
  label: str
  rationale: str
  file: str
  index: int

  @property
  def where(self) -> str:
    """For messages: 'hra.json record 3 (videos/x.mp4)'."""
    return f'{location(self.file, self.index)} ({self.video})'


@dataclasses.dataclass(frozen=True)
class _Entry:
  """An entry whose human turn is not yet split into caption and question."""

  file: str
  index: int
  video: str
  path: pathlib.Path
  text: str
  label: str
  rationale: str


def read_hra(
  root: str | pathlib.Path,
  files: Sequence[str],
  questions: Mapping[str, str] | None = None,
  on_bad_record: str = 'error',
  require_files: bool = True,
) -> ReadResult[HRARecord]:
  """Reads and checks files of human feedback.

  Several annotators may have rated one clip. Equal labels are kept, each with
  its own rationale; of two labels that disagree the later is a bad record. The
  semantic label is about a clip and its caption, the others about the clip.

  Args:
    root: the folder that `video` paths are relative to, and may not leave.
    files: JSON files, relative to the root or absolute.
    questions: by dimension, as from `read_questions`; None finds them in all
      files together.
    on_bad_record: 'error' raises at the first bad record; 'skip' collects bad
      records. A file that cannot be read as a list is an error in both cases.
    require_files: whether each clip must exist.

  Raises:
    UserError: a bad file or record, or no usable record.
  """
  bad = BadRecords(on_bad_record)
  root = data_root(root)
  if isinstance(files, str):
    raise UserError(f'{files}: give a list of HRA files, not a string')
  if not files:
    raise UserError(f'{root}: no HRA file is given; list at least one')
  names = [str(name) for name in files]
  entries = []
  for name, path in zip(names, find_files(root, files), strict=True):
    items = load_list(name, path, 'objects with "video" and "conversations"')
    if require_files:
      fetch_clips(root, items)
    for index, item in enumerate(items):
      try:
        entries.append(_entry(root, item, name, index, require_files))
      except RecordError as error:
        bad.add(name, index, error)
  if questions is None:
    found = find_questions([entry.text for entry in entries])
  else:
    found = tuple(questions.values())
  dimensions = {text: name for name, text in (questions or {}).items()}
  records, first_by_subject = [], {}
  for entry in entries:
    try:
      record = _record(entry, found, dimensions)
      about = record.caption if record.dimension == 'semantic' else ''
      subject = (entry.path, record.dimension, about)
      first = first_by_subject.setdefault(subject, record)
      if first.label != record.label:
        raise RecordError(
          f'{record.label} for the {record.dimension} dimension of '
          f'{record.video}, but {first.where} says {first.label}; settle on '
          'one label or delete one of the two'
        )
    except RecordError as error:
      bad.add(entry.file, entry.index, error)
    else:
      records.append(record)
  return bad.result(records, names)


def conversation(
  video: str, caption: str, question: str, label: str, rationale: str
) -> dict[str, Any]:
  """An entry in the published schema."""
  answer = f'{label}. {rationale}' if rationale else f'{label}.'
  return {
    'video': video,
    'conversations': [
      {'from': 'human', 'value': f'{_VIDEO}\n {caption}{question}'},
      {'from': 'gpt', 'value': answer},
    ],
  }


def read_questions(path: str | pathlib.Path) -> dict[str, str]:
  """Reads the question of each dimension from a prompt JSON.

  Its key "questions" is an object of three strings, whose keys name the
  dimension: "semantic consistency", "motion issues" and "fidelity issues" in
  the published prompts.

  Raises:
    UserError: a bad file, or a dimension without a question or with two.
  """
  name = str(path)
  wanted = '{"questions": {"semantic": ..., "motion": ..., "fidelity": ...}}'
  value = parse_json(name, read_text(name, pathlib.Path(path)), wanted)
  try:
    by_name = as_object(value, wanted).get('questions')
    if by_name is None:
      raise RecordError(f'no "questions"; write {wanted}')
    questions = {}
    by_name = as_object(by_name, wanted)
    for key in by_name:
      dimension = _dimension(key)
      if dimension in questions:
        raise RecordError(f'{key!r} is a second {dimension} question; keep one')
      questions[dimension] = _question(by_name, key)
    missing = set(DIMENSIONS) - set(questions)
    if missing:
      raise RecordError(f'no question for {listing(missing)}; add it')
    if len(set(questions.values())) < len(questions):
      raise RecordError(
        'two dimensions have the same question; word them differently'
      )
  except RecordError as error:
    raise UserError(f'{name}: {error}') from None
  return questions


def _question(questions: dict[str, str], key: str) -> str:
  text = text_field(questions, key)
  check_unicode(text, f'"{key}"')
  if text != ' ' + text.strip():
    raise RecordError(
      f'"{key}" is appended to captions unchanged; begin it with one space and '
      'end it with none'
    )
  return text


def human_text(item: dict[str, Any]) -> str:
  """The text of the human turn of an entry after `<video>`.

  Raises:
    RecordError: a missing or malformed human turn.
  """
  text = _turn(item, 'human')
  if not text.startswith(_VIDEO):
    raise RecordError(
      f'the human turn does not begin with {_VIDEO}; write '
      f'"{_VIDEO}\\n CAPTION QUESTION"'
    )
  return text.removeprefix(_VIDEO)


def split_text(
  text: str, questions: Iterable[str], remedy: str = _PROMPT_FILE
) -> tuple[str, str]:
  """Splits a text into the caption, stripped, and the question.

  Args:
    text: as from `human_text`.
    questions: possible endings; the longest match wins.
    remedy: what to do if none of them matches, for the message.

  Raises:
    RecordError: no question matches, or there is no caption before it.
  """
  text = text.rstrip()
  matches = [question for question in questions if text.endswith(question)]
  if not matches:
    ending = text if len(text) < 60 else '...' + text[-60:]
    raise RecordError(
      f'{ending!r} does not end in a question that other records share; '
      f'correct it, or {remedy}'
    )
  question = max(matches, key=len)
  caption = text.removesuffix(question).strip()
  if not caption:
    raise RecordError(f'no caption between {_VIDEO} and the question; add it')
  return caption, question


def find_questions(texts: Sequence[str]) -> tuple[str, ...]:
  """Finds the questions: the few endings that best describe many texts.

  A set of endings costs the number of words it takes to write down each ending
  once and each distinct caption before an ending once (minimum description
  length). An ending that is too short leaves words of its question on every
  caption; one that is too long, because some captions happen to end alike,
  must be written once more for the others. This also distinguishes questions
  that share their last words, and ignores a text whose ending is unique.

  Args:
    texts: captions with questions, as from `human_text`.

  Returns:
    Each question with one white space before it, normally a space, in the
    order of first occurrence; empty if the texts have no ending in common.
  """
  distinct = dict.fromkeys(text.rstrip() for text in texts)
  backwards = [
    tuple(reversed(re.findall(r'\s?\S+|\s', text))) for text in distinct
  ]
  endings = {
    _from_sentence(''.join(reversed(ending)))
    for ending in _endings(backwards, 0)[0]
  }
  # An ending that still contains part of a caption ends in another one.
  questions = [
    text
    for text in endings
    if not any(text != other and text.endswith(other) for other in endings)
  ]
  first = {
    question: next(
      index for index, text in enumerate(distinct) if text.endswith(question)
    )
    for question in questions
  }
  return tuple(sorted(first, key=lambda text: first[text]))


def _endings(texts: list[_Words], start: int) -> tuple[list[_Words], set]:
  """The best endings of distinct texts, and the distinct captions that remain.

  Either the common part of all texts is one ending, or each group of texts that
  share the next word has endings of its own.

  Args:
    texts: whose last `start` words are the same.
    start: number of words.
  """
  if len(texts) < 2:
    return [], set(texts)
  longest = min(_MAX_WORDS, *map(len, texts))
  length = start
  while length < longest and len({text[length] for text in texts}) == 1:
    length += 1
  endings = [texts[0][:length]] if length else []
  common = endings, {text[length:] for text in texts}
  if length == _MAX_WORDS:
    return common
  groups = {}
  for text in texts:
    groups.setdefault(text[length : length + 1], []).append(text)
  grouped = [], set()
  for group in groups.values():
    endings, captions = _endings(group, length)
    grouped[0].extend(endings)
    grouped[1].update(captions)
  return min(common, grouped, key=_num_words)


def _num_words(description: tuple[list[_Words], set]) -> int:
  """Number of words of endings and captions, each written once."""
  return sum(len(words) for part in description for words in part)


def _from_sentence(ending: str) -> str:
  """The ending without a leading remainder of the caption's last sentence.

  In a small file all captions may end in the same words. A question is a
  sentence of its own, so an ending that begins with a lower-case letter is cut
  at the next sentence.
  """
  while ending.lstrip()[:1].islower():
    end = re.search(r'[.!?]["\'”’)\]]*(?=\s\S)', ending)
    if end is None:
      break
    ending = ending[end.end() :]
  # Keep one white space, also if all captions end in white space.
  return ending[len(ending) - len(ending.lstrip()) - 1 :]


def _entry(
  root: pathlib.Path, item: Any, file: str, index: int, require_files: bool
) -> _Entry:
  item = as_object(item, '{"video", "conversations"}')
  video, path = find_video(root, text_field(item, 'video'), require_files)
  text = human_text(item)
  answer = _turn(item, 'gpt').strip()
  begin = re.match(rf'({"|".join(LABELS)})(?:\.|\Z)', answer)
  if begin is None:
    raise RecordError(
      f'the answer begins with {answer[:16]!r}; write one of '
      f'{", ".join(LABELS)}, a full stop and the rationale'
    )
  rationale = answer[begin.end() :].strip()
  return _Entry(file, index, video, path, text, begin[1], rationale)


def _turn(item: dict[str, Any], speaker: str) -> str:
  """The text of the one turn of a speaker."""
  if 'conversations' not in item:
    raise RecordError('no "conversations"; add it')
  turns = item['conversations']
  if not isinstance(turns, list):
    raise RecordError(
      f'"conversations" is {json_type(turns)}; write a list of a human and a '
      'gpt turn'
    )
  wanted = '{"from", "value"}'
  turns = [as_object(turn, wanted) for turn in turns]
  own = [turn for turn in turns if turn.get('from') == speaker]
  if len(own) != 1:
    raise RecordError(
      f'{len(own) or "no"} {speaker} turn{"s" * (len(own) > 1)}; write one, as '
      f'{{"from": "{speaker}", "value": ...}}'
    )
  try:
    text = text_field(own[0], 'value')
  except RecordError as error:
    raise RecordError(f'{speaker} turn: {error}') from None
  check_unicode(text, f'the {speaker} turn')
  return text


def _record(
  entry: _Entry, questions: Sequence[str], dimensions: Mapping[str, str]
) -> HRARecord:
  """Splits an entry; `dimensions` maps questions to dimensions, if known."""
  caption, question = split_text(entry.text, questions)
  return HRARecord(
    video=entry.video,
    caption=caption,
    question=question,
    dimension=dimensions.get(question) or _dimension(question),
    label=entry.label,
    rationale=entry.rationale,
    file=entry.file,
    index=entry.index,
  )


def _dimension(text: str) -> str:
  """The one dimension that a question or its key mentions."""
  named = [name for name in DIMENSIONS if re.search(rf'(?i)\b{name}', text)]
  if len(named) != 1:
    start = text if len(text) < 60 else text[:60] + '...'
    raise RecordError(
      f'{start!r} names {" and ".join(named) or "no dimension"}, not one of '
      f'{", ".join(DIMENSIONS)}; mention exactly one, or {_PROMPT_FILE}'
    )
  return named[0]
