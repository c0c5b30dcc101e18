"""What a critic's scores say about tasks: the order of work, and conflicts."""

from collections.abc import Sequence

from lift_jax.annotation import settling, tables
from lift_jax.annotation.entities import Settings
from lift_jax.annotation.export import half_of
from lift_jax.annotation.store import Store
from lift_jax.errors import UserError
from lift_jax.evaluation.scores import ScoredRecord, read_scores
from lift_jax.rewards import uncertainty
from lift_jax.rewards.answers import rationale_of

RANDOM, UNCERTAINTY, DISAGREEMENT = 'random', 'uncertainty', 'disagreement'
ORDERS = (RANDOM, UNCERTAINTY, DISAGREEMENT)

_Key = tuple[str, str]  # video and caption


def set_order(store: Store, order: str, files: Sequence[str]) -> None:
  """Sets the priorities of tasks, a clip each, from files of scores.

  Args:
    store: the project.
    order: 'random'; 'uncertainty' or 'disagreement', clips first of which one
      or more critics together are least certain, or on which they disagree
      most; see `rewards.uncertainty`.
    files: of `lift score`, one for each critic.

  Raises:
    UserError: bad files, or none that say what the order needs.
  """
  if order == RANDOM:
    store.set_priorities({})
    return
  settings = store.settings
  critics = [_read(settings, file) for file in files]
  needed = 2 if order == DISAGREEMENT else 1
  if len(critics) < needed:
    raise UserError(
      f"order.by = '{order}' needs the scores of {needed} or more critics; set "
      'order.scores to files of lift score, or order.by to another order'
    )
  if order == UNCERTAINTY:
    measure = uncertainty.uncertainty
    for critic in critics:
      for record in critic.values():
        _check_probabilities(record)
  else:
    measure = uncertainty.disagreement
  scale = settings.rubric.scale
  store.set_priorities(
    {
      tables.task_id([tables.clip_id(*key)]): measure(
        [critic[key].distributions(scale) for critic in critics], scale
      )
      for key in set.intersection(*map(set, critics))
    }
  )


def _read(settings: Settings, file: str) -> dict[_Key, ScoredRecord]:
  records = read_scores(
    settings.root,
    [file],
    follow_links=settings.follow_links,
    scale=settings.rubric.scale,
  ).records
  return {(r.video, r.caption): r for r in records if r.answers}


def _check_probabilities(record: ScoredRecord) -> None:
  if any(answer.probabilities is None for answer in record.answers.values()):
    raise UserError(
      f'{record.where}: no "probabilities", which order.by = '
      "'uncertainty' needs; score with lift score, or choose another order"
    )


def recheck(store: Store, file: str, half: int | None) -> tuple[int, int]:
  """Sends clips back to people whose settled label is not the critic's.

  Each gets one more rater, if somebody has not rated it yet, and is listed
  among the disagreements with the critic's answers. The critic's label never
  counts as a vote.

  Args:
    store: the project.
    file: scores of a critic, which should not have learned from these clips.
    half: 1 or 2, the half of the prompts (`export.half_of`) that the critic did
      not learn from; None for all.

  Returns:
    Numbers of clips that were compared, and of conflicts among them.
  """
  settings = store.settings
  compared = conflicts = 0
  classes = settings.rubric.labels[::-1]
  with store.database.transaction() as db:
    for (video, caption), record in _read(settings, file).items():
      if half is not None and half_of(caption) != half:
        continue
      task = tables.task_id([tables.clip_id(video, caption)])
      if not db.execute(
        'SELECT 1 FROM tasks WHERE id = ? '
        'AND id NOT IN (SELECT task FROM gold)',
        (task,),
      ).fetchone():
        continue
      shown = tables.get_task(db, settings, task)
      settled = settling.settled(db, shown)
      if not settled:
        continue
      compared += 1
      differing = {
        name: (classes[answer.label], rationale_of(answer.text, classes))
        for name, answer in record.answers.items()
        if name in settled and settled[name][0] != classes[answer.label]
      }
      tables.set_critic_votes(db, task, differing)
      if differing and not settling.decisions(db, task):
        conflicts += 1
        db.execute('UPDATE tasks SET extra = 1 WHERE id = ?', (task,))
  if not compared:
    raise UserError(
      f'{file}: none of its clips {f"of half {half} " if half else ""}has '
      'settled ratings in this project; score the clips of its export'
    )
  return compared, conflicts
