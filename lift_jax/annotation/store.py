"""The annotation store: people, clips, tasks, answers and decisions."""

from collections.abc import Iterable, Mapping, Sequence
import math
import pathlib
import re
import secrets
import statistics
import time
from typing import Self

from lift_jax.annotation import assignment, checks, settling, tables
from lift_jax.annotation.database import Database
from lift_jax.annotation.entities import (
  LEAD,
  PAIR_LABELS,
  Answer,
  Disagreement,
  GivenAnswer,
  GuidelineExample,
  Pace,
  Person,
  Setback,
  Settings,
  Task,
)
from lift_jax.annotation.tables import ConflictError, NotFoundError
from lift_jax.data.clip_paths import ClipFolder
from lift_jax.data.json_records import RecordError
from lift_jax.errors import UserError

# Of the file in a workdir.
NAME = 'annotations.sqlite'

_ANSWER_ID = re.compile(r'[A-Za-z0-9_-]{16,64}')
_RECENT = 20  # answers that the pace is measured on


class Store:
  """One annotation project, in one file; methods may be called by any thread.

  What a method has saved when it returns is on disk. All methods raise
  `database.StorageError` if the disk is full, and then have saved nothing.
  """

  def __init__(self, database: Database, path: pathlib.Path):
    self.database = database
    self.path = path

  @classmethod
  def create(cls, workdir: pathlib.Path, settings: Settings) -> Self:
    """Opens the project of a workdir with these settings, or makes it."""
    path = workdir / NAME
    store = cls(Database(path), path)
    store.set_settings(settings)
    return store

  @classmethod
  def open(cls, workdir: pathlib.Path) -> Self:
    """Opens the project of a workdir.

    Raises:
      UserError: there is none.
    """
    path = workdir / NAME
    if not path.is_file():
      raise UserError(
        f'--workdir={workdir}: no {NAME}; start the project there with lift '
        'annotate --config=FILE.py'
      )
    return cls(Database(path), path)

  def close(self) -> None:
    self.database.close()

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *_) -> None:
    self.close()

  # Settings

  @property
  def settings(self) -> Settings:
    with self.database.reading() as db:
      return tables.get_settings(db)

  def set_settings(self, settings: Settings) -> None:
    """Replaces the settings.

    Raises:
      UserError: there are votes that the new rubric has no dimension or label
        for.
    """
    with self.database.transaction() as db:
      tables.check_votes(db, settings.rubric)
      tables.set_settings(db, settings)
      if tables.get_setting(db, 'seed') is None:
        tables.set_setting(db, 'seed', secrets.token_hex(16))

  # People

  def add_person(self, name: str, role: str) -> Person:
    """Adds a person, or gives an existing one the role.

    Args:
      name: unique; one line.
      role: `entities.RATER` or `entities.LEAD`.
    """
    with self.database.transaction() as db:
      number = tables.add_person(db, name, role)
    return Person(number, checks.clean_name(name), role)

  def people(self) -> list[Person]:
    """Everybody, in the order of joining."""
    with self.database.reading() as db:
      rows = db.execute('SELECT id, name, role FROM people ORDER BY id')
      return [Person(*row) for row in rows]

  def issue_token(self, person: int) -> str:
    """A new token of a person's link; earlier ones remain valid.

    Only its hash is stored, so it cannot be shown again.
    """
    token = secrets.token_urlsafe(32)
    with self.database.transaction() as db:
      db.execute(
        'INSERT INTO tokens (hash, person) VALUES (?, ?)',
        (tables.sha256(token), person),
      )
    return token

  def revoke_tokens(self, person: int) -> int:
    """Revokes all links of a person; returns how many."""
    with self.database.transaction() as db:
      return db.execute(
        'UPDATE tokens SET revoked = 1 WHERE person = ? AND NOT revoked',
        (person,),
      ).rowcount

  def linked_people(self) -> set[int]:
    """Ids of the people who have a valid link."""
    with self.database.reading() as db:
      rows = db.execute('SELECT person FROM tokens WHERE NOT revoked')
      return {person for (person,) in rows}

  def person_of_token(self, token: str) -> Person | None:
    """Who a token belongs to; None if it is unknown or revoked."""
    with self.database.reading() as db:
      row = db.execute(
        'SELECT id, name, role FROM people JOIN tokens ON person = id '
        'WHERE hash = ? AND NOT revoked',
        (tables.sha256(token),),
      ).fetchone()
    return Person(*row) if row else None

  # Clips and tasks

  def add_clip(self, video: str, caption: str) -> str:
    """Adds a clip without a task; returns its id."""
    with self.database.transaction() as db:
      return tables.add_clip(db, video, caption)

  def add_task(
    self, clips: Sequence[tuple[str, str]], category: str = ''
  ) -> str:
    """Adds a clip to rate, or a pair to compare; returns the id of the task.

    A task that exists gets the category, if one is given.

    Args:
      clips: video (path below the root) and caption of one or two clips.
      category: group of the prompt, over which work is balanced.
    """
    return self.add_tasks([(clips, category)])[0]

  def add_tasks(
    self, tasks: Iterable[tuple[Sequence[tuple[str, str]], str]]
  ) -> list[str]:
    """Adds tasks as `add_task` does, all or none; returns their ids."""
    with self.database.transaction() as db:
      return [tables.add_task(db, clips, category) for clips, category in tasks]

  def set_gold(self, task: str, ratings: Mapping[str, tuple[str, str]]) -> None:
    """Makes a task a gold one, whose right labels are known.

    Args:
      task: id.
      ratings: right label and its reason, by dimension; those of a pair are
        from the view of its first clip.
    """
    with self.database.transaction() as db:
      shown = tables.get_task(db, tables.get_settings(db), task)
      labels = {name: label for name, (label, _) in ratings.items()}
      checks.check_labels(shown, labels, part=True)
      tables.set_gold(db, task, ratings)

  def count_tasks(self) -> int:
    with self.database.reading() as db:
      ((number,),) = db.execute('SELECT count(*) FROM tasks')
    return number

  def set_priorities(self, priorities: Mapping[str, float]) -> None:
    """Sets the priority of tasks by id, and of all others to 0."""
    with self.database.transaction() as db:
      db.execute('UPDATE tasks SET priority = 0')
      db.executemany(
        'UPDATE tasks SET priority = ? WHERE id = ?',
        [(value, task) for task, value in priorities.items()],
      )

  def clip_path(self, clip: str) -> pathlib.Path:
    """The file of a clip, for serving it.

    If it is missing or may not be read, tasks with the clip are flagged as
    broken and given to nobody.

    Raises:
      NotFoundError: an unknown id, or no such file.
    """
    with self.database.reading() as db:
      settings = tables.get_settings(db)
      row = db.execute(
        'SELECT video FROM clips WHERE id = ?', (clip,)
      ).fetchone()
    if row is None:
      raise NotFoundError(f'no clip {clip[:64]!r} in this project')
    try:
      folder = ClipFolder.open(settings.root, settings.follow_links)
    except UserError as error:
      raise NotFoundError(str(error)) from error
    try:
      return folder.find(row[0], require_file=True)[1]
    except RecordError as error:
      with self.database.transaction() as db:
        tables.flag_broken(db, clip, str(error))
      raise NotFoundError(f'clip {clip}: {error}') from error

  def check_clips(self) -> list[str]:
    """Flags tasks whose clips are missing as broken, and unflags others.

    Returns:
      What is wrong, for each missing clip.
    """
    with self.database.reading() as db:
      settings = tables.get_settings(db)
      clips = db.execute('SELECT id, video FROM clips').fetchall()
    folder = ClipFolder.open(settings.root, settings.follow_links)
    problems = {}
    for clip, video in clips:
      try:
        folder.find(video, require_file=True)
      except RecordError as error:
        problems[clip] = str(error)
    with self.database.transaction() as db:
      db.execute("UPDATE tasks SET broken = '' WHERE broken != ''")
      for clip, problem in problems.items():
        tables.flag_broken(db, clip, problem)
    return list(problems.values())

  def task(self, person: int, task: str) -> Task:
    """A task as a person sees it.

    Raises:
      NotFoundError: an unknown id.
    """
    with self.database.reading() as db:
      return tables.shown_task(db, tables.get_settings(db), person, task)

  def examples(self) -> list[GuidelineExample]:
    """Example clips of the guideline, in the order of the rubric."""
    with self.database.reading() as db:
      rubric = tables.get_settings(db).rubric
      clips = dict(db.execute('SELECT video, id FROM clips'))
    return [
      GuidelineExample(dimension, label, clips[video])
      for dimension in rubric.dimensions
      for label in rubric.labels
      for video in rubric.examples.get(dimension, {}).get(label, ())
      if video in clips
    ]

  # Rating

  def next_tasks(self, person: int, limit: int = 2) -> list[Task]:
    """The tasks that a person rates next, and leases them to the person.

    Until it is answered or its lease has expired, a task is also returned by
    the next call, first, and counts as taken for others.

    Args:
      person: id.
      limit: most tasks; the second is for loading its clip beforehand.

    Returns:
      The tasks in order; empty if none is left for this person.
    """
    with self.database.transaction() as db:
      settings = tables.get_settings(db)
      ids = assignment.lease(
        db,
        person,
        limit,
        assignment.Rules(
          settings.raters_per_clip,
          settings.gold_rate,
          settings.lease_seconds,
          tables.get_setting(db, 'seed'),
        ),
        time.time(),
      )
      return [tables.shown_task(db, settings, person, task) for task in ids]

  def save_answer(self, person: int, answer: Answer) -> None:
    """Saves an answer or a skip; it is on disk when this returns.

    An answer whose id was saved already has no effect.

    Raises:
      UserError: a bad label or text; the message is for the person.
      NotFoundError: an unknown task.
      ConflictError: the person has another answer to this task than
        `answer.replaces`, such as one from another tab.
    """
    if not _ANSWER_ID.fullmatch(answer.id):
      raise UserError('the id of the answer is malformed; reload the page')
    if not (math.isfinite(answer.seconds) and answer.seconds >= 0):
      raise UserError('the time of the answer is no number; reload the page')
    with self.database.transaction() as db:
      settings = tables.get_settings(db)
      row = db.execute(
        'SELECT person, task FROM answers WHERE id = ?', (answer.id,)
      ).fetchone()
      if row == (person, answer.task):
        return
      if row:
        raise ConflictError(
          f'the id of the answer {answer.id} is in use; reload the page'
        )
      task = tables.get_task(db, settings, answer.task)
      checks.check_answer(task, answer)
      row = db.execute(
        'SELECT id FROM answers WHERE task = ? AND person = ? AND is_current',
        (answer.task, person),
      ).fetchone()
      if (row[0] if row else '') != answer.replaces:
        raise ConflictError(
          'you have answered this clip in another window; reload the page to '
          'see that answer'
        )
      swap = tables.is_swapped(db, person, task)
      db.execute(
        'UPDATE answers SET is_current = 0 WHERE id = ?', (answer.replaces,)
      )
      tables.insert_answer(db, person, answer, swap, time.time())
      db.execute(
        'DELETE FROM leases WHERE task = ? AND person = ?',
        (answer.task, person),
      )

  def recent_answers(self, person: int, limit: int = 10) -> list[GivenAnswer]:
    """A person's last answers and skips, the newest first."""
    with self.database.reading() as db:
      settings = tables.get_settings(db)
      rows = db.execute(
        'SELECT id, task, skip, seconds, time FROM answers '
        'WHERE person = ? AND is_current ORDER BY time DESC, rowid DESC '
        'LIMIT ?',
        (person, limit),
      ).fetchall()
      return [tables.given_answer(db, settings, person, *row) for row in rows]

  def pace(self, person: int) -> Pace:
    """How far a person is."""
    with self.database.reading() as db:
      settings = tables.get_settings(db)
      answered, left = assignment.counts(
        db, person, settings.raters_per_clip, settings.gold_rate
      )
      seconds = [
        value
        for (value,) in db.execute(
          'SELECT seconds FROM answers WHERE person = ? AND is_current '
          'ORDER BY time DESC LIMIT ?',
          (person, _RECENT),
        )
      ]
    median = statistics.median(seconds) if seconds else None
    return Pace(answered, left, median)

  def suggest_reasons(
    self, dimension: str, label: str, limit: int
  ) -> list[str]:
    """Reasons that people gave for a label, the most frequent first.

    Args:
      dimension: of the label.
      label: of a clip; for one of a pair, reasons for the opposite label are
        among them, as others see the clips in the other order.
      limit: most reasons.
    """
    is_pair = label in PAIR_LABELS
    opposite = tables.swapped_label(label) if is_pair else label
    with self.database.reading() as db:
      rows = db.execute(
        'SELECT reason FROM votes JOIN answers ON answer = id '
        "WHERE dimension = ? AND label IN (?, ?) AND reason != '' "
        'AND is_current AND length(reason) <= 200 '
        'GROUP BY reason ORDER BY count(*) DESC, max(time) DESC LIMIT ?',
        (dimension, label, opposite, limit),
      )
      return [reason for (reason,) in rows]

  # Leads

  def disagreements(
    self, limit: int = 20, offset: int = 0, decided: bool = False
  ) -> list[Disagreement]:
    """Tasks whose votes differ, those with the widest gaps first.

    Gold tasks are not among them.

    Args:
      limit: most of them.
      offset: how many to skip.
      decided: those that a lead has settled, or those that none has.
    """
    with self.database.reading() as db:
      settings = tables.get_settings(db)
      found = settling.disputed(db, settings.rubric, decided)
      return [
        tables.disagreement(db, settings, task)
        for task in found[offset : offset + limit]
      ]

  def disagreement(self, task: str) -> Disagreement:
    """A task with all its votes, whether they differ or not.

    Raises:
      NotFoundError: an unknown id.
    """
    with self.database.reading() as db:
      return tables.disagreement(db, tables.get_settings(db), task)

  def settle(
    self, lead: int, task: str, ratings: Mapping[str, tuple[str, str]]
  ) -> None:
    """Settles a task: in these dimensions, a lead's label counts.

    Doing so again replaces the decision.

    Args:
      lead: id of the person.
      task: id of the task.
      ratings: label and reason by dimension; of a pair from the view of the
        first clip of `Disagreement.task`.

    Raises:
      UserError: a bad label or text, or the person is no lead.
    """
    with self.database.transaction() as db:
      row = db.execute(
        'SELECT role FROM people WHERE id = ?', (lead,)
      ).fetchone()
      if row != (LEAD,):
        raise UserError('only a lead settles ratings; ask one for the role')
      shown = tables.get_task(db, tables.get_settings(db), task)
      checks.check_labels(
        shown, {name: label for name, (label, _) in ratings.items()}, part=True
      )
      for name, (_, reason) in ratings.items():
        checks.check_text(reason, f'the reason for {name}', checks.MAX_REASON)
      tables.decide(db, task, lead, ratings, time.time())

  def setbacks(self, limit: int = 100) -> list[Setback]:
    """Tasks that were skipped or are broken; broken ones first."""
    with self.database.reading() as db:
      settings = tables.get_settings(db)
      rows = db.execute(
        'SELECT tasks.id, broken FROM tasks LEFT JOIN answers '
        "ON task = tasks.id AND is_current AND skip != '' "
        "WHERE broken != '' OR skip IS NOT NULL "
        "GROUP BY tasks.id ORDER BY broken = '', count(skip) DESC, rank "
        'LIMIT ?',
        (limit,),
      ).fetchall()
      return [
        Setback(
          tables.get_task(db, settings, task),
          dict(
            db.execute(
              'SELECT skip, count(*) FROM answers WHERE task = ? '
              "AND is_current AND skip != '' GROUP BY skip",
              (task,),
            )
          ),
          broken,
        )
        for task, broken in rows
      ]
