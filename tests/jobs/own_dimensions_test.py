"""Dimensions and labels of one's own, from people to the evaluated critic."""

import json

import pytest

from lift_jax.annotation import export
from lift_jax.data.critic_prompts import NAME
from lift_jax.data.records import read_alignment
from lift_jax.data.rubric import Rubric, read_rubric
from tests.annotation import stores
from tests.jobs import critic_jobs, jobs, score_jobs

RUBRIC = Rubric(
  {'speed': ' Judge the speed.', 'camera motion': ' Judge the camera.'},
  ('Good', 'Bad'),
  {'Good': 1.0, 'Bad': 0.25},
)


def run(*argv: str) -> jobs.Outcome:
  outcome = jobs.lift(*argv)
  assert (outcome.status, outcome.stderr) == (0, ''), outcome
  return outcome


def test_from_people_to_scores(tmp_path):
  """What is exported trains a critic, whose prompts `lift score` reads.

  It is trained with all losses: on pairs of rated clips too, and on one that
  people compared, of a clip that nobody rated.
  """
  root = tmp_path / 'data'
  critic_jobs.make_clips(root, 11)
  (root / 'pairs.json').write_text(
    json.dumps(
      [
        {
          'caption': 'take 0',
          'videos': [critic_jobs.name_of(0), critic_jobs.name_of(10)],
          'overall': 'same',
          'dimensions': {'speed': 'second', 'taste': 'first'},
        }
      ]
    )
  )
  with stores.create(root, RUBRIC, raters_per_clip=1) as store:
    tasks = store.add_tasks(
      [([(critic_jobs.name_of(n), f'take {n // 2}')], '') for n in range(10)]
    )
    (ann, _), _ = stores.add_people(store)
    for number, task in enumerate(tasks):
      label = RUBRIC.labels[number % 2]
      stores.rate(store, ann, task, label, 'I saw it.')
    export.write_export(store, tmp_path / 'export')
  outcome = run(
    *critic_jobs.arguments(
      tmp_path / 'critic',
      data__root=root,
      data__hra=(str(tmp_path / 'export' / 'hra.json'),),
      data__questions=tmp_path / 'export' / 'questions.json',
      data__split__validation=0.0,
      data__split__test=0.0,
      data__pairs=('pairs.json',),
      train__steps=1,
      train__batch_size=32,
      train__trainable='parts',
      parts__vision_tower__training='full',
      losses__label=1.0,
      losses__pair=1.0,
      losses__overall=1.0,
    )
  )
  assert outcome.has_logged('1 pairs compared overall')
  # Five captions in two dimensions, and one of people, whose clips nobody
  # compared in the other dimension.
  assert outcome.has_logged('11 pairs, 2 examples in none of them')
  (line,) = jobs.metrics_of(tmp_path / 'critic')
  assert line['loss'] > line['soft_label_loss'] + line['overall_loss'] > 0
  prompts = read_rubric(tmp_path / 'critic' / 'export' / NAME)
  assert prompts.scale == RUBRIC.scale
  (root / 'test.json').write_text(
    json.dumps([{'video': critic_jobs.name_of(0), 'caption': 'take 0'}])
  )
  run(
    *score_jobs.flags(
      tmp_path / 'score',
      model__path=tmp_path / 'critic' / 'export',
      videos__root=root,
      videos__files=('test.json',),
      prompts__text_buckets=(160,),
      prompts__max_answer_tokens=0,
    )
  )
  (record,) = score_jobs.scores_of(tmp_path / 'score')
  assert list(record['probabilities']) == list(RUBRIC.questions)
  assert [list(p) for p in record['probabilities'].values()] == [
    ['Good', 'Bad']
  ] * 2
  # After one step no answer begins with a label.
  assert 0.25 <= record['soft_reward'] <= 1.0


LABELS = ('Superb', 'Fine', 'Weak', 'Poor')


@pytest.mark.fast
def test_evaluate(tmp_path):
  """Four labels and one dimension; its clips are ranked for lift align."""
  rubric = {
    'questions': {'taste': ' Is it in good taste?'},
    'labels': LABELS,
    'rewards': dict(zip(LABELS, (1.0, 0.5, 0.25, 0.0), strict=True)),
  }
  path = tmp_path / 'questions.json'
  path.write_text(json.dumps(rubric))
  with stores.create(tmp_path, read_rubric(path), raters_per_clip=1) as store:
    tasks = stores.add_clips(store, tmp_path, 8)
    (ann, _), _ = stores.add_people(store)
    for number, task in enumerate(tasks):
      stores.rate(store, ann, task, LABELS[number % 4])
    export.write_export(store, tmp_path / 'export')
  said = [LABELS[min(number % 4, 2)] for number in range(8)]
  scores = [
    {
      'video': f'x{number}.mp4',
      'caption': f'Caption x{number}.mp4.',
      'labels': {'taste': label},
      'ranks': {'taste': LABELS[::-1].index(label)},
      'taste answer': f'{label}. It is.',
      'score': rubric['rewards'][label],
    }
    for number, label in enumerate(said)
  ]
  (tmp_path / 'scores.json').write_text(json.dumps(scores))
  run(
    'evaluate',
    f'--config={jobs.REPOSITORY / "configs" / "eval_critic.py"}',
    f'--workdir={tmp_path / "run"}',
    f'--config.scores.files={(str(tmp_path / "scores.json"),)}',
    f'--config.labels.root={tmp_path}',
    f'--config.labels.files={(str(tmp_path / "export" / "hra.json"),)}',
    f'--config.labels.questions={path}',
    '--config.calibration.fraction=0.0',
    '--config.metrics.bootstrap.draws=10',
  )
  result = json.loads((tmp_path / 'run' / 'evaluation.json').read_text())
  assert result['classes'] == list(LABELS[::-1])
  assert list(result['dimensions']) == ['taste']
  taste = result['dimensions']['taste']
  assert taste['human'] == dict.fromkeys(LABELS, 2)
  assert taste['agreement']['accuracy']['value'] == 6 / 8
  # Of annotators by critic, from Poor to Superb: two Poor ones are called Weak.
  assert taste['confusion'][0] == [0, 2, 0, 0, 0]
  assert result['reward']['labels']['clips'] == 8
  page = (tmp_path / 'run' / 'report.html').read_text()
  assert all(label in page for label in LABELS)
  records = read_alignment(tmp_path, ['scores.json']).records
  assert [record.dimensions['taste'] for record in records[:4]] == [3, 2, 1, 1]
