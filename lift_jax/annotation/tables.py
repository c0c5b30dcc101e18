"""Records of an annotation project in its database."""

from collections.abc import Mapping, Sequence
import dataclasses
import hashlib
import json
import secrets
import sqlite3
from typing import Any

from lift_jax.annotation import checks, settling
from lift_jax.annotation.entities import (
  CLIP,
  CRITIC,
  OVERALL,
  PAIR,
  PAIR_LABELS,
  ROLES,
  Answer,
  Disagreement,
  GivenAnswer,
  Settings,
  Task,
)
from lift_jax.data.rubric import Rubric, from_json, to_json
from lift_jax.errors import UserError
from lift_jax.runtime.files import json_sha256


class NotFoundError(UserError):
  """There is no such clip, task or person, or a clip's file is missing."""


class ConflictError(UserError):
  """The task has another answer of this person meanwhile."""


def clip_id(video: str, caption: str) -> str:
  """Id of a clip, from its path below the root and its caption."""
  return json_sha256([video, caption])[:24]


def task_id(clips: Sequence[str]) -> str:
  """Id of the task of one or two clips, from their ids."""
  return json_sha256(['task', *clips])[:24]


def get_setting(db: sqlite3.Connection, key: str) -> Any:
  row = db.execute('SELECT value FROM settings WHERE key = ?', (key,))
  value = row.fetchone()
  return json.loads(value[0]) if value else None


def set_setting(db: sqlite3.Connection, key: str, value: Any) -> None:
  db.execute(
    'INSERT OR REPLACE INTO settings VALUES (?, ?)',
    (key, json.dumps(value, ensure_ascii=False)),
  )


def get_settings(db: sqlite3.Connection) -> Settings:
  value = get_setting(db, 'settings')
  return Settings(**value | {'rubric': from_json(value['rubric'])})


def set_settings(db: sqlite3.Connection, settings: Settings) -> None:
  value = dataclasses.asdict(settings) | {'rubric': to_json(settings.rubric)}
  set_setting(db, 'settings', value)


def check_votes(db: sqlite3.Connection, rubric: Rubric) -> None:
  """Checks that each vote of a clip is one of the rubric."""
  rows = db.execute(
    'SELECT DISTINCT dimension, label FROM votes JOIN answers ON answer = '
    'answers.id JOIN tasks ON task = tasks.id WHERE second IS NULL'
  )
  for dimension, label in rows:
    if dimension not in rubric.dimensions or label not in rubric.labels:
      raise UserError(
        f'there are answers with the label {label!r} of {dimension!r}, which '
        'the questions file lacks; keep it there, or use a new workdir'
      )


def sha256(token: str) -> bytes:
  # The token is random, so that no slow hash is needed.
  return hashlib.sha256(token.encode(errors='replace')).digest()


def add_clip(db: sqlite3.Connection, video: str, caption: str) -> str:
  key = clip_id(video, caption)
  db.execute(
    'INSERT INTO clips VALUES (?, ?, ?) ON CONFLICT (id) DO NOTHING',
    (key, video, caption),
  )
  return key


def add_task(
  db: sqlite3.Connection, clips: Sequence[tuple[str, str]], category: str = ''
) -> str:
  if len({caption for _, caption in clips}) > 1:
    raise UserError(
      f'{" and ".join(video for video, _ in clips)}: a pair has one caption; '
      'compare clips of one prompt'
    )
  ids = [add_clip(db, video, caption) for video, caption in clips]
  key = task_id(ids)
  db.execute(
    'INSERT INTO tasks (id, first, second, category, rank) '
    'VALUES (?, ?, ?, ?, ?) '
    'ON CONFLICT (id) DO UPDATE SET category = excluded.category '
    "WHERE excluded.category != ''",
    (key, ids[0], ids[1] if ids[1:] else None, category, secrets.randbits(62)),
  )
  return key


def get_task(db: sqlite3.Connection, settings: Settings, task: str) -> Task:
  """A task with its clips in their canonical order."""
  row = db.execute(
    'SELECT first, second, caption FROM tasks JOIN clips ON clips.id = first '
    'WHERE tasks.id = ?',
    (task,),
  ).fetchone()
  if row is None:
    raise NotFoundError(f'no task {task[:64]!r} in this project')
  first, second, caption = row
  rubric = settings.rubric
  if second is None:
    return Task(task, CLIP, caption, (first,), rubric.dimensions, rubric.labels)
  dimensions = (*rubric.dimensions, OVERALL)
  return Task(task, PAIR, caption, (first, second), dimensions, PAIR_LABELS)


def is_swapped(db: sqlite3.Connection, person: int, task: Task) -> bool:
  """Whether a person sees the clips of a pair in the other order.

  It is random, but the same at each time.
  """
  if task.kind == CLIP:
    return False
  digest = sha256(f'{get_setting(db, "seed")} {person} {task.id}')
  return bool(digest[0] & 1)


def shown_task(
  db: sqlite3.Connection, settings: Settings, person: int, task: str
) -> Task:
  """A task with its clips in the order in which a person sees them."""
  found = get_task(db, settings, task)
  if is_swapped(db, person, found):
    return dataclasses.replace(found, clips=found.clips[::-1])
  return found


def swapped_label(label: str) -> str:
  """The label of a pair from the view of the other clip."""
  return PAIR_LABELS[-1 - PAIR_LABELS.index(label)]


def insert_answer(
  db: sqlite3.Connection,
  person: int,
  answer: Answer,
  swap: bool,
  now: float,
) -> None:
  db.execute(
    'INSERT INTO answers VALUES (?, ?, ?, ?, ?, ?, 1)',
    (answer.id, answer.task, person, answer.skip, answer.seconds, now),
  )
  db.executemany(
    'INSERT INTO votes VALUES (?, ?, ?, ?)',
    [
      (
        answer.id,
        dimension,
        swapped_label(label) if swap else label,
        answer.reasons.get(dimension, '').strip(),
      )
      for dimension, label in answer.labels.items()
    ],
  )


def given_answer(
  db: sqlite3.Connection,
  settings: Settings,
  person: int,
  answer: str,
  task: str,
  skip: str,
  seconds: float,
  saved: float,
) -> GivenAnswer:
  shown = shown_task(db, settings, person, task)
  swap = is_swapped(db, person, shown)
  votes = db.execute(
    'SELECT dimension, label, reason FROM votes WHERE answer = ?', (answer,)
  ).fetchall()
  labels = {
    name: swapped_label(label) if swap else label for name, label, _ in votes
  }
  reasons = {name: reason for name, _, reason in votes}
  return GivenAnswer(
    shown, Answer(answer, task, labels, reasons, seconds, skip), saved
  )


def disagreement(
  db: sqlite3.Connection, settings: Settings, task: str
) -> Disagreement:
  shown = get_task(db, settings, task)
  votes = {name: [] for name in shown.dimensions}
  for dimension, vote in settling.votes(db, task):
    votes[dimension].append(vote)
  return Disagreement(
    shown,
    {name: tuple(given) for name, given in votes.items()},
    tuple(
      name
      for name, given in votes.items()
      if len({vote.label for vote in given}) > 1
    ),
    {
      name: settling.majority(labels, shown.labels)
      for name, given in votes.items()
      if (labels := [v.label for v in given if v.rater != CRITIC])
    },
    settling.decisions(db, task),
  )


def flag_broken(db: sqlite3.Connection, clip: str, problem: str) -> None:
  """Flags the tasks of a clip as broken."""
  db.execute(
    'UPDATE tasks SET broken = ? WHERE ? IN (first, second)', (problem, clip)
  )


def add_person(db: sqlite3.Connection, name: str, role: str) -> int:
  """Adds a person, or gives an existing one the role; returns the id."""
  name = checks.clean_name(name)
  if role not in ROLES:
    raise UserError(f'role {role!r}; choose one of {", ".join(ROLES)}')
  ((number,),) = db.execute(
    'INSERT INTO people (name, role) VALUES (?, ?) '
    'ON CONFLICT (name) DO UPDATE SET role = excluded.role RETURNING id',
    (name, role),
  ).fetchall()
  return number


def set_gold(
  db: sqlite3.Connection, task: str, ratings: Mapping[str, tuple[str, str]]
) -> None:
  """Replaces the gold labels and reasons of a task; {} for none."""
  db.execute('DELETE FROM gold WHERE task = ?', (task,))
  db.executemany(
    'INSERT INTO gold VALUES (?, ?, ?, ?)',
    [(task, name, *rating) for name, rating in ratings.items()],
  )
  db.execute('UPDATE tasks SET is_gold = ? WHERE id = ?', (bool(ratings), task))


def set_critic_votes(
  db: sqlite3.Connection, task: str, ratings: Mapping[str, tuple[str, str]]
) -> None:
  """Replaces the labels and reasons of a critic of a task; {} for none."""
  db.execute('DELETE FROM critic_votes WHERE task = ?', (task,))
  db.executemany(
    'INSERT INTO critic_votes VALUES (?, ?, ?, ?)',
    [(task, name, *rating) for name, rating in ratings.items()],
  )


def decide(
  db: sqlite3.Connection,
  task: str,
  lead: int,
  ratings: Mapping[str, tuple[str, str]],
  now: float,
) -> None:
  """Sets a lead's labels and reasons of a task, by dimension."""
  db.executemany(
    'INSERT OR REPLACE INTO decisions VALUES (?, ?, ?, ?, ?, ?)',
    [
      (task, name, label, reason.strip(), lead, now)
      for name, (label, reason) in ratings.items()
    ],
  )


def insert_new(
  db: sqlite3.Connection, person: int, answer: Answer, now: float
) -> bool:
  """Inserts an answer in canonical order, unless the person has one."""
  if db.execute(
    'SELECT 1 FROM answers WHERE id = ? '
    'OR task = ? AND person = ? AND is_current',
    (answer.id, answer.task, person),
  ).fetchone():
    return False
  insert_answer(db, person, answer, False, now)
  return True
