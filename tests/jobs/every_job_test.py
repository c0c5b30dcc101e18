"""Every job once, at the smallest size, each on what another one left."""

import json
import shutil

import pytest

from lift_jax.models.generators import open_model
from tests.jobs import critic_jobs, jobs, sample_jobs, score_jobs

pytestmark = pytest.mark.fast


def run(*argv: str) -> jobs.Outcome:
  outcome = jobs.lift(*argv)
  assert (outcome.status, outcome.stderr) == (0, ''), outcome
  return outcome


@pytest.fixture(scope='module')
def aligned(world, tmp_path_factory):
  """The workdir of a `lift align` of one step."""
  workdir = tmp_path_factory.mktemp('align')
  run(*world.align(workdir, train__steps=1, train__export=True))
  return workdir


@pytest.fixture(scope='module')
def critic(tmp_path_factory):
  """The workdir of a `lift train_critic` of one step."""
  workdir = tmp_path_factory.mktemp('critic')
  critic_jobs.make_clips(workdir / 'data', 10)
  run(
    *critic_jobs.arguments(workdir, data__root=workdir / 'data', train__steps=1)
  )
  return workdir


def test_prepare(world):
  assert (world.outcome.status, world.outcome.stderr) == (0, '')
  index = json.loads((world.workdir / 'cache' / 'index.json').read_text())
  assert len(index['records']) == 11


def test_align(aligned):
  assert jobs.steps_of(aligned) == [1]
  assert jobs.checkpoints_of(aligned) == ['1']


@pytest.fixture(scope='module')
def sampled(aligned, tmp_path_factory):
  """The workdir of a `lift sample`."""
  folder = tmp_path_factory.mktemp('sample')
  settings = {f'mesh__{axis}': 1 for axis in ('context', 'tensor')}
  run(
    *sample_jobs.arguments(
      folder / 'run', aligned / 'export', folder,
      mesh__data=8, sampler__num_steps=1, **settings,
    )
  )  # fmt: skip
  return folder / 'run'


def test_sample(sampled):
  lines = sample_jobs.lines_of(sampled)
  assert [line['prompt'] for line in lines] == list(sample_jobs.PROMPTS)


def test_calibrate(aligned, tmp_path):
  settings = {f'mesh__{axis}': 1 for axis in ('context', 'tensor')}
  _, *flags = sample_jobs.arguments(
    tmp_path / 'run', aligned / 'export', tmp_path,
    mesh__data=8, sampler__num_steps=2, **settings,
  )  # fmt: skip
  run('calibrate', *flags)
  curve = json.loads((tmp_path / 'run' / 'cache_curve.json').read_text())
  assert len(curve['residual_ratios']['positive']) == 2


def test_compare(sampled, tmp_path):
  again = shutil.copytree(sampled, tmp_path / 'again')
  run(
    'compare',
    f'--config={jobs.REPOSITORY / "configs" / "compare.py"}',
    f'--workdir={tmp_path / "compare"}',
    f'--config.models.folders={(str(sampled), str(again))}',
  )
  result = json.loads((tmp_path / 'compare' / 'comparison.json').read_text())
  (comparison,) = result['comparisons']
  assert comparison['same_noise'] == 1
  assert {row['difference']['value'] for row in comparison['rows']} == {0}


def test_convert(aligned, tmp_path):
  published, ours = aligned / 'export', tmp_path / 'ours'
  run('convert', f'--from={published}', f'--to={ours}')
  fingerprints = {
    open_model(path).fingerprint('transformer') for path in (published, ours)
  }
  assert len(fingerprints) == 1


def test_train_critic(critic):
  assert jobs.steps_of(critic) == [1]


def test_score(critic, world, tmp_path):
  run(
    *score_jobs.flags(
      tmp_path, model__path=critic / 'export', videos__root=world.root,
      videos__files=('wide.json',), prompts__text_buckets=(160,),
      prompts__max_answer_tokens=0,
    )
  )  # fmt: skip
  scores = score_jobs.scores_of(tmp_path)
  assert len(scores) == 8
  # After one step no answer begins with a label.
  assert all(0.05 <= record['soft_reward'] <= 0.9 for record in scores)


def test_evaluate(tmp_path):
  run(
    'evaluate',
    f'--config={jobs.REPOSITORY / "configs" / "eval_critic.py"}:smoke',
    f'--workdir={tmp_path}',
    '--config.metrics.bootstrap.draws=50',
    '--config.toy_clips=80',
  )
  assert json.loads((tmp_path / 'evaluation.json').read_text())['synthetic']


def test_plan(world):
  flags = [f for f in world.align('unused') if not f.startswith('--workdir')]
  planned = run('plan', '--json', '--topology=cpu:8', *flags[1:])
  assert json.loads(planned.stdout)
