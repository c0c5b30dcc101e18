"""Which tasks people are given: leases, balance, gold tasks, the count left."""

import collections
import itertools

import pytest

from lift_jax.annotation import store as store_lib
from lift_jax.annotation.entities import SKIP_CAUSES
from tests.annotation import stores

pytestmark = pytest.mark.fast


@pytest.fixture
def clock(monkeypatch):
  """A clock that tests set."""
  now = [1000.0]
  monkeypatch.setattr(store_lib.time, 'time', lambda: now[0])
  return now


def work(store, person, limit=1000):
  """Answers what a person is given; returns the tasks."""
  done = []
  while len(done) < limit and (tasks := store.next_tasks(person)):
    store.save_answer(person, stores.answer(tasks[0]))
    done.append(tasks[0].id)
  return done


def test_shared_out(tmp_path):
  """Each clip gets its raters, and nobody the same clip twice."""
  with stores.create(tmp_path) as store:
    tasks = stores.add_clips(store, tmp_path, 9)
    raters, _ = stores.add_people(store, 4)
    seen = {person: [] for person in raters}
    for _ in tasks:
      for person in raters:
        seen[person] += work(store, person, 1)
    counts = collections.Counter(sum(seen.values(), []))
    assert counts == dict.fromkeys(tasks, 2)
    assert all(len(set(done)) == len(done) for done in seen.values())


def test_leases(tmp_path, clock):
  with stores.create(tmp_path, raters_per_clip=1, lease_seconds=60.0) as store:
    stores.add_clips(store, tmp_path, 2)
    (ann, bob), _ = stores.add_people(store)
    mine = store.next_tasks(ann)
    assert len(mine) == 2
    assert store.next_tasks(ann) == mine  # after a reload, or in another tab
    assert store.next_tasks(bob) == []
    clock[0] += 50
    assert store.next_tasks(ann) == mine  # renews them
    clock[0] += 50
    assert store.next_tasks(bob) == []
    clock[0] += 11  # Ann has left.
    (first, _) = store.next_tasks(bob)
    assert store.next_tasks(ann) == []
    # Ann returns with an answer: it is kept.
    store.save_answer(ann, stores.answer(store.task(ann, first.id)))
    assert stores.answer_of(store, ann, first.id)


def test_balance(tmp_path):
  """Categories advance together, whatever their sizes."""
  with stores.create(tmp_path, raters_per_clip=1) as store:
    of = {
      task: category
      for category, number in (('people', 16), ('animals', 8), ('places', 4))
      for task in stores.add_clips(store, tmp_path, number, category)
    }
    (ann, _), _ = stores.add_people(store)
    done = collections.Counter(of[task] for task in work(store, ann, 14))
  assert done == {'people': 8, 'animals': 4, 'places': 2}


def test_late_answers(tmp_path):
  """More answers than wanted to one clip take nothing from the others."""
  with stores.create(tmp_path, raters_per_clip=1) as store:
    crowded, other = stores.add_clips(store, tmp_path, 2)
    raters, _ = stores.add_people(store, 4)
    for person in raters[:3]:
      stores.rate(store, person, crowded)
    assert [task.id for task in store.next_tasks(raters[3])] == [other]


def test_priority(tmp_path):
  with stores.create(tmp_path) as store:
    tasks = stores.add_clips(store, tmp_path, 6)
    store.set_priorities({tasks[4]: 2.0, tasks[1]: 1.0})
    (ann, _), _ = stores.add_people(store)
    assert work(store, ann)[:2] == [tasks[4], tasks[1]]


def test_begun_first(tmp_path):
  with stores.create(tmp_path) as store:
    stores.add_clips(store, tmp_path, 30)
    (ann, bob), _ = stores.add_people(store)
    begun = work(store, ann, 3)
    assert set(work(store, bob, 3)) == set(begun)


def test_skips(tmp_path):
  """As many skips as raters are wanted take a task out."""
  with stores.create(tmp_path) as store:
    (task,) = stores.add_clips(store, tmp_path, 1)
    raters, _ = stores.add_people(store, 3)
    for person in raters[:2]:
      (shown,) = store.next_tasks(person)
      store.save_answer(person, stores.answer(shown, {}, skip=SKIP_CAUSES[1]))
    assert store.next_tasks(raters[2]) == []
    (setback,) = store.setbacks()
    assert (setback.task.id, setback.causes) == (task, {SKIP_CAUSES[1]: 2})


def gold_project(tmp_path, rate):
  store = stores.create(tmp_path, raters_per_clip=1, gold_rate=rate)
  tasks = stores.add_clips(store, tmp_path, 60)
  right = dict.fromkeys(stores.RUBRIC.dimensions, ('Good', ''))
  for task in tasks[:20]:
    store.set_gold(task, right)
  return store, set(tasks[:20])


def test_gold_rate(tmp_path):
  store, gold = gold_project(tmp_path, 0.2)
  with store:
    (ann, bob), _ = stores.add_people(store)
    is_gold = [task in gold for task in work(store, ann, 25)]
    # One in each five, at places that differ.
    blocks = [is_gold[i : i + 5] for i in range(0, 25, 5)]
    assert [sum(block) for block in blocks] == [1] * 5
    assert len({block.index(True) for block in blocks}) > 1
    # Everybody may get the same gold tasks, whoever had them.
    assert any(task in gold for task in work(store, bob, 5))


def test_gold_is_not_told(tmp_path):
  """Nothing that a person sees depends on whether a task is a gold one."""
  store, gold = gold_project(tmp_path, 0.25)
  with store:
    (ann, _), _ = stores.add_people(store)
    left, seen = [store.pace(ann).left], []
    while tasks := store.next_tasks(ann):
      assert all(len(task.id) == 24 for task in tasks)
      store.save_answer(ann, stores.answer(tasks[0]))
      left.append(store.pace(ann).left)
      seen.append(tasks[0].id in gold)
    assert 10 <= sum(seen) <= 16
    falls = [a - b for a, b in itertools.pairwise(left)]
    assert falls == [1] * len(seen)
    assert left[-1] <= 1
    assert store.disagreements() == []


def test_pace(tmp_path):
  with stores.create(tmp_path) as store:
    stores.add_clips(store, tmp_path, 4)
    (ann, _), _ = stores.add_people(store)
    assert store.pace(ann).seconds_per_task is None
    for seconds in (3.0, 100.0, 5.0):
      task = store.next_tasks(ann)[0]
      store.save_answer(ann, stores.answer(task, seconds=seconds))
    pace = store.pace(ann)
  assert (pace.answered, pace.left, pace.seconds_per_task) == (3, 1, 5.0)
