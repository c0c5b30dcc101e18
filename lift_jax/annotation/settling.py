"""Settled ratings: a lead's decision, or else the majority of the votes."""

import collections
from collections.abc import Iterator, Sequence
import sqlite3

from lift_jax.annotation.entities import CRITIC, PAIR_LABELS, Task, Vote
from lift_jax.data import rubric as rubric_lib
from lift_jax.data.rubric import Rubric
from lift_jax.errors import UserError


def majority(labels: Sequence[str], order: Sequence[str]) -> str:
  """The label of most votes; in a tie the worse one, of a pair 'same'.

  Args:
    labels: of the votes, at least one.
    order: all labels, from the best to the worst.
  """
  if not labels:
    raise UserError('no labels to vote on; rate the clip first')
  if tuple(order) == PAIR_LABELS:
    # Neither clip of a pair is the worse label.
    most = max(labels.count(label) for label in order)
    winners = [label for label in order if labels.count(label) == most]
    return winners[0] if len(winners) == 1 else 'same'
  return rubric_lib.majority(labels, order)


def votes(db: sqlite3.Connection, task: str) -> Iterator[tuple[str, Vote]]:
  """Yields the votes of a task by dimension; those of a critic come last."""
  rows = db.execute(
    'SELECT dimension, name, label, reason, seconds, time '
    'FROM votes JOIN answers ON answer = answers.id '
    'JOIN people ON person = people.id '
    'WHERE task = ? AND is_current ORDER BY time, answers.rowid, votes.rowid',
    (task,),
  )
  for dimension, *vote in rows.fetchall():
    yield dimension, Vote(*vote)
  rows = db.execute(
    'SELECT dimension, label, reason FROM critic_votes WHERE task = ?', (task,)
  )
  for dimension, label, reason in rows.fetchall():
    yield dimension, Vote(CRITIC, label, reason, 0.0, 0.0)


def disputed(
  db: sqlite3.Connection, rubric: Rubric, decided: bool
) -> list[str]:
  """Ids of tasks whose votes differ, the widest gaps between labels first.

  Args:
    db: in a transaction.
    rubric: of the project.
    decided: tasks that a lead has settled, or those that none has.
  """
  ranks = {label: rank for rank, label in enumerate(rubric.labels)}
  ranks |= {label: rank for rank, label in enumerate(PAIR_LABELS)}
  gaps, order = {}, {}
  rows = db.execute(
    """
    WITH labels AS (
      SELECT task, dimension, label FROM votes JOIN answers ON answer = id
      WHERE is_current
      UNION SELECT task, dimension, label FROM critic_votes)
    SELECT task, rank, group_concat(label, char(10)) FROM labels
    JOIN tasks ON id = task
    WHERE task NOT IN (SELECT task FROM gold)
      AND (task IN (SELECT task FROM decisions)) = ?
    GROUP BY task, dimension HAVING count(DISTINCT label) > 1
    """,
    (decided,),
  )
  for task, rank, labels in rows:
    found = [ranks[label] for label in labels.split('\n')]
    gaps[task] = max(gaps.get(task, 0), max(found) - min(found))
    order[task] = rank
  return sorted(gaps, key=lambda task: (-gaps[task], order[task]))


def decisions(db: sqlite3.Connection, task: str) -> dict[str, tuple[str, str]]:
  """The labels and reasons by which a lead settled a task, by dimension."""
  rows = db.execute(
    'SELECT dimension, label, reason FROM decisions WHERE task = ?', (task,)
  )
  return {dimension: (label, reason) for dimension, label, reason in rows}


def counts(db: sqlite3.Connection, task: str) -> dict[str, dict[str, int]]:
  """How many people chose each label, by dimension.

  Dimensions that a lead settled, and those with one vote, are omitted.
  """
  decided, labels = decisions(db, task), collections.defaultdict(list)
  for dimension, vote in votes(db, task):
    if vote.rater != CRITIC and dimension not in decided:
      labels[dimension].append(vote.label)
  return {
    dimension: dict(collections.Counter(chosen))
    for dimension, chosen in labels.items()
    if len(chosen) > 1
  }


def settled(db: sqlite3.Connection, task: Task) -> dict[str, tuple[str, str]]:
  """Label and reason of a task in each dimension that has one.

  The reason is the first one that was given with the label, unless the lead
  gave one.
  """
  given = {name: [] for name in task.dimensions}
  for dimension, vote in votes(db, task.id):
    if vote.rater != CRITIC:
      given[dimension].append(vote)
  decided, found = decisions(db, task.id), {}
  for dimension, own in given.items():
    if dimension in decided:
      label, reason = decided[dimension]
    elif own:
      label, reason = majority([vote.label for vote in own], task.labels), ''
    else:
      continue
    reasons = [v.reason for v in own if v.label == label and v.reason]
    found[dimension] = label, reason or (reasons[0] if reasons else '')
  return found
