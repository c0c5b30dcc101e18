"""Qwen3-VL through training and scoring, on a mesh, at the smallest size."""

import json

import numpy as np
import pytest

from lift_jax.data.hra import DIMENSIONS, conversation
from lift_jax.models import critic_tokens
from tests.data import clips
from tests.jobs import jobs

CONFIGS = jobs.REPOSITORY / 'configs'
NUM_CLIPS = 10
# Both key heads on devices of their own.
MESH = {'mesh.data': 1, 'mesh.fsdp': 4, 'mesh.tensor': 2}
SIZES = {
  'model.random.vision_tower.width': 16,
  'model.random.vision_tower.num_layers': 2,
  'model.random.vision_tower.mlp_width': 16,
  'model.random.vision_tower.out_width': 16,
  'model.random.vision_tower.num_positions': 16,
  'model.random.llm.width': 16,
  'model.random.llm.num_layers': 1,
  'model.random.llm.head_dim': 8,
  'model.random.llm.mlp_width': 16,
  'model.random.rope_sections': (2, 1, 1),
  'model.random.video.num_frames': 4,
  'model.random.video.min_pixels': 4096,
  'data.text_buckets': (256,),
  'train.steps': 2,
  'train.log_every': 1,
  'validation.every_steps': 0,
}


def lift(job, config, workdir, settings):
  outcome = jobs.lift(
    job,
    f'--config={CONFIGS / config}:smoke',
    f'--workdir={workdir}',
    *(f'--config.{key}={value}' for key, value in settings.items()),
  )
  assert (outcome.status, outcome.stderr) == (0, '')
  return outcome


@pytest.fixture(scope='module')
def data(tmp_path_factory):
  """Wide and upright clips, which share batches; one has a single frame."""
  root = tmp_path_factory.mktemp('data')
  questions = json.loads(critic_tokens.questions_path().read_text())[
    'questions'
  ]
  entries = []
  for index in range(NUM_CLIPS):
    size = (64, 96) if index % 2 else (96, 64)
    num_frames = 1 if index == 4 else 4 + index
    clips.write_clip(root / f'{index}.mp4', num_frames, *size, seed=index)
    entries += [
      conversation(f'{index}.mp4', f'square {index}', text, 'Good', 'I saw it.')
      for text in questions.values()
    ]
  (root / 'hra.json').write_text(json.dumps(entries))
  return root


@pytest.fixture(scope='module')
def trained(data, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('critic')
  lift(
    'train_critic',
    'critic_qwen3vl_4b.py',
    workdir,
    SIZES | MESH | {'data.root': data},
  )
  return workdir


def test_training(trained):
  losses = [one['loss'] for one in jobs.metrics_of(trained) if 'loss' in one]
  assert len(losses) == 2
  assert np.isfinite(losses).all()
  (trained / 'export' / 'adapter_model.safetensors').stat()


def test_scores(trained, data, tmp_path):
  outcome = lift(
    'score',
    'score.py',
    tmp_path,
    MESH
    | {
      'model.path': trained / 'model',
      'model.adapter': trained / 'export',
      'videos.root': data,
      'videos.files': ('hra.json',),
      'run.batch_per_shard': 1,
      'prompts.text_buckets': (128,),
      'prompts.max_answer_tokens': 3,
    },
  )
  assert outcome.has_logged(f'{NUM_CLIPS} videos')
  records = json.loads((tmp_path / 'scores.json').read_text())
  assert len(records) == NUM_CLIPS
  for record in records:
    assert record['template'] == 'qwen3-vl'
    for dimension in DIMENSIONS:
      assert sum(record['probabilities'][dimension].values()) == pytest.approx(
        1
      )
  # They depend on the frames.
  assert len({record['soft_reward'] for record in records}) == NUM_CLIPS
  assert 'single frame' in records[4]['flags']


def test_template_of_another_backbone(trained, data, tmp_path):
  outcome = jobs.lift(
    'score',
    f'--config={CONFIGS / "score.py"}:smoke',
    f'--workdir={tmp_path}',
    f'--config.model.path={trained / "model"}',
    '--config.model.template=vicuna_v1',
  )
  assert outcome.status == 2
  assert (
    "model.template is 'vicuna_v1'; choose one of ['qwen3-vl', "
    "'qwen3-vl-nested']"
  ) in outcome.stderr
