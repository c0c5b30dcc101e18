"""Files that an annotation project is exported to.

  hra.json          settled ratings of clips, as `lift train_critic` reads them
  hra_half1.json    those of half of the prompts, see `half_of`
  hra_half2.json    those of the others
  pairs.json        comparisons of pairs (`data.pair_records`)
  votes.jsonl       all votes, one a line; also skips
  tasks.jsonl       all tasks with gold labels and decisions
  questions.json    the rubric
  project.json      settings and people

The last five make the same project again (`imports.read_export`). No file has
tokens, or answers that were corrected later.
"""

from collections.abc import Iterable, Iterator
import hashlib
import json
import pathlib
import sqlite3
from typing import Any

from lift_jax.annotation import settling, tables
from lift_jax.annotation.entities import CRITIC, OVERALL, PAIR, Settings, Task
from lift_jax.annotation.store import Store
from lift_jax.data.hra import conversation
from lift_jax.data.pair_records import PairRecord
from lift_jax.data.pair_records import to_json as pair_to_json
from lift_jax.data.rubric import to_json as rubric_to_json
from lift_jax.data.splits import normalize_caption
from lift_jax.runtime.files import atomic_folder, write_json, write_text

FORMAT = 1

HRA = 'hra.json'
HALVES = ('hra_half1.json', 'hra_half2.json')
PAIRS = 'pairs.json'
VOTES = 'votes.jsonl'
TASKS = 'tasks.jsonl'
QUESTIONS = 'questions.json'
PROJECT = 'project.json'

# Labels of a pair, from the view of its first clip, in `data.pair_records`.
PREFERENCES = {'better': 'first', 'same': 'same', 'worse': 'second'}


def write_export(store: Store, folder: pathlib.Path) -> dict[str, int]:
  """Writes all files; returns the number of records of each list.

  The folder is replaced once all are written.
  """
  with store.database.reading() as db:
    settings = tables.get_settings(db)
    keys = db.execute(
      'SELECT id FROM tasks ORDER BY rowid'  # that of adding
    ).fetchall()
    shown = [tables.get_task(db, settings, key) for (key,) in keys]
    gold = {key for (key,) in db.execute('SELECT DISTINCT task FROM gold')}
    rated = [task for task in shown if task.id not in gold]
    hra = [
      (task, entry)
      for task in rated
      if task.kind != PAIR
      for entry in _settled_clip(db, settings, task)
    ]
    lists: dict[str, list[Any]] = {HRA: [entry for _, entry in hra]}
    for half, name in enumerate(HALVES, start=1):
      lists[name] = [
        entry for task, entry in hra if half_of(task.caption) == half
      ]
    lists[PAIRS] = [
      pair_to_json(record)
      for task in rated
      if task.kind == PAIR
      for record in _pairs(db, task)
    ]
    votes, tasks = list(_votes(db)), [_task(db, task) for task in shown]
    people = db.execute('SELECT name, role FROM people ORDER BY id').fetchall()
  with atomic_folder(folder, all_hosts=False) as partial:
    for name, entries in lists.items():
      write_json(partial / name, entries)
    _write_lines(partial / VOTES, votes)
    _write_lines(partial / TASKS, tasks)
    write_json(partial / QUESTIONS, rubric_to_json(settings.rubric))
    write_json(
      partial / PROJECT,
      {
        'format': FORMAT,
        'raters_per_clip': settings.raters_per_clip,
        'gold_rate': settings.gold_rate,
        'lease_seconds': settings.lease_seconds,
        'people': [{'name': name, 'role': role} for name, role in people],
      },
    )
  return {name: len(entries) for name, entries in lists.items()} | {
    VOTES: len(votes),
    TASKS: len(tasks),
  }


def half_of(caption: str) -> int:
  """1 or 2: which half of the prompts a caption is in, by its hash.

  All clips of a prompt are in one half, and stay there.
  """
  digest = hashlib.sha256(normalize_caption(caption).encode()).digest()
  return 1 + (digest[0] & 1)


def _settled_clip(
  db: sqlite3.Connection, settings: Settings, task: Task
) -> Iterator[dict[str, Any]]:
  """The HRA entries of a clip: its settled label in each dimension."""
  (clip,) = _clips(db, task)
  votes = settling.counts(db, task.id)
  for dimension, (label, reason) in settling.settled(db, task).items():
    yield conversation(
      clip['video'],
      clip['caption'],
      settings.rubric.questions[dimension],
      label,
      reason,
      votes.get(dimension),
    )


def _pairs(db: sqlite3.Connection, task: Task) -> Iterator[PairRecord]:
  """One record for each comparison, or one for a lead's decision."""
  first, second = (clip['video'] for clip in _clips(db, task))
  decided = settling.decisions(db, task.id)
  settled = settling.settled(db, task)
  if decided and OVERALL in settled:
    labels = {name: label for name, (label, _) in settled.items()}
    yield _pair(task, first, second, labels, '', {})
    return
  answers = db.execute(
    'SELECT id, name, seconds, time FROM '
    '(SELECT answers.id, name, seconds, time, answers.rowid AS number '
    'FROM answers JOIN people ON person = people.id '
    "WHERE task = ? AND is_current AND skip = '') ORDER BY time, number",
    (task.id,),
  ).fetchall()
  for answer, name, seconds, time in answers:
    votes = db.execute(
      'SELECT dimension, label, reason FROM votes WHERE answer = ?', (answer,)
    ).fetchall()
    reasons = {dimension: reason for dimension, _, reason in votes if reason}
    other = {'seconds': seconds, 'time': time, 'reasons': reasons}
    labels = {dimension: label for dimension, label, _ in votes}
    yield _pair(task, first, second, labels, name, other)


def _pair(
  task: Task,
  first: str,
  second: str,
  labels: dict[str, str],
  rater: str,
  other: dict[str, Any],
) -> PairRecord:
  preferences = {name: PREFERENCES[label] for name, label in labels.items()}
  return PairRecord(
    caption=task.caption,
    videos=(first, second),
    paths=(pathlib.Path(first), pathlib.Path(second)),
    overall=preferences.pop(OVERALL),
    dimensions=preferences,
    rater=rater,
    other=other,
    where='',
  )


def _clips(db: sqlite3.Connection, task: Task) -> list[dict[str, str]]:
  """Video and caption of each clip of a task, in canonical order."""
  found = []
  for clip in task.clips:
    ((video, caption),) = db.execute(
      'SELECT video, caption FROM clips WHERE id = ?', (clip,)
    )
    found.append({'video': video, 'caption': caption})
  return found


def _votes(db: sqlite3.Connection) -> Iterator[dict[str, Any]]:
  """A line for each vote and for each skip, in the order of saving.

  "clip" is the path of a clip, or a list of the paths of a pair.
  """
  rows = db.execute(
    'SELECT answers.id, name, first.video, second.video, first.caption, '
    'skip, dimension, label, reason, seconds, time '
    'FROM answers JOIN people ON person = people.id '
    'JOIN tasks ON task = tasks.id '
    'JOIN clips AS first ON first.id = tasks.first '
    'LEFT JOIN clips AS second ON second.id = tasks.second '
    'LEFT JOIN votes ON votes.answer = answers.id WHERE is_current '
    'ORDER BY time, answers.rowid, votes.rowid'
  )
  for answer, rater, first, second, caption, skip, *vote, seconds, time in rows:
    dimension, label, reason = vote
    line = {
      'rater': rater,
      'clip': first if second is None else [first, second],
      'caption': caption,
    }
    if skip:
      line['skip'] = skip
    else:
      line |= {'dimension': dimension, 'label': label, 'reason': reason}
    yield line | {'seconds': seconds, 'time': time, 'answer': answer}


def _task(db: sqlite3.Connection, task: Task) -> dict[str, Any]:
  ((category, priority, extra),) = db.execute(
    'SELECT category, priority, extra FROM tasks WHERE id = ?', (task.id,)
  )
  gold = db.execute(
    'SELECT dimension, label, reason FROM gold WHERE task = ? ORDER BY rowid',
    (task.id,),
  )
  critic = db.execute(
    'SELECT dimension, label, reason FROM critic_votes WHERE task = ? '
    'ORDER BY rowid',
    (task.id,),
  )
  decisions = db.execute(
    'SELECT dimension, label, reason, name, time FROM decisions '
    'JOIN people ON people.id = person WHERE task = ? '
    'ORDER BY decisions.rowid',
    (task.id,),
  )
  rating = ('dimension', 'label', 'reason')
  return {
    'clips': [clip['video'] for clip in _clips(db, task)],
    'caption': task.caption,
    'category': category,
    'priority': priority,
    'extra': extra,
    'gold': _objects(rating, gold),
    CRITIC: _objects(rating, critic),
    'decisions': _objects((*rating, 'lead', 'time'), decisions),
  }


def _objects(
  keys: tuple[str, ...], rows: Iterable[tuple[Any, ...]]
) -> list[dict[str, Any]]:
  return [dict(zip(keys, row, strict=True)) for row in rows]


def _write_lines(path: pathlib.Path, items: Iterable[dict[str, Any]]) -> None:
  text = ''.join(json.dumps(item, ensure_ascii=False) + '\n' for item in items)
  write_text(path, text)
