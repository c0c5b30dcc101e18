"""lift annotate: from clips to files of ratings that a critic learns from."""

import json
import sys
import types

import pytest

from lift_jax.annotation.store import Store
from lift_jax.jobs import annotate
from tests.annotation import stores
from tests.jobs import jobs

pytestmark = pytest.mark.fast

CONFIG = f'--config={jobs.REPOSITORY / "configs" / "annotate.py"}'


def lift(*argv, status=0):
  outcome = jobs.lift('annotate', *map(str, argv))
  assert outcome.status == status, outcome
  return outcome


@pytest.fixture
def clips(tmp_path):
  """A folder with four clips of two captions and a list of them."""
  root = tmp_path / 'clips'
  root.mkdir()
  items = []
  for index in range(4):
    (root / f'{index}.mp4').touch()
    items.append(
      {
        'video': f'{index}.mp4',
        'caption': f'Take {index // 2}.',
        'category': 'ab'[index % 2],
      }
    )
  (root / 'clips.json').write_text(json.dumps(items))
  return root


def project(workdir, clips, *flags):
  """Makes a project without serving it."""
  target = workdir / 'nothing'
  lift(
    'export',
    f'{CONFIG}',
    f'--workdir={workdir}',
    f'--config.data.root={clips}',
    "--config.data.files=('clips.json',)",
    f'--to={target}',
    *flags,
  )


def test_serves(tmp_path, monkeypatch):
  """The first form prints a link for a rater and one for a lead."""
  served = []

  def serve(store, host, port, on_ready):
    on_ready(f'http://{host}:{port}')
    served.append((host, port, store.count_tasks()))

  web = types.ModuleType('lift_jax.annotation.web')
  web.server = types.SimpleNamespace(serve=serve)
  monkeypatch.setitem(sys.modules, 'lift_jax.annotation.web', web)
  monkeypatch.setattr(annotate, '_PACKAGES', ())
  arguments = f'{CONFIG}:smoke', f'--workdir={tmp_path}', '--config.toy_clips=3'
  outcome = lift(*arguments)
  rater, lead, note = outcome.stdout.splitlines()
  assert rater.startswith('rater first rater: http://127.0.0.1:8000/enter/')
  assert note.startswith('Serving http://127.0.0.1:8000 on this machine alone')
  with Store.open(tmp_path) as store:
    assert store.person_of_token(rater.split('/')[-1]).role == 'rater'
    assert store.person_of_token(lead.split('/')[-1]).role == 'lead'
  outcome = lift(*arguments, '--host=0.0.0.0', '--port=81')
  assert 'reverse proxy' in outcome.stdout
  assert served == [('127.0.0.1', 8000, 3), ('0.0.0.0', 81, 3)]
  with Store.open(tmp_path) as store:
    assert len(store.people()) == 2


def test_missing_packages(tmp_path, monkeypatch):
  monkeypatch.setattr(annotate, '_PACKAGES', ('no_such_package',))
  outcome = lift(f'{CONFIG}:smoke', f'--workdir={tmp_path}', status=2)
  assert "no_such_package not installed; pip install 'lift_jax[annotate]'" in (
    outcome.stderr
  )


def test_round_trip(clips, tmp_path):
  """Import, report, export, and import into another project."""
  project(tmp_path, clips, '--config.raters_per_clip=2')
  with Store.open(tmp_path) as store:
    (ann, bob), _ = stores.add_people(store)
    while tasks := store.next_tasks(ann):
      store.save_answer(ann, stores.answer(tasks[0], 'Bad', 'It jumps.'))
    while tasks := store.next_tasks(bob):
      store.save_answer(bob, stores.answer(tasks[0], 'Bad'))
  export = tmp_path / 'export'
  outcome = lift('export', f'--workdir={tmp_path}', f'--to={export}')
  assert f'{export / "hra.json"}: 12 records' in outcome.stdout
  other = tmp_path / 'other'
  outcome = lift(
    'import',
    CONFIG,
    f'--workdir={other}',
    f'--config.data.root={clips}',
    "--config.data.files=('clips.json',)",
    '--config.raters_per_clip=2',
    f'--config.questions={export / "questions.json"}',
    f'--from={export}',
  )
  assert '4 tasks, 8 new answers' in outcome.stdout
  again = tmp_path / 'again'
  lift('export', f'--workdir={other}', f'--to={again}')
  for path in export.iterdir():
    assert (again / path.name).read_bytes() == path.read_bytes()
  outcome = lift('report', f'--workdir={other}', '--json')
  report = json.loads(outcome.stdout)
  assert report['tasks']['complete'] == 4
  assert [rater['answers'] for rater in report['raters']] == [4, 4]
  assert 'rater 0: 4, 0, 0.0, 2, 100 %' in (
    lift('report', f'--workdir={other}').stdout
  )


def test_pairs_and_gold(clips, tmp_path):
  project(tmp_path, clips, '--config.data.tasks=both')
  with Store.open(tmp_path) as store:
    assert store.count_tasks() == 4 + 2
    (ann, _), lead = stores.add_people(store)
    while tasks := store.next_tasks(ann):
      store.save_answer(ann, stores.answer(tasks[0], tasks[0].labels[0]))
  lift('export', f'--workdir={tmp_path}', f'--to={tmp_path / "export"}')
  hra = tmp_path / 'export' / 'hra.json'
  other = tmp_path / 'other'
  project(other, clips, f"--config.gold.files=('{hra}',)")
  with Store.open(other) as store:
    # Every clip is a gold one now.
    assert stores.add_people(store) and not store.next_tasks(1)
  pairs = json.loads((tmp_path / 'export' / 'pairs.json').read_text())
  assert len(pairs) == 2 and set(pairs[0]['dimensions']) == set(
    stores.RUBRIC.dimensions
  )


def test_invite(clips, tmp_path):
  project(tmp_path, clips)
  outcome = lift(
    'invite', f'--workdir={tmp_path}', '--name=Zoë', '--role=lead',
    '--url=https://rate.example/',
  )  # fmt: skip
  link = outcome.stdout.strip()
  assert link.startswith('lead Zoë: https://rate.example/enter/')
  token = link.split('/')[-1]
  with Store.open(tmp_path) as store:
    assert store.person_of_token(token).name == 'Zoë'
  outcome = lift('invite', f'--workdir={tmp_path}', '--name=Zoë', '--revoke')
  assert outcome.stdout == '1 links of Zoë revoked\n'
  with Store.open(tmp_path) as store:
    assert store.person_of_token(token) is None


def test_recheck(clips, tmp_path):
  project(tmp_path, clips, '--config.raters_per_clip=1')
  with Store.open(tmp_path) as store:
    (ann, _), _ = stores.add_people(store)
    while tasks := store.next_tasks(ann):
      store.save_answer(ann, stores.answer(tasks[0], 'Good'))
  labels = dict.fromkeys(stores.RUBRIC.dimensions, 'Bad')
  items = [
    {'video': f'{n}.mp4', 'caption': f'Take {n // 2}.', 'labels': labels}
    for n in range(4)
  ]
  scores = tmp_path / 'scores.json'
  scores.write_text(json.dumps(items))
  outcome = lift('recheck', f'--workdir={tmp_path}', f'--scores={scores}')
  assert '4 clips compared, 4 conflicts' in outcome.stdout


@pytest.mark.parametrize(
  ('argv', 'message'),
  [
    (['start'], "no action 'start'; choose one of invite, import, export"),
    (['export', '--workdir=.'], '--to=FOLDER is missing'),
    (['report'], '--workdir=DIR is missing'),
    (['report', '--workdir=.'], 'start the project there'),
    (['report', '--workdir=.', '--config.toy_clips=3'], 'needs --config'),
    (['--workdir=.'], '--config=FILE.py is missing'),
    ([CONFIG, '--workdir=gs://x/y'], 'needs a local disk'),
    ([CONFIG, '--workdir=.'], 'data.root is empty'),
  ],
)
def test_refused(tmp_path, monkeypatch, argv, message):
  monkeypatch.chdir(tmp_path)
  assert message in lift(*argv, status=2).stderr
