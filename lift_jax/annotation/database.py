"""The embedded database of an annotation project: schema and transactions."""

from collections.abc import Iterator, Sequence
import contextlib
import pathlib
import sqlite3
import threading

from lift_jax.errors import UserError

# The script at index N leads from version N of the schema to N + 1. Scripts of
# released versions never change; a change of the schema is a new script.
MIGRATIONS = (
  """
  CREATE TABLE settings (
    key TEXT PRIMARY KEY,
    value TEXT NOT NULL  -- JSON
  );
  CREATE TABLE people (
    id INTEGER PRIMARY KEY,
    name TEXT NOT NULL UNIQUE,
    role TEXT NOT NULL CHECK (role IN ('rater', 'lead'))
  );
  CREATE TABLE tokens (
    hash BLOB PRIMARY KEY,  -- SHA-256; the token itself is not stored
    person INTEGER NOT NULL REFERENCES people,
    revoked INTEGER NOT NULL DEFAULT 0
  );
  CREATE TABLE clips (
    id TEXT PRIMARY KEY,
    video TEXT NOT NULL,  -- path below the data root
    caption TEXT NOT NULL,
    UNIQUE (video, caption)
  );
  CREATE TABLE tasks (
    id TEXT PRIMARY KEY,
    first TEXT NOT NULL REFERENCES clips,
    second TEXT REFERENCES clips,  -- of a pair
    category TEXT NOT NULL DEFAULT '',
    priority REAL NOT NULL DEFAULT 0,  -- higher ones are rated first
    rank INTEGER NOT NULL,  -- random order of equal priorities
    extra INTEGER NOT NULL DEFAULT 0,  -- raters beyond those of every task
    broken TEXT NOT NULL DEFAULT '',  -- what is wrong with a clip
    is_gold INTEGER NOT NULL DEFAULT 0,
    -- Kept by the triggers below, so that a task is chosen fast.
    taken INTEGER NOT NULL DEFAULT 0,  -- answers and leases
    skips INTEGER NOT NULL DEFAULT 0
  );
  CREATE INDEX task_order ON tasks (
    category, priority DESC, taken DESC, rank);
  CREATE INDEX task_first ON tasks (first);
  CREATE INDEX task_second ON tasks (second);
  CREATE TABLE gold (
    task TEXT NOT NULL REFERENCES tasks,
    dimension TEXT NOT NULL,
    label TEXT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (task, dimension)
  );
  CREATE TABLE leases (
    task TEXT NOT NULL REFERENCES tasks,
    person INTEGER NOT NULL REFERENCES people,
    expires REAL NOT NULL,
    PRIMARY KEY (task, person)
  );
  CREATE TABLE answers (
    id TEXT PRIMARY KEY,  -- made by the client
    task TEXT NOT NULL REFERENCES tasks,
    person INTEGER NOT NULL REFERENCES people,
    skip TEXT NOT NULL,  -- cause, or ''
    seconds REAL NOT NULL,
    time REAL NOT NULL,
    is_current INTEGER NOT NULL  -- 0: replaced by a correction
  );
  CREATE UNIQUE INDEX current_answer ON answers (task, person)
    WHERE is_current;
  CREATE INDEX answer_of_person ON answers (person, time);
  CREATE TRIGGER answer_added AFTER INSERT ON answers WHEN NEW.is_current BEGIN
    UPDATE tasks SET taken = taken + (NEW.skip = ''),
      skips = skips + (NEW.skip != '') WHERE id = NEW.task;
  END;
  CREATE TRIGGER answer_replaced AFTER UPDATE OF is_current ON answers
  WHEN OLD.is_current > NEW.is_current BEGIN
    UPDATE tasks SET taken = taken - (NEW.skip = ''),
      skips = skips - (NEW.skip != '') WHERE id = NEW.task;
  END;
  CREATE TRIGGER lease_added AFTER INSERT ON leases BEGIN
    UPDATE tasks SET taken = taken + 1 WHERE id = NEW.task;
  END;
  CREATE TRIGGER lease_ended AFTER DELETE ON leases BEGIN
    UPDATE tasks SET taken = taken - 1 WHERE id = OLD.task;
  END;
  CREATE TABLE votes (
    answer TEXT NOT NULL REFERENCES answers,
    dimension TEXT NOT NULL,
    label TEXT NOT NULL,  -- of a pair: its first clip against the second
    reason TEXT NOT NULL,
    PRIMARY KEY (answer, dimension)
  );
  CREATE INDEX vote_label ON votes (dimension, label);
  CREATE TABLE critic_votes (
    task TEXT NOT NULL REFERENCES tasks,
    dimension TEXT NOT NULL,
    label TEXT NOT NULL,
    reason TEXT NOT NULL,
    PRIMARY KEY (task, dimension)
  );
  CREATE TABLE decisions (
    task TEXT NOT NULL REFERENCES tasks,
    dimension TEXT NOT NULL,
    label TEXT NOT NULL,
    reason TEXT NOT NULL,
    person INTEGER NOT NULL REFERENCES people,
    time REAL NOT NULL,
    PRIMARY KEY (task, dimension)
  );
  """,
)

# Other processes, such as `lift annotate export`, hold the file for less.
_BUSY_SECONDS = 30

_WRITE_ERRORS = (
  sqlite3.SQLITE_FULL,
  sqlite3.SQLITE_IOERR,
  sqlite3.SQLITE_READONLY,
  sqlite3.SQLITE_CANTOPEN,
)


class StorageError(UserError):
  """Nothing was saved, as the file cannot be written: often a full disk."""


class Database:
  """A connection that the threads of one process share.

  A transaction that has ended is on disk: also after a loss of power.
  """

  def __init__(
    self, path: pathlib.Path, migrations: Sequence[str] = MIGRATIONS
  ):
    """Opens the file, creates it if it is missing, and migrates its schema.

    Raises:
      UserError: the file is of a newer version, or is not a database.
    """
    self._path = path
    self._lock = threading.RLock()
    with self._naming():
      self._connection = sqlite3.connect(
        path,
        timeout=_BUSY_SECONDS,
        isolation_level=None,
        check_same_thread=False,
      )
    try:
      with self._naming():
        self._connection.execute('PRAGMA journal_mode = WAL')
        self._connection.execute('PRAGMA synchronous = FULL')
        self._connection.execute('PRAGMA foreign_keys = ON')
      self._migrate(migrations)
    except BaseException:
      self._connection.close()
      raise

  def _migrate(self, migrations: Sequence[str]) -> None:
    with self.transaction() as connection:
      ((version,),) = connection.execute('PRAGMA user_version')
      if version > len(migrations):
        raise UserError(
          f'{self._path}: version {version} of the schema, newer than '
          f'{len(migrations)} of this lift_jax; install a newer lift_jax'
        )
      for script in migrations[version:]:
        # Not `executescript`, which would commit first.
        for statement in _statements(script):
          connection.execute(statement)
      connection.execute(f'PRAGMA user_version = {len(migrations)}')

  def close(self) -> None:
    with self._lock:
      self._connection.close()

  @contextlib.contextmanager
  def transaction(self) -> Iterator[sqlite3.Connection]:
    """A transaction that may write: all of it is saved, or nothing.

    Raises:
      StorageError: it cannot be saved, and nothing of it was.
    """
    with self._lock, self._naming():
      self._connection.execute('BEGIN IMMEDIATE')
      try:
        yield self._connection
        self._connection.execute('COMMIT')
      except BaseException:
        if self._connection.in_transaction:
          self._connection.execute('ROLLBACK')
        raise

  @contextlib.contextmanager
  def reading(self) -> Iterator[sqlite3.Connection]:
    """A transaction that reads one state of the database."""
    with self._lock, self._naming():
      self._connection.execute('BEGIN')
      try:
        yield self._connection
      finally:
        if self._connection.in_transaction:
          self._connection.execute('ROLLBACK')

  @contextlib.contextmanager
  def _naming(self) -> Iterator[None]:
    """Turns errors that a user can fix into one line with the file."""
    try:
      yield
    except sqlite3.DatabaseError as error:
      code = getattr(error, 'sqlite_errorcode', 0) & 0xFF  # the primary code
      if code in _WRITE_ERRORS:
        raise StorageError(
          f'{self._path}: nothing was saved ({error}); make room or make the '
          'folder writable, then save again'
        ) from error
      if code == sqlite3.SQLITE_NOTADB or code == sqlite3.SQLITE_CORRUPT:
        raise UserError(
          f'{self._path}: not an annotation project, or damaged ({error}); '
          'restore it from a copy, or import an export into a new folder'
        ) from error
      if code == sqlite3.SQLITE_BUSY:
        raise StorageError(
          f'{self._path}: another program keeps it locked; end that program, '
          'then save again'
        ) from error
      raise


def _statements(script: str) -> Iterator[str]:
  """The statements of a script."""
  statement = ''
  for line in script.splitlines(keepends=True):
    statement += line
    if sqlite3.complete_statement(statement):
      yield statement
      statement = ''
