"""Human feedback records (HRA): a label and a rationale per clip and dimension.

The published schema, that of LiFT-HRA and of the VIDGEN set released with it,
is a list with one entry per clip and dimension:

  {"video": "videos/x.mp4", "conversations": [
    {"from": "human", "value": "<video>\\n CAPTION QUESTION"},
    {"from": "gpt", "value": "LABEL. RATIONALE"}]}

An entry may also have several such pairs about its clip, and all but the first
may leave out "<video>\\n CAPTION".

Where several people rated, the gpt turn may say how many chose each label, of
which that of the answer is the most frequent:

  {"from": "gpt", "value": "Good. WHY", "votes": {"Good": 2, "Bad": 1}}

Nothing separates the caption from the question. As a file asks the same few
questions about all its clips, `find_questions` finds them as the endings that
its human turns have in common; `read_questions` reads them from a prompt file
instead.
"""

import collections
from collections.abc import Collection, Iterable, Mapping, Sequence
import dataclasses
import pathlib
import re
from typing import Any

from lift_jax.data.clip_paths import ClipFolder
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
from lift_jax.data.questions import find_questions
from lift_jax.data.rubric import (
  DIMENSIONS,
  LABELS,
  named_dimensions,
  read_rubric,
)
from lift_jax.errors import UserError
from lift_jax.runtime.progress import tracked

# What these say of a clip does not depend on its caption.
OF_CLIP = ('motion', 'fidelity')

_VIDEO = '<video>'
_VOTES = 'votes'
_SPEAKERS = ('human', 'gpt')
_PROMPT_FILE = 'give the questions in a prompt JSON'


@dataclasses.dataclass(frozen=True)
class HRARecord:
  """One rating: the answer to one question about one clip.

  Attributes:
    video: see `clip_paths.ClipFolder.find`.
    path: of the file, absolute, with symbolic links resolved.
    caption: what the clip should show.
    question: as in the file, with the white space before it.
    dimension: of the rubric.
    label: of the rubric.
    rationale: the rest of the answer; may be empty.
    file: the JSON file, as the caller named it.
    place: in that file: 'record 3', or 'line 4' of JSON lines; with ' pair 2',
      if the entry has several.
    votes: how many people chose each label; empty if the file does not say.
  """

  video: str
  path: pathlib.Path
  caption: str
  question: str
  dimension: str
  label: str
  rationale: str
  file: str
  place: str
  votes: Mapping[str, int] = dataclasses.field(default_factory=dict, hash=False)

  @property
  def where(self) -> str:
    """For messages: 'hra.json record 3 (videos/x.mp4)'."""
    return f'{location(self.file, self.place)} ({self.video})'


@dataclasses.dataclass(frozen=True)
class _Pair:
  """A pair of turns that is not yet split into caption and question.

  Attributes:
    first: text of the first human turn of the entry.
    text: of the human turn of this pair.
  """

  file: str
  place: str
  video: str
  path: pathlib.Path
  first: str
  text: str
  label: str
  rationale: str
  votes: Mapping[str, int]


def read_hra(
  root: str | pathlib.Path,
  files: Sequence[str],
  questions: Mapping[str, str] | None = None,
  on_bad_record: str = 'error',
  require_files: bool = True,
  follow_links: str = 'hub',
  optional: Collection[str] = (),
  labels: Sequence[str] = LABELS,
) -> ReadResult[HRARecord]:
  """Reads and checks files of human feedback.

  Several annotators may have rated one clip. Equal labels are kept, each with
  its own rationale; of two labels that disagree the later is a bad record. The
  labels of motion and fidelity are about a clip, others about a clip and its
  caption.

  Args:
    root: the folder that `video` paths are relative to, and may not leave.
    files: JSON files, relative to the root or absolute.
    questions: by dimension, as from `read_questions`; None finds them in all
      files together.
    on_bad_record: 'error' raises at the first bad record; 'skip' collects bad
      records. A file that cannot be read as a list is an error in both cases.
    require_files: whether each clip must exist.
    follow_links: see `clip_paths.ClipFolder`.
    optional: see `clip_paths.ClipFolder`.
    labels: that answers begin with.

  Raises:
    UserError: a bad file or record, or no usable record.
  """
  bad = BadRecords(on_bad_record)
  clips = ClipFolder.open(root, follow_links, optional)
  if isinstance(files, str):
    raise UserError(f'{files}: give a list of HRA files, not a string')
  if not files:
    raise UserError(f'{root}: no HRA file is given; list at least one')
  names = [str(name) for name in files]
  pairs = []
  for name, path in zip(names, find_files(clips.root, files), strict=True):
    items = load_list(name, path, 'objects with "video" and "conversations"')
    if require_files:
      fetch_clips(clips.root, [item for _, item in items])
    for place, item in tracked(items, 'record'):
      try:
        pairs += _pairs(clips, item, name, place, require_files, labels, bad)
      except RecordError as error:
        bad.add(name, place, error)
  if questions is None:
    found = _find_questions(pairs)
  else:
    found = tuple(questions.values())
  dimensions = {text: name for name, text in (questions or {}).items()}
  records, first_by_subject = [], {}
  for pair in tracked(pairs, 'rating'):
    try:
      record = _record(pair, found, dimensions)
      about = '' if record.dimension in OF_CLIP else record.caption
      subject = (pair.path, record.dimension, about)
      first = first_by_subject.setdefault(subject, record)
      if first.label != record.label:
        raise RecordError(
          f'{record.label} for the {record.dimension} dimension of '
          f'{record.video}, but {first.where} says {first.label}; settle on '
          'one label or delete one of the two'
        )
    except RecordError as error:
      bad.add(pair.file, pair.place, error)
    else:
      records.append(record)
  return bad.result(records, names)


def conversation(
  video: str,
  caption: str,
  question: str,
  label: str,
  rationale: str,
  votes: Mapping[str, int] | None = None,
) -> dict[str, Any]:
  """An entry in the published schema; with votes if there are any."""
  answer = f'{label}. {rationale}' if rationale else f'{label}.'
  turn: dict[str, Any] = {'from': 'gpt', 'value': answer}
  if votes:
    turn[_VOTES] = dict(votes)
  return {
    'video': video,
    'conversations': [
      {'from': 'human', 'value': f'{_VIDEO}\n {caption}{question}'},
      turn,
    ],
  }


def read_questions(path: str | pathlib.Path) -> dict[str, str]:
  """Reads the question of each dimension from a rubric; see `data.rubric`."""
  return dict(read_rubric(path).questions)


def human_texts(item: dict[str, Any]) -> list[str]:
  """The texts of the human turns of an entry, without `<video>`.

  The first is a caption and a question; the others may be a question alone.

  Raises:
    RecordError: missing or malformed turns.
  """
  return [human for human, _, _ in _turns(item)]


def split_text(
  text: str, questions: Iterable[str], remedy: str = _PROMPT_FILE
) -> tuple[str, str]:
  """Splits a text into the caption, stripped, and the question.

  Args:
    text: as from `human_texts`.
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


def _find_questions(pairs: Sequence[_Pair]) -> tuple[str, ...]:
  """The questions of all pairs."""
  found = find_questions([pair.text for pair in pairs])
  # Questions without a caption are the same text in each entry.
  alone = collections.Counter(
    pair.text for pair in pairs if pair.text != pair.first
  )
  repeated = [text for text, count in alone.items() if count > 1]
  return (*found, *(text for text in repeated if not text.endswith(found)))


def _pairs(
  clips: ClipFolder,
  item: Any,
  file: str,
  place: str,
  require_files: bool,
  labels: Sequence[str],
  bad: BadRecords,
) -> list[_Pair]:
  """The pairs of an entry; those with a bad answer are added to `bad`."""
  item = as_object(item, '{"video", "conversations"}')
  video, path = clips.find(text_field(item, 'video'), require_files)
  turns = _turns(item)
  pairs = []
  for number, (human, answer, gpt) in enumerate(turns, start=1):
    own_place = f'{place} pair {number}' if len(turns) > 1 else place
    try:
      label, rationale = _split_answer(answer, labels)
      votes = _read_votes(gpt, label, labels)
    except RecordError as error:
      bad.add(file, own_place, error)
    else:
      first = turns[0][0]
      pairs.append(
        _Pair(
          file, own_place, video, path, first, human, label, rationale, votes
        )
      )
  return pairs


def _split_answer(answer: str, labels: Sequence[str]) -> tuple[str, str]:
  """(label, rationale) of a gpt turn."""
  answer = answer.strip()
  begin = re.match(rf'({"|".join(map(re.escape, labels))})(?:\.|\Z)', answer)
  if begin is None:
    raise RecordError(
      f'the answer begins with {answer[:16]!r}; write one of '
      f'{", ".join(labels)}, a full stop and the rationale'
    )
  return begin[1], answer[begin.end() :].strip()


def _read_votes(
  turn: Mapping[str, Any], label: str, labels: Sequence[str]
) -> dict[str, int]:
  """The votes of a gpt turn whose answer has this label; empty without any."""
  if _VOTES not in turn:
    return {}
  votes = as_object(turn[_VOTES], f'"{_VOTES}" as {{LABEL: NUMBER}}')
  for name, count in votes.items():
    if name not in labels:
      raise RecordError(
        f'"{_VOTES}": {name!r} is none of {", ".join(labels)}; correct it'
      )
    if isinstance(count, bool) or not isinstance(count, int) or count < 0:
      raise RecordError(
        f'"{_VOTES}" of {name} is {count!r}; write a whole number from 0 on'
      )
  most = max(votes.values(), default=0)
  if not most or votes.get(label, 0) < most:
    raise RecordError(
      f'the answer is {label}, which has not the most "{_VOTES}", {votes}; '
      'correct one of the two'
    )
  return {name: votes[name] for name in labels if votes.get(name)}


def _turns(
  item: dict[str, Any],
) -> list[tuple[str, str, Mapping[str, Any]]]:
  """(human text, answer, gpt turn) of each pair of turns; see `human_texts`."""
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
  humans, answers = (
    [turn for turn in turns if turn.get('from') == speaker]
    for speaker in _SPEAKERS
  )
  for speaker, own in zip(_SPEAKERS, (humans, answers), strict=True):
    if not own:
      raise RecordError(
        f'no {speaker} turn; write one, as '
        f'{{"from": "{speaker}", "value": ...}}'
      )
  if len(humans) != len(answers):
    raise RecordError(
      f'{len(humans)} human and {len(answers)} gpt turns; write one answer to '
      'each question'
    )
  if len(humans) > 1 and any(
    turn.get('from') != speaker
    for turn, speaker in zip(turns, _SPEAKERS * len(humans), strict=False)
  ):
    raise RecordError(
      'human and gpt turns do not alternate; write each answer after its '
      'question'
    )
  texts = [_turn_text(turn) for turn in humans]
  if not texts[0].startswith(_VIDEO):
    raise RecordError(
      f'the human turn does not begin with {_VIDEO}; write '
      f'"{_VIDEO}\\n CAPTION QUESTION"'
    )
  texts = [
    text.removeprefix(_VIDEO) if text.startswith(_VIDEO) else f' {text.strip()}'
    for text in texts
  ]
  return list(zip(texts, map(_turn_text, answers), answers, strict=True))


def _turn_text(turn: dict[str, Any]) -> str:
  speaker = turn['from']
  try:
    text = text_field(turn, 'value')
  except RecordError as error:
    raise RecordError(f'{speaker} turn: {error}') from None
  check_unicode(text, f'the {speaker} turn')
  return text


def _record(
  pair: _Pair, questions: Sequence[str], dimensions: Mapping[str, str]
) -> HRARecord:
  """Splits a pair; `dimensions` maps questions to dimensions, if known."""
  caption, question = _split_pair(pair, questions)
  return HRARecord(
    video=pair.video,
    path=pair.path,
    caption=caption,
    question=question,
    dimension=dimensions.get(question) or _dimension(question),
    label=pair.label,
    rationale=pair.rationale,
    file=pair.file,
    place=pair.place,
    votes=pair.votes,
  )


def _split_pair(pair: _Pair, questions: Sequence[str]) -> tuple[str, str]:
  """(caption, question) of a pair."""
  alone = [text for text in questions if text.strip() == pair.text.strip()]
  if alone:
    caption, _ = split_text(pair.first, questions)
    return caption, alone[0]
  return split_text(pair.text, questions)


def _dimension(text: str) -> str:
  """The one dimension that a question or its key mentions."""
  named = named_dimensions(text)
  if len(named) != 1:
    start = text if len(text) < 60 else text[:60] + '...'
    raise RecordError(
      f'{start!r} names {" and ".join(named) or "no dimension"}, not one of '
      f'{", ".join(DIMENSIONS)}; mention exactly one, or {_PROMPT_FILE}'
    )
  return named[0]
