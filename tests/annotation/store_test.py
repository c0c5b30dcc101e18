"""The annotation store: links, answers, corrections, disagreements, faults."""

import dataclasses
import os
import sqlite3
import threading

import pytest

from lift_jax.annotation import checks, database
from lift_jax.annotation.database import MIGRATIONS, Database, StorageError
from lift_jax.annotation.entities import (
  CRITIC,
  LEAD,
  OVERALL,
  PAIR_LABELS,
  RATER,
  SKIP_CAUSES,
)
from lift_jax.annotation.store import NAME, Store
from lift_jax.annotation.tables import ConflictError, NotFoundError
from lift_jax.data.rubric import Rubric
from lift_jax.errors import UserError
from tests.annotation import stores
from tests.jobs import jobs

pytestmark = pytest.mark.fast


@pytest.fixture
def store(tmp_path):
  with stores.create(tmp_path) as store:
    yield store


@pytest.fixture
def clip(store, tmp_path):
  """The task of one clip."""
  return stores.add_clips(store, tmp_path, 1)[0]


def add_pair(store):
  return store.add_task([('a.mp4', 'A fox.'), ('b.mp4', 'A fox.')])


class TestLinks:
  def test_token(self, store):
    person = store.add_person('Ann', RATER)
    token = store.issue_token(person.id)
    assert store.person_of_token(token) == person
    assert store.person_of_token(token + 'x') is None
    assert store.person_of_token('\ud800') is None
    assert token.encode() not in (store.path).read_bytes()
    assert store.revoke_tokens(person.id) == 1
    assert store.person_of_token(token) is None
    assert store.person_of_token(store.issue_token(person.id)) == person

  def test_people(self, store):
    ann = store.add_person(' Ann ', RATER)
    assert ann.name == 'Ann'
    assert store.add_person('Ann', LEAD).id == ann.id
    assert [(p.name, p.role) for p in store.people()] == [('Ann', LEAD)]

  @pytest.mark.parametrize(
    'name', ['', '  ', 'a\nb', CRITIC, 'x' * 101, 'a\u2028b']
  )
  def test_bad_name(self, store, name):
    with pytest.raises(UserError, match='the name'):
      store.add_person(name, RATER)

  def test_bad_role(self, store):
    with pytest.raises(UserError, match="role 'boss'; choose"):
      store.add_person('Ann', 'boss')


class TestAnswers:
  def test_saved(self, store, clip, tmp_path):
    (ann, _), _ = stores.add_people(store)
    task = store.next_tasks(ann)[0]
    labels = {'semantic': 'Good', 'motion': 'Bad', 'fidelity': 'Normal'}
    answer = stores.answer(task, labels, ' It \n jumps. ')
    store.save_answer(ann, answer)
    with Store.open(tmp_path) as other:  # another process sees it
      (given,) = other.recent_answers(ann)
    assert given.task == task
    assert given.answer.labels == labels
    assert set(given.answer.reasons.values()) == {'It \n jumps.'}
    assert given.answer.id == answer.id
    assert stores.answer_of(store, ann, clip) == given
    assert store.next_tasks(ann) == []

  def test_same_id_twice(self, store, clip):
    """A double click, or a lost reply: the first one counts."""
    (ann, bob), _ = stores.add_people(store)
    first = stores.answer(store.task(ann, clip), 'Bad')
    store.save_answer(ann, first)
    other = stores.answer(store.task(ann, clip), 'Good', id=first.id)
    store.save_answer(ann, other)
    assert len(store.recent_answers(ann)) == 1
    assert stores.answer_of(store, ann, clip).answer.labels['motion'] == 'Bad'
    with pytest.raises(ConflictError, match='in use'):
      store.save_answer(bob, other)

  def test_two_tabs(self, store, clip):
    (ann, _), _ = stores.add_people(store)
    stores.rate(store, ann, clip, 'Bad')
    with pytest.raises(ConflictError, match='another window'):
      stores.rate(store, ann, clip, 'Good')
    assert stores.answer_of(store, ann, clip).answer.labels['motion'] == 'Bad'

  def test_correction(self, store, clip):
    (ann, _), _ = stores.add_people(store)
    task = store.task(ann, clip)
    first = stores.answer(task, 'Bad')
    second = stores.answer(task, 'Good', replaces=first.id)
    store.save_answer(ann, first)
    store.save_answer(ann, second)
    store.save_answer(ann, first)  # arrives again, late
    (given,) = store.recent_answers(ann)
    assert given.answer.id == second.id
    with pytest.raises(ConflictError):
      store.save_answer(ann, stores.answer(task, 'Bad', replaces=first.id))

  def test_skip(self, store, clip):
    (ann, bob), _ = stores.add_people(store)
    task = store.task(ann, clip)
    skip = stores.answer(task, {}, skip=SKIP_CAUSES[0])
    store.save_answer(ann, skip)
    assert store.next_tasks(ann) == []
    assert store.next_tasks(bob) == [store.task(bob, clip)]
    (setback,) = store.setbacks()
    assert setback.causes == {SKIP_CAUSES[0]: 1}
    # It can be corrected to an answer.
    store.save_answer(ann, stores.answer(task, replaces=skip.id))
    assert store.setbacks() == []

  @pytest.mark.parametrize(
    ('changes', 'message'),
    [
      ({'labels': {'motion': 'Good'}}, 'no label for semantic, fidelity'),
      ({'labels': {'sound': 'Good'}}, "no dimension 'sound'"),
      ({'labels': dict.fromkeys(stores.RUBRIC.dimensions, 'X')}, "label 'X'"),
      ({'reasons': {'sound': 'x'}}, "reason for 'sound'"),
      ({'reasons': {'motion': 'a\x00b'}}, r'U\+0000'),
      ({'reasons': {'motion': '\ud800'}}, r'U\+D800'),
      ({'reasons': {'motion': 'x' * 100_000}}, 'has 100000 characters'),
      ({'skip': 'bored', 'labels': {}}, "skipping is 'bored'"),
      ({'skip': SKIP_CAUSES[0]}, 'has no labels'),
      ({'id': 'short'}, 'id of the answer is malformed'),
      ({'seconds': float('nan')}, 'no number'),
      ({'seconds': -1.0}, 'no number'),
      ({'task': 'f' * 24}, "no task 'ffff"),
    ],
  )
  def test_refused(self, store, clip, changes, message):
    (ann, _), _ = stores.add_people(store)
    answer = stores.answer(store.task(ann, clip), **changes)
    with pytest.raises(UserError, match=message) as caught:
      store.save_answer(ann, answer)
    assert '\n' not in str(caught.value)
    assert store.recent_answers(ann) == []

  @pytest.mark.parametrize(
    'text',
    [
      '<script>alert("1")</script> & \'%s\' \\',
      '\U0001f98a' * 1000,
      'מימין לשמאל \u202eabc\u202c',
      'x' * checks.MAX_REASON,
      'two\nlines',
    ],
  )
  def test_texts(self, store, clip, text):
    (ann, _), _ = stores.add_people(store)
    stores.rate(store, ann, clip, reason=text)
    assert stores.answer_of(store, ann, clip).answer.reasons['motion'] == text

  def test_threads(self, store, tmp_path):
    """As many raters as threads: each answer counts once."""
    tasks = stores.add_clips(store, tmp_path, 6)
    raters, _ = stores.add_people(store, 8)
    failures = []

    def work(person):
      try:
        while found := store.next_tasks(person, 1):
          answer = stores.answer(found[0])
          store.save_answer(person, answer)
          store.save_answer(person, answer)
      except BaseException as error:
        failures.append(error)

    threads = [threading.Thread(target=work, args=[n]) for n in raters]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
    assert not failures
    assert sum(len(store.recent_answers(n, 99)) for n in raters) == 2 * 6
    for task in tasks:
      assert len(store.disagreement(task).votes['motion']) == 2


class TestPairs:
  def test_sides(self, store):
    """Random, but the same at each time; labels follow the clips."""
    task = add_pair(store)
    raters, _ = stores.add_people(store, 12)
    canonical = store.disagreement(task).task.clips
    shown = [store.task(n, task) for n in raters]
    assert {one.clips for one in shown} == {canonical, canonical[::-1]}
    assert shown == [store.task(n, task) for n in raters]
    assert shown[0].labels == PAIR_LABELS
    assert shown[0].dimensions == (*stores.RUBRIC.dimensions, OVERALL)
    for person, one in zip(raters, shown, strict=True):
      # Everybody prefers the first clip in canonical order.
      label = 'better' if one.clips == canonical else 'worse'
      stores.rate(store, person, task, label)
      given = stores.answer_of(store, person, task).answer
      assert set(given.labels.values()) == {label}
    assert store.disagreements() == []
    votes = store.disagreement(task).votes[OVERALL]
    assert {vote.label for vote in votes} == {'better'}

  def test_one_caption(self, store):
    with pytest.raises(UserError, match='a pair has one caption'):
      store.add_task([('a.mp4', 'A fox.'), ('b.mp4', 'A dog.')])


class TestLead:
  def test_settles(self, store, tmp_path):
    near, far = stores.add_clips(store, tmp_path, 2)
    (ann, bob), lead = stores.add_people(store)
    for task, labels in ((near, ('Good', 'Normal')), (far, ('Good', 'Bad'))):
      for person, label in zip((ann, bob), labels, strict=True):
        stores.rate(store, person, task, label, f'{label} it is.')
    first, second = store.disagreements()
    assert [first.task.id, second.task.id] == [far, near]
    assert store.disagreements(1, 1) == [second]
    assert first.disputed == stores.RUBRIC.dimensions
    assert first.proposed['motion'] == 'Bad'
    assert [(v.rater, v.label, v.reason) for v in first.votes['motion']] == [
      ('rater 0', 'Good', 'Good it is.'),
      ('rater 1', 'Bad', 'Bad it is.'),
    ]
    with pytest.raises(UserError, match='only a lead'):
      store.settle(ann, far, {'motion': ('Good', '')})
    with pytest.raises(UserError, match="no label 'Great'"):
      store.settle(lead, far, {'motion': ('Great', '')})
    for label in ('Bad', 'Normal'):
      store.settle(lead, far, {'motion': (label, ' A jump. ')})
    assert [one.task.id for one in store.disagreements()] == [near]
    (settled,) = store.disagreements(decided=True)
    assert settled.decided == {'motion': ('Normal', 'A jump.')}

  def test_suggestions(self, store, tmp_path):
    tasks = stores.add_clips(store, tmp_path, 3)
    (ann, bob), _ = stores.add_people(store)
    stores.rate(store, ann, tasks[0], 'Bad', 'A Fox has 5 legs.')
    stores.rate(store, ann, tasks[1], 'Bad', 'It jumps.')
    stores.rate(store, bob, tasks[2], 'Bad', 'It jumps.')

    def suggest(dimension, label, limit=8):
      return store.suggest_reasons(dimension, label, limit)

    assert suggest('motion', 'Bad') == ['It jumps.', 'A Fox has 5 legs.']
    assert suggest('motion', 'Good') == []
    assert suggest('motion', 'Bad', limit=1) == ['It jumps.']
    pair = add_pair(store)
    stores.rate(store, ann, pair, 'better', 'Sharper.')
    assert suggest(OVERALL, 'worse') == suggest(OVERALL, 'better')
    assert suggest(OVERALL, 'better') == ['Sharper.']
    assert suggest(OVERALL, 'same') == []


class TestClips:
  def test_missing(self, store, clip, tmp_path):
    (ann, _), _ = stores.add_people(store)
    (key,) = store.task(ann, clip).clips
    path = store.clip_path(key)
    assert path == tmp_path / 'x0.mp4'
    path.unlink()
    with pytest.raises(NotFoundError, match='no video file'):
      store.clip_path(key)
    assert store.next_tasks(ann) == []
    (setback,) = store.setbacks()
    assert 'no video file' in setback.broken
    path.touch()
    assert store.check_clips() == []
    assert [task.id for task in store.next_tasks(ann)] == [clip]

  def test_check(self, store, tmp_path):
    clip, _ = stores.add_clips(store, tmp_path, 2)
    (tmp_path / 'x0.mp4').unlink()
    assert len(store.check_clips()) == 1
    assert [one.task.id for one in store.setbacks()] == [clip]

  def test_outside(self, tmp_path):
    root = tmp_path / 'root'
    root.mkdir()
    (tmp_path / 'secret.mp4').touch()
    os.symlink(tmp_path / 'secret.mp4', root / 'link.mp4')
    with stores.create(root) as store:
      for video in ('../secret.mp4', 'link.mp4', '/etc/passwd'):
        with pytest.raises(NotFoundError):
          store.clip_path(store.add_clip(video, 'x'))
      with pytest.raises(NotFoundError, match='no clip'):
        store.clip_path('link.mp4')

  def test_examples(self, tmp_path):
    examples = {'motion': {'Bad': ('bad.mp4', 'gone.mp4')}}
    rubric = dataclasses.replace(stores.RUBRIC, examples=examples)
    with stores.create(tmp_path, rubric) as store:
      clip = store.add_clip('bad.mp4', 'x')
      (example,) = store.examples()
    assert (example.dimension, example.label) == ('motion', 'Bad')
    assert example.clip == clip


class TestFile:
  def test_none(self, tmp_path):
    with pytest.raises(UserError, match='start the project'):
      Store.open(tmp_path)

  def test_not_a_database(self, tmp_path):
    (tmp_path / NAME).write_bytes(b'x' * 4096)
    with pytest.raises(UserError, match='not an annotation project'):
      Store.open(tmp_path)

  def test_migrations(self, tmp_path):
    """Each version becomes the newest; a newer one is refused."""
    path = tmp_path / 'project.sqlite'
    Database(path).close()
    more = (*MIGRATIONS, 'CREATE TABLE a (b);\nCREATE TABLE c (d);')
    for _ in range(2):
      newer = Database(path, more)
      with newer.reading() as db:
        db.execute('SELECT b, d FROM a, c')
        assert db.execute('PRAGMA user_version').fetchone() == (2,)
      newer.close()
    with pytest.raises(UserError, match='version 2 of the schema, newer'):
      Database(path)

  def test_failed_migration(self, tmp_path):
    path = tmp_path / 'project.sqlite'
    Database(path).close()
    with pytest.raises(sqlite3.OperationalError):
      Database(path, (*MIGRATIONS, 'CREATE TABLE a (b);\nnonsense;'))
    Database(path).close()  # of the version before, without `a`

  def test_settings(self, store, clip, tmp_path):
    (ann, _), _ = stores.add_people(store)
    assert store.settings.rubric == stores.RUBRIC
    stores.rate(store, ann, clip, 'Normal')
    others = Rubric(
      stores.RUBRIC.questions, ('Good', 'Bad'), {'Good': 1.0, 'Bad': 0.0}
    )
    with pytest.raises(UserError, match="the label 'Normal' of"):
      stores.create(tmp_path, others).close()
    assert store.settings.rubric == stores.RUBRIC

  @pytest.mark.parametrize(
    ('settings', 'message'),
    [
      ({'raters_per_clip': 0}, 'raters_per_clip'),
      ({'gold_rate': 0.6}, 'gold.rate'),
      ({'lease_seconds': 0.0}, 'lease_seconds'),
      ({'rubric': Rubric({OVERALL: ' x'})}, 'kept for pairs'),
    ],
  )
  def test_bad_settings(self, tmp_path, settings, message):
    with pytest.raises(UserError, match=message):
      stores.create(tmp_path, **settings)

  def test_full_disk(self, store, tmp_path):
    tasks = stores.add_clips(store, tmp_path, 40)
    (ann, _), _ = stores.add_people(store)
    stores.rate(store, ann, tasks[0])
    with store.database.transaction() as db:
      ((pages,),) = db.execute('PRAGMA page_count')
      db.execute(f'PRAGMA max_page_count = {pages + 1}')
    saved = 1
    with pytest.raises(StorageError, match='nothing was saved') as caught:
      for task in tasks[1:]:
        stores.rate(store, ann, task, reason='long ' * 1000)
        saved += 1
    assert NAME in str(caught.value) and '\n' not in str(caught.value)
    assert len(store.recent_answers(ann, 99)) == saved
    with store.database.transaction() as db:
      db.execute('PRAGMA max_page_count = 100000')
    stores.rate(store, ann, tasks[saved])  # the same one, once there is room
    assert len(store.recent_answers(ann, 99)) == saved + 1

  def test_largest_file(self, store, tmp_path):
    """The operating system refuses to write, as on a full disk."""
    tasks = stores.add_clips(store, tmp_path, 2)
    (ann, _), _ = stores.add_people(store)
    log = tmp_path / f'{NAME}-wal'
    with jobs.full_disk() as fill:
      fill(log.stat().st_size + 100)
      with pytest.raises(StorageError, match='nothing was saved'):
        stores.rate(store, ann, tasks[0])
      assert store.recent_answers(ann) == []
    stores.rate(store, ann, tasks[0])
    assert len(store.recent_answers(ann)) == 1

  def test_locked(self, store, clip, tmp_path, monkeypatch):
    monkeypatch.setattr(database, '_BUSY_SECONDS', 0)
    with Store.open(tmp_path) as other, store.database.transaction():
      with pytest.raises(StorageError, match='another program'):
        other.add_person('Ann', RATER)
