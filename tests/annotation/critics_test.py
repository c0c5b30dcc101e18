"""The order of work by a critic's scores, and conflicts with a critic."""

import json

import pytest

from lift_jax.annotation import critics, export
from lift_jax.annotation.entities import CRITIC
from lift_jax.errors import UserError
from tests.annotation import stores

pytestmark = pytest.mark.fast

UNSURE = {'Good': 0.4, 'Normal': 0.3, 'Bad': 0.3}
SURE = {'Good': 0.98, 'Normal': 0.01, 'Bad': 0.01}


@pytest.fixture
def store(tmp_path):
  with stores.create(tmp_path, raters_per_clip=1) as store:
    yield store


def write_scores(folder, labels, name='scores.json', probabilities=None):
  """Writes scores of the clips x0.mp4, x1.mp4, ...; returns the path."""
  items = []
  for index, label in enumerate(labels):
    item = {
      'video': f'x{index}.mp4',
      'caption': f'Caption x{index}.mp4.',
      'labels': dict.fromkeys(stores.RUBRIC.dimensions, label),
      'motion issues': f'{label}. As the critic sees it.',
    }
    if probabilities:
      item['probabilities'] = dict.fromkeys(
        stores.RUBRIC.dimensions, probabilities[index]
      )
    items.append(item)
  path = folder / name
  path.write_text(json.dumps(items))
  return str(path)


def order_of(store):
  person, _ = stores.add_people(store, 1)
  return [task.id for task in store.next_tasks(person[0], 99)]


def test_uncertainty(store, tmp_path):
  tasks = stores.add_clips(store, tmp_path, 3)
  scores = write_scores(
    tmp_path, ['Good'] * 3, probabilities=[SURE, UNSURE, SURE]
  )
  critics.set_order(store, 'uncertainty', [scores])
  assert order_of(store)[0] == tasks[1]
  with store.database.reading() as db:
    assert len(set(db.execute('SELECT priority FROM tasks'))) == 2
  critics.set_order(store, 'random', [])
  with store.database.reading() as db:
    assert set(db.execute('SELECT priority FROM tasks')) == {(0.0,)}


def test_disagreement(store, tmp_path):
  tasks = stores.add_clips(store, tmp_path, 3)
  one = write_scores(tmp_path, ['Good', 'Good', 'Good'], 'one.json')
  two = write_scores(tmp_path, ['Good', 'Normal', 'Bad'], 'two.json')
  critics.set_order(store, 'disagreement', [one, two])
  assert order_of(store) == [tasks[2], tasks[1], tasks[0]]


def test_order_refused(store, tmp_path):
  stores.add_clips(store, tmp_path, 1)
  scores = write_scores(tmp_path, ['Good'])
  with pytest.raises(UserError, match='scores of 2 or more critics'):
    critics.set_order(store, 'disagreement', [scores])
  with pytest.raises(UserError, match='record 0 .*no "probabilities"'):
    critics.set_order(store, 'uncertainty', [scores])


def test_recheck(store, tmp_path):
  """Conflicts get one more rater and a place in the lead's queue."""
  tasks = stores.add_clips(store, tmp_path, 4)
  (ann, bob), lead = stores.add_people(store)
  for task in tasks[:3]:
    stores.rate(store, ann, task, 'Good')
  store.settle(lead, tasks[2], {'motion': ('Good', '')})
  scores = write_scores(tmp_path, ['Good', 'Bad', 'Bad', 'Bad'])
  assert critics.recheck(store, scores, None) == (3, 1)
  (found,) = store.disagreements()
  assert found.task.id == tasks[1]
  assert [vote.rater for vote in found.votes['motion']] == ['rater 0', CRITIC]
  assert found.votes['motion'][1].reason == 'As the critic sees it.'
  assert found.proposed['motion'] == 'Good'  # the critic has no vote
  assert {task.id for task in store.next_tasks(bob, 99)} == {
    tasks[1],
    tasks[3],  # which nobody has rated
  }
  stores.rate(store, bob, tasks[1], 'Bad')
  assert store.disagreement(tasks[1]).proposed['motion'] == 'Bad'
  # A better critic agrees: nothing is left to settle but the people's votes.
  scores = write_scores(tmp_path, ['Good', 'Bad', 'Good'])
  assert critics.recheck(store, scores, None) == (3, 0)


def test_recheck_half(store, tmp_path):
  tasks = stores.add_clips(store, tmp_path, 12)
  (ann, _), _ = stores.add_people(store)
  for task in tasks:
    stores.rate(store, ann, task, 'Good')
  scores = write_scores(tmp_path, ['Bad'] * 12)
  half = [export.half_of(f'Caption x{n}.mp4.') for n in range(12)]
  number = half.count(2)
  assert 0 < number < 12
  assert critics.recheck(store, scores, 2) == (number, number)
  with store.database.reading() as db:
    extra = dict(db.execute('SELECT id, extra FROM tasks'))
  assert [extra[task] for task in tasks] == [n - 1 for n in half]


def test_recheck_nothing(store, tmp_path):
  stores.add_clips(store, tmp_path, 1)
  scores = write_scores(tmp_path, ['Bad'])
  with pytest.raises(UserError, match='none of its clips has settled'):
    critics.recheck(store, scores, None)
