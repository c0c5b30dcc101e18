"""Exports, and imports of exports, HRA, Label Studio and Argilla."""

import json

import pytest

from lift_jax.annotation import export, foreign, imports
from lift_jax.annotation.entities import OVERALL, SKIP_CAUSES
from lift_jax.data.hra import read_hra
from lift_jax.data.pair_records import read_pairs
from lift_jax.data.rubric import read_rubric
from lift_jax.errors import UserError
from tests.annotation import stores

pytestmark = pytest.mark.fast

KEYS = foreign.Keys()
REASONS = ('<b>"Jumps"</b>', '\U0001f98a' * 1000, 'רועד')


@pytest.fixture
def store(tmp_path):
  """Clips and a pair with answers, a skip, a gold clip and a decision."""
  root = tmp_path / 'root'
  root.mkdir()
  with stores.create(root, gold_rate=0.1) as store:
    one, two, three, gold = stores.add_clips(store, root, 4, 'cat')
    (ann, bob), lead = stores.add_people(store)
    (root / 'other.mp4').touch()
    pair = store.add_task(
      [('cat0.mp4', 'Caption cat0.mp4.'), ('other.mp4', 'Caption cat0.mp4.')]
    )
    stores.rate(store, ann, one, 'Good', REASONS[0])
    stores.rate(store, bob, one, 'Normal', REASONS[1])
    stores.rate(store, ann, two, 'Good')
    stores.rate(store, bob, two, 'Bad', REASONS[2])
    skip = stores.answer(store.task(ann, three), {}, skip=SKIP_CAUSES[2])
    store.save_answer(ann, skip)
    for person in (ann, bob):
      first = store.disagreement(pair).task.clips[0]
      is_first = store.task(person, pair).clips[0] == first
      stores.rate(store, person, pair, 'better' if is_first else 'worse')
    store.set_gold(gold, {'motion': ('Bad', 'It stops.')})
    stores.rate(store, ann, gold, 'Bad')
    store.settle(lead, two, {'motion': ('Good', 'Not so bad.')})
    yield store


def lines_of(path):
  return [json.loads(line) for line in path.read_text().splitlines()]


def test_settled(store, tmp_path):
  target = tmp_path / 'export'
  numbers = export.write_export(store, target)
  assert numbers['hra.json'] == 6 and numbers['pairs.json'] == 2
  questions = read_rubric(target / 'questions.json').questions
  records = read_hra(tmp_path / 'root', [str(target / 'hra.json')], questions)
  found = {
    (r.video, r.dimension): (r.label, r.rationale) for r in records.records
  }
  # A tie goes to the worse label, a decision before the majority.
  assert found['cat0.mp4', 'motion'] == ('Normal', REASONS[1])
  assert found['cat1.mp4', 'motion'] == ('Good', 'Not so bad.')
  assert found['cat1.mp4', 'fidelity'] == ('Bad', REASONS[2])
  assert not any(video in ('cat2.mp4', 'cat3.mp4') for video, _ in found)
  votes = {(r.video, r.dimension): r.votes for r in records.records}
  assert votes['cat0.mp4', 'motion'] == {'Good': 1, 'Normal': 1}
  # The decision is one opinion.
  assert votes['cat1.mp4', 'motion'] == {}


def test_halves(store, tmp_path):
  export.write_export(store, tmp_path / 'export')
  whole, *halves = (
    json.loads((tmp_path / 'export' / name).read_text())
    for name in ('hra.json', 'hra_half1.json', 'hra_half2.json')
  )
  assert sorted(map(str, sum(halves, []))) == sorted(map(str, whole))
  assert not {e['video'] for e in halves[0]} & {e['video'] for e in halves[1]}
  assert export.half_of('A  cat.') == export.half_of('a cat.')
  numbers = [export.half_of(f'Prompt {n}') for n in range(200)]
  assert 70 < numbers.count(1) < 130 and set(numbers) == {1, 2}


def test_votes(store, tmp_path):
  export.write_export(store, tmp_path / 'export')
  lines = lines_of(tmp_path / 'export' / 'votes.jsonl')
  first = lines[0]
  assert set(first) == {
    'rater', 'clip', 'caption', 'dimension', 'label', 'reason', 'seconds',
    'time', 'answer',
  }  # fmt: skip
  assert (first['rater'], first['clip']) == ('rater 0', 'cat0.mp4')
  assert (first['label'], first['reason']) == ('Good', REASONS[0])
  assert first['seconds'] == 2.0
  assert sum('skip' in line for line in lines) == 1
  pair = [line for line in lines if isinstance(line['clip'], list)]
  assert {line['label'] for line in pair} == {'better'}
  assert {line['dimension'] for line in pair} == {
    *stores.RUBRIC.dimensions,
    OVERALL,
  }


def test_pairs(store, tmp_path):
  export.write_export(store, tmp_path / 'export')
  path = str(tmp_path / 'export' / 'pairs.json')
  records = read_pairs(tmp_path / 'root', [path]).records
  assert [record.rater for record in records] == ['rater 0', 'rater 1']
  for record in records:
    assert record.videos == ('cat0.mp4', 'other.mp4')
    assert record.overall == 'first'
    assert set(record.dimensions) == set(stores.RUBRIC.dimensions)
  lead = store.people()[2].id
  (pair,) = (
    task
    for one in store.people()
    for given in store.recent_answers(one.id)
    if (task := given.task).kind == 'pair' and one.name == 'rater 0'
  )
  store.settle(lead, pair.id, {OVERALL: ('worse', '')})
  export.write_export(store, tmp_path / 'export')
  (record,) = read_pairs(tmp_path / 'root', [path]).records
  assert (record.overall, record.rater) == ('second', '')
  assert set(record.dimensions.values()) == {'first'}


def test_again(store, tmp_path):
  """An export makes the same project: it exports the same bytes."""
  first, second = tmp_path / 'first', tmp_path / 'second'
  export.write_export(store, first)
  copy = tmp_path / 'copy'
  copy.mkdir()
  with stores.create(copy, gold_rate=0.1) as other:
    found = imports.read_export(other, first)
    assert (found.tasks, found.answers, found.gold) == (5, 8, 1)
    assert imports.read_export(other, first).answers == 0
    export.write_export(other, second)
    assert len(other.disagreements()) == len(store.disagreements())
  for path in first.iterdir():
    assert (second / path.name).read_bytes() == path.read_bytes(), path.name


@pytest.mark.parametrize(
  ('name', 'change', 'message'),
  [
    ('votes.jsonl', ('"Good"', '"Great"'), 'votes.jsonl line 1: .*Great'),
    ('votes.jsonl', ('"rater 0"', '"nobody"'), 'votes.jsonl line 1: .*nobody'),
    ('votes.jsonl', ('"answer"', '"x"'), 'votes.jsonl line 1: '),
    ('tasks.jsonl', ('"clips"', '"x"'), 'tasks.jsonl line 1: '),
    ('project.json', ('"format": 1', '"format": 9'), 'format 9, not 1'),
  ],
)
def test_bad_export(store, tmp_path, name, change, message):
  export.write_export(store, tmp_path / 'export')
  path = tmp_path / 'export' / name
  path.write_text(path.read_text().replace(*change))
  copy = tmp_path / 'copy'
  copy.mkdir()
  with stores.create(copy) as other:
    with pytest.raises(UserError, match=message) as caught:
      imports.read_export(other, tmp_path / 'export')
    assert '\n' not in str(caught.value)
    assert other.count_tasks() == 0 and other.people() == []


def read(store, tmp_path, items, is_gold=False, keys=KEYS):
  path = tmp_path / 'file.json'
  path.write_text(json.dumps(items))
  return imports.read_file(store, path, 'imported', is_gold, keys)


@pytest.fixture
def empty(tmp_path):
  root = tmp_path / 'root'
  (root / 'videos').mkdir(parents=True)
  for name in ('a', 'b'):
    (root / 'videos' / f'{name}.mp4').touch()
  with stores.create(root) as store:
    yield store


def given(store):
  """(rater, video, labels, reasons) of each answer."""
  with store.database.reading() as db:
    videos = dict(db.execute('SELECT id, video FROM clips'))
  return [
    (
      person.name,
      videos[one.task.clips[0]],
      dict(one.answer.labels),
      {name: text for name, text in one.answer.reasons.items() if text},
    )
    for person in store.people()
    for one in reversed(store.recent_answers(person.id))
  ]


def test_hra(store, empty, tmp_path):
  export.write_export(store, tmp_path / 'export')
  for name in ('cat0', 'cat1'):
    (tmp_path / 'root' / f'{name}.mp4').touch()
  path = tmp_path / 'export' / 'hra.json'
  found = imports.read_file(empty, path, 'imported', False, KEYS)
  assert (found.tasks, found.answers) == (2, 2)
  assert imports.read_file(empty, path, 'imported', False, KEYS).answers == 0
  export.write_export(empty, tmp_path / 'again')
  # All but the votes, as the file says nothing about who voted.
  entries, again = (
    json.loads((tmp_path / name / 'hra.json').read_text())
    for name in ('export', 'again')
  )
  for entry in (*entries, *again):
    entry['conversations'][1].pop('votes', None)
  assert again == entries
  gold = imports.read_file(empty, path, 'imported', True, KEYS)
  assert (gold.answers, gold.gold) == (0, 2)


def label_studio():
  def result(name, value, kind='choices'):
    key = 'text' if kind == 'textarea' else 'choices'
    return {'from_name': name, 'type': kind, 'value': {key: [value]}}

  good = [
    result('semantic', 'good'),
    result('motion issues', 'Bad'),
    result('motion_reason', 'It jumps.', 'textarea'),
  ]
  return [
    {
      'id': 1,
      'data': {'video': '/data/upload/3/0a1b2c3d-a.mp4', 'caption': 'A fox.'},
      'annotations': [
        {'completed_by': 7, 'result': good, 'lead_time': 9.5,
         'updated_at': '2026-03-01T10:00:00Z', 'was_cancelled': False},
        {'completed_by': {'id': 8, 'email': 'bob@x.org'},
         'result': [result('semantic', 'Normal')]},
        {'completed_by': 9, 'result': [], 'was_cancelled': True},
      ],
    },
    {'id': 2, 'data': {'video': 'x', 'caption': 'y'}, 'annotations': []},
  ]  # fmt: skip


def test_label_studio(empty, tmp_path):
  found = read(empty, tmp_path, label_studio())
  assert (found.tasks, found.answers) == (1, 2)
  assert given(empty) == [
    (
      'rater 7',
      'videos/a.mp4',
      {'semantic': 'Good', 'motion': 'Bad'},
      {'motion': 'It jumps.'},
    ),
    ('bob@x.org', 'videos/a.mp4', {'semantic': 'Normal'}, {}),
  ]
  (ann, _) = empty.people()
  (one,) = empty.recent_answers(ann.id)
  assert (one.answer.seconds, one.time) == (9.5, 1772359200.0)
  assert read(empty, tmp_path, label_studio()).answers == 0


def test_label_studio_min(empty, tmp_path):
  def record(**more):
    return {
      'video': 'http://host/data/local-files/?d=videos/b.mp4',
      'prompt': 'A dog.',
      'annotator': 1,
      'annotation_id': 5,
      'semantic': {'choices': ['Good']},
      'fidelity': 'Bad',
      'fidelity comment': {'text': ['Blur', 'Noise']},
      'reason': 'All in all.',
      'lead_time': 3,
    } | more

  items = [
    record(updated_at='2026-03-02T10:00:00+00:00'),
    record(updated_at='2026-03-01T10:00:00+00:00', fidelity='Good'),
  ]
  read(empty, tmp_path, items, keys=foreign.Keys(caption='prompt'))
  assert given(empty) == [
    (
      'rater 1',
      'videos/b.mp4',
      {'semantic': 'Good', 'fidelity': 'Bad'},
      {'semantic': 'All in all.', 'fidelity': 'Blur\nNoise'},
    )
  ]


def test_argilla(empty, tmp_path):
  nested = {
    'id': 'x',
    'fields': {'clip': '<video src="videos/a.mp4" controls>', 'text': 'A.'},
    'metadata': {},
    'responses': {
      'motion': [{'value': 'Good', 'user_id': 'u1'}],
      'motion reason': [{'value': 'Smooth.', 'user_id': 'u1'}],
    },
  }
  flat = {
    'clip': 'videos/b.mp4',
    'text': 'B.',
    'motion.responses': ['Bad', 'Good'],
    'motion.responses.users': ['u1', 'u2'],
    'motion.responses.status': ['submitted', 'draft'],
    'motion.suggestion': None,
  }
  keys = foreign.Keys('clip', 'text')
  read(empty, tmp_path, [nested, flat], keys=keys)
  assert given(empty) == [
    ('u1', 'videos/a.mp4', {'motion': 'Good'}, {'motion': 'Smooth.'}),
    ('u1', 'videos/b.mp4', {'motion': 'Bad'}, {}),
  ]


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    (('a.mp4', 'c.mp4'), '0 clips named'),
    (('"caption"', '"prompt"'), "no 'caption' among .*--caption_key"),
    (('"good"', '"fine"'), "'fine', none of Good"),
    (('/data/upload/3/0a1b2c3d-a.mp4', 'data:video/mp4;base64,x'), 'inside'),
    (('"semantic"', '"taste"'), 'named like a dimension'),
    (('"annotations"', '"x"'), 'no export of Label Studio or Argilla'),
    (('It jumps.', 'x' * 100_000), 'has 100000 characters'),
  ],
)
def test_bad_foreign(empty, tmp_path, change, message):
  items = json.loads(json.dumps(label_studio()).replace(*change))
  with pytest.raises(UserError, match=rf'file.json record 0: .*{message}'):
    read(empty, tmp_path, items)
  assert empty.people() == [] and empty.count_tasks() == 0


def test_role_is_kept(empty, tmp_path):
  empty.add_person('bob@x.org', 'lead')
  read(empty, tmp_path, label_studio())
  assert [one.role for one in empty.people()] == ['lead', 'rater']


def test_ground_truth(empty, tmp_path):
  items = label_studio()
  items[0]['annotations'][0]['ground_truth'] = True
  found = read(empty, tmp_path, items)
  assert (found.answers, found.gold) == (1, 1)
