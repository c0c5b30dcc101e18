"""Quality of annotations: agreement, gold accuracy, and habits of raters.

The result is a tree of plain values, as of `evaluation.critic_evaluation`.
"""

import collections
from collections.abc import Sequence
import dataclasses
import itertools
import math
import sqlite3
import statistics
from typing import Any

import numpy as np

from lift_jax.annotation import tables
from lift_jax.annotation.entities import CLIP, OVERALL, PAIR, PAIR_LABELS
from lift_jax.annotation.settling import disputed
from lift_jax.annotation.store import Store
from lift_jax.errors import UserError
from lift_jax.evaluation import bootstrap
from lift_jax.evaluation.bootstrap import BootstrapConfig

# U clips or pairs, L labels, D resamples.

Tree = dict[str, Any]

# Levels of measurement; "ordinal" counts Good against Bad as the worse error.
LEVELS = ('ordinal', 'nominal')
BOOTSTRAP = BootstrapConfig(draws=500, coverage=0.95, seed=0)

_NORMAL_95 = 1.959964  # 97.5 % quantile of the normal distribution


@dataclasses.dataclass(frozen=True)
class _Label:
  """A label that somebody gave; see `entities.Vote`."""

  person: int
  task: str
  dimension: str
  label: str
  is_pair: bool
  is_gold: bool


def report(store: Store, config: BootstrapConfig = BOOTSTRAP) -> Tree:
  """Everything about the quality of a project.

  Returns:
    `raters`: a list, see `raters`. `agreement`: by kind ('clip', 'pair') and
    dimension, Krippendorff's alpha with its interval by level, and the number
    of tasks with two or more votes. `tasks`: numbers of tasks by state.
  """
  return {
    'raters': raters(store),
    'agreement': agreement(store, config),
    'tasks': tasks(store),
  }


def tasks(store: Store) -> Tree:
  """Numbers of tasks: all but gold ones, and those in each state."""
  with store.database.reading() as db:
    settings = tables.get_settings(db)
    ((total, complete, begun, broken, gold),) = db.execute(
      """
      WITH load AS (
        SELECT tasks.id, broken, :wanted + extra AS wanted,
          tasks.id IN (SELECT task FROM gold) AS is_gold,
          (SELECT count(*) FROM answers
            WHERE task = tasks.id AND is_current AND skip = '') AS num
        FROM tasks)
      SELECT count(*) FILTER (WHERE NOT is_gold),
        count(*) FILTER (WHERE NOT is_gold AND num >= wanted),
        count(*) FILTER (
          WHERE NOT is_gold AND num BETWEEN 1 AND wanted - 1),
        count(*) FILTER (WHERE NOT is_gold AND broken != ''),
        count(*) FILTER (WHERE is_gold)
      FROM load
      """,
      {'wanted': settings.raters_per_clip},
    )
    return {
      'total': total,
      'complete': complete,
      'begun': begun,
      'broken': broken,
      'gold': gold,
      'disputed': len(disputed(db, settings.rubric, False)),
      'decided': len(disputed(db, settings.rubric, True)),
    }


def raters(store: Store) -> list[Tree]:
  """What is known of each person who answered something.

  Returns:
    By person: `name`, `role`, `answers`, `skips`, `hours` and the median
    `seconds` of an answer, `agreement` (the share of labels of others for the
    same task and dimension that are equal), `gold` (share of right labels, with
    Wilson's interval at 95 %), and the share of each label by dimension. What
    is undefined is None. Gold tasks count for `gold`, times and numbers alone.
  """
  with store.database.reading() as db:
    settings = tables.get_settings(db)
    labels = _labels(db)
    gold = {
      (task, dimension): label
      for task, dimension, label in db.execute(
        'SELECT task, dimension, label FROM gold'
      )
    }
    times = collections.defaultdict(list)
    for person, skip, seconds in db.execute(
      'SELECT person, skip, seconds FROM answers WHERE is_current'
    ):
      times[person].append((bool(skip), seconds))
  by_subject = collections.defaultdict(list)
  for label in labels:
    if not label.is_gold:
      by_subject[label.task, label.dimension].append(label)
  same, compared = collections.Counter(), collections.Counter()
  for given in by_subject.values():
    for one, other in itertools.permutations(given, 2):
      compared[one.person] += 1
      same[one.person] += one.label == other.label
  own = collections.defaultdict(list)
  for label in labels:
    own[label.person].append(label)
  found = []
  for person in store.people():
    answers = times[person.id]
    if not answers:
      continue
    mine = own[person.id]
    right = [
      gold[label.task, label.dimension] == label.label
      for label in mine
      if (label.task, label.dimension) in gold
    ]
    num_skips = sum(is_skip for is_skip, _ in answers)
    # Imported answers may have no time.
    spent = [seconds for is_skip, seconds in answers if seconds and not is_skip]
    found.append(
      {
        'name': person.name,
        'role': person.role,
        'answers': len(answers) - num_skips,
        'skips': num_skips,
        'hours': math.fsum(seconds for _, seconds in answers) / 3600,
        'seconds': statistics.median(spent) if spent else None,
        'agreement': _share(same[person.id], compared[person.id]),
        'gold': _wilson(sum(right), len(right)),
        'labels': _label_shares(mine, settings.rubric.labels),
      }
    )
  return found


def _labels(db: sqlite3.Connection) -> list[_Label]:
  rows = db.execute(
    'SELECT person, task, dimension, label, second IS NOT NULL, '
    'task IN (SELECT task FROM gold) '
    'FROM votes JOIN answers ON answer = answers.id '
    'JOIN tasks ON task = tasks.id WHERE is_current '
    'ORDER BY answers.rowid, votes.rowid'
  )
  return [
    _Label(person, task, dimension, label, bool(is_pair), bool(is_gold))
    for person, task, dimension, label, is_pair, is_gold in rows
  ]


def _share(part: int, total: int) -> float | None:
  return part / total if total else None


def _wilson(right: int, total: int) -> Tree:
  """A share with Wilson's interval (E. B. Wilson, JASA 22, 1927)."""
  if not total:
    return {'labels': 0, 'share': None, 'low': None, 'high': None}
  share, z2 = right / total, _NORMAL_95**2
  centre = share + z2 / (2 * total)
  reach = _NORMAL_95 * math.sqrt(
    share * (1 - share) / total + z2 / (4 * total**2)
  )
  return {
    'labels': total,
    'share': share,
    'low': max((centre - reach) / (1 + z2 / total), 0.0),
    'high': min((centre + reach) / (1 + z2 / total), 1.0),
  }


def _label_shares(labels: Sequence[_Label], order: Sequence[str]) -> Tree:
  """The share of each label of clips, by dimension."""
  by_dimension = collections.defaultdict(collections.Counter)
  for label in labels:
    if not label.is_pair and not label.is_gold:
      by_dimension[label.dimension][label.label] += 1
  return {
    dimension: {label: counts[label] / counts.total() for label in order}
    for dimension, counts in by_dimension.items()
  }


def agreement(store: Store, config: BootstrapConfig = BOOTSTRAP) -> Tree:
  """Krippendorff's alpha of clips and pairs; see `report`."""
  with store.database.reading() as db:
    rubric = tables.get_settings(db).rubric
    labels = [label for label in _labels(db) if not label.is_gold]
  orders = {CLIP: rubric.labels, PAIR: PAIR_LABELS}
  result = {}
  for kind, order in orders.items():
    dimensions = (*rubric.dimensions, *([OVERALL] if kind == PAIR else []))
    given = [label for label in labels if label.is_pair == (kind == PAIR)]
    if given:
      result[kind] = {
        dimension: _alpha_of(
          [label for label in given if label.dimension == dimension],
          order,
          config,
        )
        for dimension in dimensions
      }
  return result


def _alpha_of(
  labels: Sequence[_Label], order: Sequence[str], config: BootstrapConfig
) -> Tree:
  units = {task: n for n, task in enumerate({x.task: 0 for x in labels})}
  counts_ul = np.zeros((len(units), len(order)), int)
  for label in labels:
    counts_ul[units[label.task], order.index(label.label)] += 1
  counts_ul = counts_ul[counts_ul.sum(axis=1) >= 2]
  return {'tasks': len(counts_ul)} | {
    level: dataclasses.asdict(alpha(counts_ul, level, config))
    for level in LEVELS
  }


def alpha(
  counts_ul: np.ndarray, level: str, config: BootstrapConfig
) -> bootstrap.Estimate:
  """Krippendorff's alpha, with an interval by resampling of clips.

  Args:
    counts_ul: votes for each label of each clip, int [U, L]; labels in order.
    level: one of `LEVELS`.
    config: of the interval.

  Returns:
    All None if there is nothing to compare, or all votes are for one label.

  Raises:
    UserError: the package krippendorff is not installed.
  """
  if not len(counts_ul):
    return bootstrap.Estimate(None, None, None)
  try:
    import krippendorff
  except ModuleNotFoundError:
    raise UserError(
      "agreement needs the package krippendorff; pip install 'lift_jax"
      "[annotate]'"
    ) from None

  def metric(weights_du: np.ndarray) -> dict[str, np.ndarray]:
    return {
      'alpha': np.array(
        [_alpha(krippendorff, counts_ul, w, level) for w in weights_du]
      )
    }

  return bootstrap.estimates(metric, len(counts_ul), counts_ul.size, config)[
    'alpha'
  ]


def _alpha(
  krippendorff: Any, counts_ul: np.ndarray, weights_u: np.ndarray, level: str
) -> float:
  drawn_ul = np.repeat(counts_ul, weights_u.astype(int), axis=0)
  # Without variation alpha is 0 / 0.
  if np.count_nonzero(drawn_ul.sum(axis=0)) < 2:
    return math.nan
  return krippendorff.alpha(
    value_counts=drawn_ul,
    value_domain=np.arange(drawn_ul.shape[1]),
    level_of_measurement=level,
  )
