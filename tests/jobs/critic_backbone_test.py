"""A second critic backbone through the jobs, none of which knows of it."""

import ast
import json

import numpy as np
import pytest

from lift_jax.data.hra import DIMENSIONS, conversation
from lift_jax.models import critic_tokens, critics
from lift_jax.models.functional import functional
from tests.data import clips
from tests.jobs import jobs
from tests.models import tiny_backbone

CONFIG = jobs.REPOSITORY / 'tests' / 'models' / 'tiny_backbone_config.py'
NUM_CLIPS = 10


@pytest.fixture(scope='module', autouse=True)
def _registered():
  with pytest.MonkeyPatch.context() as patch:
    patch.setattr(critics, '_registered', {})
    critics.register(tiny_backbone.BACKBONE)
    yield


def lift(job, workdir, **settings):
  flags = {key.replace('__', '.'): value for key, value in settings.items()}
  outcome = jobs.lift(
    job,
    f'--config={CONFIG}:{job}',
    f'--workdir={workdir}',
    *(f'--config.{key}={value}' for key, value in flags.items()),
  )
  assert (outcome.status, outcome.stderr) == (0, '')
  return outcome


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  """Clips of two shapes, which take 3 and 6 positions; one is short."""
  root = tmp_path_factory.mktemp('data')
  (root / 'videos').mkdir()
  questions = json.loads(critic_tokens.questions_path().read_text())[
    'questions'
  ]
  entries = []
  for index in range(NUM_CLIPS):
    name = f'videos/{index}.mp4'
    clips.write_clip(
      root / name,
      2 if index == 1 else 5 + index,
      16,
      32 if index % 2 else 16,
      seed=index,
    )
    entries += [
      conversation(name, f'a square {index}', text, 'Good', 'I saw it.')
      for text in questions.values()
    ]
  (root / 'hra.json').write_text(json.dumps(entries))
  return root


@pytest.fixture(scope='module', params=['all', 'lora'])
def trained(request, data, tmp_path_factory):
  workdir = tmp_path_factory.mktemp(request.param)
  lift('train_critic', workdir, data__root=data, train__trainable=request.param)
  return workdir


def test_training(trained):
  lines = jobs.metrics_of(trained)
  losses = [line['loss'] for line in lines if 'loss' in line]
  assert losses and np.isfinite(losses).all()
  seen = [line for line in lines if 'validation/loss' in line]
  assert [line['step'] for line in seen] == [0, 2, 4]
  assert seen[-1]['validation/loss'] < seen[0]['validation/loss']


def test_scoring(trained, data, tmp_path):
  """With what was exported; a reason changes nothing but the answer."""
  if (trained / 'export' / 'adapter_config.json').exists():
    critic = {
      'model__path': trained / 'model',
      'model__adapter': trained / 'export',
    }
  else:
    critic = {'model__path': trained / 'export'}
  records = {}
  for num_tokens in (0, 6):
    lift(
      'score',
      tmp_path / str(num_tokens),
      **critic,
      videos__root=data,
      videos__files=('hra.json',),
      prompts__max_answer_tokens=num_tokens,
    )
    path = tmp_path / str(num_tokens) / 'scores.json'
    records[num_tokens] = json.loads(path.read_text())
  assert len(records[0]) == NUM_CLIPS
  for plain, reasoned in zip(records[0], records[6], strict=True):
    assert plain['critic'] == reasoned['critic']
    for dimension in DIMENSIONS:
      np.testing.assert_allclose(
        list(plain['probabilities'][dimension].values()),
        list(reasoned['probabilities'][dimension].values()),
        rtol=1e-5,
      )
  flags = {record['video']: record['flags'] for record in records[0]}
  assert '2 frames' in flags['videos/1.mp4']
  assert '2 frames' not in flags['videos/3.mp4']


def test_branches_equal_whole_prompts():
  """Or else the test above would run on nonsense."""
  critic = tiny_backbone.BACKBONE.declare(
    tiny_backbone.BACKBONE.published['Tiny-1k']
  )
  model = functional(critic.build())
  rng = np.random.default_rng(0)
  params = {
    name: {key: rng.normal(size=leaf.shape) for key, leaf in layer.items()}
    for name, layer in model.abstract_params.items()
  }
  frames = {
    'squares': rng.uniform(size=(2, 3, 64)).astype(np.float32),
    'places': rng.integers(0, 3, (2, 3, 2)),
  }
  prefix_bn, rest_rm = rng.integers(4, 9, (2, 8)), rng.integers(4, 9, (6, 5))
  _, cache = model(
    params,
    frames,
    prefix_bn,
    np.array([8, 6]),
    max_length=13,
    num_branches=3,
    method='prefill',
  )
  hidden_rmd, _ = model(params, rest_rm, np.full(6, 5), cache, method='extend')
  for row in range(6):
    length = (8, 6)[row // 3]
    whole_n = np.concatenate([prefix_bn[row // 3, :length], rest_rm[row]])
    own = {
      name: array[row // 3 : row // 3 + 1] for name, array in frames.items()
    }
    expected_1nd = model(params, own, whole_n[None])
    np.testing.assert_allclose(
      hidden_rmd[row], expected_1nd[0, length:], rtol=1e-4, atol=1e-5
    )


@pytest.mark.parametrize('job', ['train_critic', 'score'])
def test_plan(job):
  outcome = jobs.lift(
    'plan',
    '--json',
    f'--job={job}',
    f'--config={CONFIG}:{job}',
    '--topology=cpu:8',
  )
  assert (outcome.status, outcome.stderr) == (0, '')
  (program,) = json.loads(outcome.stdout)['programs']
  assert program['fits'] is not False


def test_unknown_backbone(tmp_path):
  outcome = jobs.lift(
    'score',
    f'--config={CONFIG}:score',
    f'--workdir={tmp_path}',
    '--config.model.random.backbone=tyni',
  )
  assert outcome.status == 2
  assert "model.random.backbone is 'tyni'; choose one of" in outcome.stderr


BACKBONES = tuple(
  f'lift_jax.models.{name}'
  for name in ('vila', 'qwen3vl', 'llama', 'siglip', 'internvit')
)
# Makes the toy world's own VILA.
ALLOWED = ('toyworld/pretraining/critic_model.py',)


def test_nothing_else_knows_a_backbone():
  """Only `lift_jax/models` names one."""
  package = jobs.REPOSITORY / 'lift_jax'
  found = set()
  for path in package.rglob('*.py'):
    name = path.relative_to(package).as_posix()
    if name.startswith('models/') or name in ALLOWED:
      continue
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
      if isinstance(node, ast.ImportFrom):
        names = [f'{node.module}.{alias.name}' for alias in node.names]
      elif isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
      else:
        continue
      found |= {
        (name, imported)
        for imported in names
        if f'{imported}.'.startswith(tuple(f'{one}.' for one in BACKBONES))
      }
  assert not found
