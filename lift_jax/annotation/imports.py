"""Imports into a project: its own exports, HRA, Label Studio, Argilla.

An import adds what the project does not have: importing a file again has no
further effect.
"""

from collections.abc import Iterator, Mapping
import contextlib
import dataclasses
import pathlib
import sqlite3
import time
from typing import Any

from lift_jax.annotation import checks, export, tables
from lift_jax.annotation.entities import (
  CRITIC,
  RATER,
  Answer,
  Settings,
)
from lift_jax.annotation.foreign import ForeignAnswer, ForeignReader, Keys
from lift_jax.annotation.store import Store
from lift_jax.data import hra
from lift_jax.data.clip_paths import ClipFolder
from lift_jax.data.json_records import (
  RecordError,
  as_object,
  load_list,
  location,
  parse_json,
  read_text,
)
from lift_jax.errors import UserError
from lift_jax.runtime.files import json_sha256


@dataclasses.dataclass(frozen=True)
class Imported:
  """What an import added.

  Attributes:
    tasks: tasks that the file is about.
    answers: new answers and skips.
    gold: tasks with gold labels in the file.
  """

  tasks: int
  answers: int
  gold: int


def read_file(
  store: Store, path: pathlib.Path, rater: str, is_gold: bool, keys: Keys
) -> Imported:
  """Imports a file of HRA, Label Studio or Argilla.

  Args:
    store: gets its clips as tasks, and the ratings as answers of people.
    path: of the file.
    rater: whose ratings those of an HRA file become.
    is_gold: whether all ratings are known to be right, and become gold labels
      instead of answers.
    keys: of files of other tools.

  Raises:
    UserError: a bad file or record; then nothing is imported.
  """
  with store.database.reading() as db:
    settings = tables.get_settings(db)
  name = str(path)
  items = load_list(name, path, 'objects')
  if _is_hra(items):
    found = _hra_answers(settings, name, rater)
  else:
    found = _foreign_answers(settings, name, items, keys)
  answers = gold = 0
  with store.database.transaction() as db:
    tasks = {}
    for answer in found:
      clips = [(answer.video, answer.caption)]
      task = tasks.setdefault(clips[0], tables.add_task(db, clips))
      if is_gold or answer.is_gold:
        gold += 1
        tables.set_gold(
          db,
          task,
          {
            dimension: (label, answer.reasons.get(dimension, ''))
            for dimension, label in answer.labels.items()
          },
        )
      else:
        person = _person(db, answer.rater)
        answers += _insert(db, settings, person, task, answer)
  return Imported(len(tasks), answers, gold)


def _person(db: sqlite3.Connection, name: str) -> int:
  """Somebody of this name, who may be a lead; a new one is a rater."""
  row = db.execute(
    'SELECT id FROM people WHERE name = ?', (checks.clean_name(name),)
  ).fetchone()
  return row[0] if row else tables.add_person(db, name, RATER)


def _is_hra(items: list[tuple[str, Any]]) -> bool:
  return any(
    isinstance(item, dict) and 'conversations' in item for _, item in items
  )


def _hra_answers(
  settings: Settings, name: str, rater: str
) -> list[ForeignAnswer]:
  """One answer for each clip; of several rationales the first."""
  records = hra.read_hra(
    settings.root,
    [str(pathlib.Path(name).absolute())],
    settings.rubric.questions,
    follow_links=settings.follow_links,
    labels=settings.rubric.labels,
  ).records
  by_clip: dict[tuple[str, str], dict[str, hra.HRARecord]] = {}
  for record in records:
    of_clip = by_clip.setdefault((record.video, record.caption), {})
    of_clip.setdefault(record.dimension, record)
  return [
    ForeignAnswer(
      video,
      caption,
      rater,
      {name: record.label for name, record in of_clip.items()},
      {name: record.rationale for name, record in of_clip.items()},
      seconds=0.0,
      time=0.0,
      is_gold=False,
    )
    for (video, caption), of_clip in by_clip.items()
  ]


def _foreign_answers(
  settings: Settings, name: str, items: list[tuple[str, Any]], keys: Keys
) -> list[ForeignAnswer]:
  """The answers of all records; of one person about one clip, the latest."""
  clips = ClipFolder.open(settings.root, settings.follow_links)
  reader = ForeignReader(clips, settings.rubric, keys)
  latest: dict[tuple[Any, ...], ForeignAnswer] = {}
  for place, item in items:
    try:
      answers = reader.read(item)
      for answer in answers:
        for dimension, reason in answer.reasons.items():
          checks.check_text(
            reason, f'the reason for {dimension}', checks.MAX_REASON
          )
    except (RecordError, UserError) as error:
      raise UserError(f'{location(name, place)}: {error}') from None
    for answer in answers:
      key = answer.video, answer.caption, answer.rater, answer.is_gold
      if key not in latest or latest[key].time < answer.time:
        latest[key] = answer
  if not latest:
    raise UserError(f'{name}: nobody answered anything; export after rating')
  return list(latest.values())


def _insert(
  db: sqlite3.Connection,
  settings: Settings,
  person: int,
  task: str,
  answer: ForeignAnswer,
) -> bool:
  """Inserts an answer; returns whether the person had none for this task."""
  shown = tables.get_task(db, settings, task)
  checks.check_labels(shown, answer.labels, part=True)
  digest = json_sha256([answer.rater, answer.video, answer.caption])[:32]
  return tables.insert_new(
    db,
    person,
    Answer(digest, task, answer.labels, answer.reasons, answer.seconds),
    answer.time or time.time(),
  )


def read_export(store: Store, folder: pathlib.Path) -> Imported:
  """Imports a folder of `export.write_export`.

  Clips need not exist; tasks without them are flagged when they are needed.

  Raises:
    UserError: a bad file or record; then nothing is imported.
  """
  project = _project(folder)
  with store.database.transaction() as db:
    settings = tables.get_settings(db)
    for person in project['people']:
      tables.add_person(db, person['name'], person['role'])
    people = dict(db.execute('SELECT name, id FROM people'))
    num_gold = 0
    tasks = _lines(folder / export.TASKS)
    for place, line in tasks:
      with _located(folder / export.TASKS, place):
        num_gold += _read_task(db, settings, people, line)
    answers = 0
    for (answer, place), lines in _answers(folder / export.VOTES).items():
      with _located(folder / export.VOTES, place):
        answers += _read_answer(db, settings, people, answer, lines)
  return Imported(len(tasks), answers, num_gold)


@contextlib.contextmanager
def _located(path: pathlib.Path, place: str) -> Iterator[None]:
  """Names the line of a file in errors about it."""
  try:
    yield
  except UserError as error:
    raise UserError(f'{location(str(path), place)}: {error}') from None
  except (KeyError, TypeError, ValueError, AttributeError) as error:
    raise UserError(
      f'{location(str(path), place)}: not as lift annotate export writes it '
      f'({error!r}); export again'
    ) from None


def _project(folder: pathlib.Path) -> dict[str, Any]:
  path = folder / export.PROJECT
  value = parse_json(str(path), read_text(str(path), path), 'an object')
  try:
    project = as_object(value, 'an object')
  except RecordError as error:
    raise UserError(f'{path}: {error}') from None
  if project.get('format') != export.FORMAT:
    raise UserError(
      f'{path}: format {project.get("format")!r}, not {export.FORMAT}; export '
      'again with this version of lift_jax'
    )
  return project


def _lines(path: pathlib.Path) -> list[tuple[str, Any]]:
  return load_list(str(path), path, 'objects')


def _read_task(
  db: sqlite3.Connection,
  settings: Settings,
  people: Mapping[str, int],
  line: Any,
) -> bool:
  """Adds a task of `tasks.jsonl`; returns whether it is a gold one."""
  clips = [(video, line['caption']) for video in line['clips']]
  task = tables.add_task(db, clips, line['category'])
  shown = tables.get_task(db, settings, task)
  ratings = {
    key: {r['dimension']: (r['label'], r['reason']) for r in line[key]}
    for key in ('gold', CRITIC, 'decisions')
  }
  for given in ratings.values():
    labels = {dimension: label for dimension, (label, _) in given.items()}
    checks.check_labels(shown, labels, part=True)
  db.execute(
    'UPDATE tasks SET priority = ?, extra = ? WHERE id = ?',
    (float(line['priority']), int(line['extra']), task),
  )
  tables.set_gold(db, task, ratings['gold'])
  tables.set_critic_votes(db, task, ratings[CRITIC])
  for decision in line['decisions']:
    rating = decision['label'], decision['reason']
    tables.decide(
      db,
      task,
      people[decision['lead']],
      {decision['dimension']: rating},
      float(decision['time']),
    )
  return bool(line['gold'])


def _answers(path: pathlib.Path) -> dict[tuple[str, str], list[Any]]:
  """Lines of `votes.jsonl` by answer, with the place of the first."""
  places: dict[str, tuple[str, str]] = {}
  answers: dict[tuple[str, str], list[Any]] = {}
  for place, line in _lines(path):
    with _located(path, place):
      key = places.setdefault(line['answer'], (line['answer'], place))
      answers.setdefault(key, []).append(line)
  return answers


def _read_answer(
  db: sqlite3.Connection,
  settings: Settings,
  people: Mapping[str, int],
  answer: str,
  lines: list[Any],
) -> bool:
  """Inserts an answer of `votes.jsonl`; returns whether it is new."""
  line = lines[0]
  videos = line['clip'] if isinstance(line['clip'], list) else [line['clip']]
  clips = [(video, line['caption']) for video in videos]
  task = tables.get_task(
    db, settings, tables.task_id([tables.clip_id(*clip) for clip in clips])
  )
  skip = line['skip'] if 'skip' in line else ''
  rated = [] if skip else lines
  given = Answer(
    answer,
    task.id,
    {vote['dimension']: vote['label'] for vote in rated},
    {vote['dimension']: vote['reason'] for vote in rated},
    float(line['seconds']),
    skip,
  )
  checks.check_answer(task, given, part=True)
  return tables.insert_new(
    db, people[line['rater']], given, float(line['time'])
  )
