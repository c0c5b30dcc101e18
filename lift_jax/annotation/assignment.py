"""Which task a person rates next: leases, balance, gold tasks."""

import dataclasses
import math
import random
import sqlite3

# Tasks that want more people. As many skips as people are wanted take one out.
_OPEN = """
  broken = '' AND NOT is_gold
  AND taken < :wanted + extra AND skips < :wanted + extra
"""
# Tasks that a person has answered, skipped or leased.
_OWN = """
  SELECT task FROM answers WHERE person = :person AND is_current
  UNION SELECT task FROM leases WHERE person = :person
"""


@dataclasses.dataclass(frozen=True)
class Rules:
  """How tasks are given out; see `store.Settings`.

  Attributes:
    raters_per_clip: people wanted for each task.
    gold_rate: share of gold tasks.
    lease_seconds: length of a lease.
    seed: of the positions of gold tasks; people must not know it.
  """

  raters_per_clip: int
  gold_rate: float
  lease_seconds: float
  seed: str


def lease(
  db: sqlite3.Connection, person: int, limit: int, rules: Rules, now: float
) -> list[str]:
  """Leases up to `limit` tasks to a person, and renews earlier leases.

  A task comes from the category of which the smallest share is rated or
  leased. There the highest priority comes first, then a task that others have
  begun, then a random order.

  Args:
    db: in a transaction.
    person: id.
    limit: most tasks.
    rules: how to choose.
    now: seconds since 1970.

  Returns:
    Ids of the tasks, those leased first before others.
  """
  # An expired lease of this person is renewed, unless somebody came for work
  # since it expired.
  db.execute(
    'DELETE FROM leases WHERE expires < ? AND person != ?', (now, person)
  )
  held = [
    task
    for (task,) in db.execute(
      "SELECT task FROM leases JOIN tasks ON id = task WHERE broken = '' "
      'AND person = ? ORDER BY leases.rowid',
      (person,),
    )
  ]
  expires = now + rules.lease_seconds
  db.execute(
    'UPDATE leases SET expires = ? WHERE person = ?', (expires, person)
  )
  while len(held) < limit:
    task = _choose(db, person, rules)
    if task is None:
      break
    db.execute('INSERT INTO leases VALUES (?, ?, ?)', (task, person, expires))
    held.append(task)
  return held[:limit]


def _choose(db: sqlite3.Connection, person: int, rules: Rules) -> str | None:
  """A task that the person has neither answered nor leased."""
  regular = _choose_regular(db, person, rules)
  if regular and rules.gold_rate and _is_turn_of_gold(db, person, rules):
    return _choose_gold(db, person) or regular
  return regular


def _choose_regular(
  db: sqlite3.Connection, person: int, rules: Rules
) -> str | None:
  names = {'person': person, 'wanted': rules.raters_per_clip}
  categories = db.execute(
    """
    SELECT category FROM tasks WHERE broken = '' AND NOT is_gold
      AND skips < :wanted + extra
    GROUP BY category HAVING min(taken - extra) < :wanted
    ORDER BY sum(min(taken, :wanted + extra)) * 1.0 / sum(:wanted + extra),
      category
    """,
    names,
  ).fetchall()
  for (category,) in categories:
    row = db.execute(
      f"""
      SELECT id FROM tasks
      WHERE category = :category AND {_OPEN} AND id NOT IN ({_OWN})
      ORDER BY priority DESC, taken DESC, rank LIMIT 1
      """,
      names | {'category': category},
    ).fetchone()
    if row:
      return row[0]
  return None


def _is_turn_of_gold(db: sqlite3.Connection, person: int, rules: Rules) -> bool:
  """True once in each block of tasks of a person, at a random position."""
  ((done,),) = db.execute(
    'SELECT (SELECT count(*) FROM answers WHERE person = :person AND '
    'is_current) + (SELECT count(*) FROM leases WHERE person = :person)',
    {'person': person},
  )
  size = round(1 / rules.gold_rate)
  block, position = divmod(done, size)
  rng = random.Random(f'{rules.seed} {person} {block}')
  return position == rng.randrange(size)


def _choose_gold(db: sqlite3.Connection, person: int) -> str | None:
  row = db.execute(
    f"""
    SELECT id FROM tasks
    WHERE broken = '' AND is_gold AND id NOT IN ({_OWN})
    ORDER BY rank LIMIT 1
    """,
    {'person': person},
  ).fetchone()
  return row[0] if row else None


def counts(
  db: sqlite3.Connection, person: int, raters_per_clip: int, gold_rate: float
) -> tuple[int, int]:
  """How many tasks a person has answered, and how many are left.

  What is left is computed from the other tasks alone and from the rate, so
  that it falls by one with each answer, also to a gold task. The difference
  would betray these otherwise.
  """
  names = {'person': person, 'wanted': raters_per_clip}
  ((open_tasks, gold),) = db.execute(
    f"""
    SELECT (SELECT count(*) FROM tasks WHERE {_OPEN}),
      (SELECT count(*) FROM tasks WHERE is_gold)
    """,
    names,
  )
  ((own_open, answered, answered_gold, leased),) = db.execute(
    f"""
    SELECT
      (SELECT count(*) FROM ({_OWN}) JOIN tasks ON id = task WHERE {_OPEN}),
      count(*), total(is_gold),
      (SELECT count(*) FROM leases JOIN tasks ON id = task
        WHERE person = :person AND NOT is_gold)
    FROM answers JOIN tasks ON tasks.id = task
    WHERE person = :person AND is_current
    """,
    names,
  )
  left = open_tasks - own_open
  regular = left + leased + answered - int(answered_gold)
  expected = math.ceil(regular * gold_rate / (1 - gold_rate))
  total = regular + min(gold, expected)
  return answered, max(total - answered, 0)
