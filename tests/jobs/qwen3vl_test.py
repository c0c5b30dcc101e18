"""Qwen3-VL through training and scoring, on a mesh, at the smallest size.

All parts are trained, with all losses.
"""

import json

import numpy as np
import pytest

from lift_jax.data.hra import DIMENSIONS, conversation
from lift_jax.models import critic_tokens
from lift_jax.weights import safetensors_files
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
  'model.compute_dtype': 'float32',
  'data.text_buckets': (256,),
  'train.export_dtype': 'float32',
  'train.steps': 2,
  'train.log_every': 1,
  'validation.every_steps': 2,
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
  """Wide and upright clips, which share batches; one has a single frame.

  There are two of each caption, of which the first is better.
  """
  root = tmp_path_factory.mktemp('data')
  questions = json.loads(critic_tokens.questions_path().read_text())[
    'questions'
  ]
  entries = []
  for index in range(NUM_CLIPS):
    size = (64, 96) if index % 2 else (96, 64)
    num_frames = 1 if index == 4 else 4 + index
    clips.write_clip(root / f'{index}.mp4', num_frames, *size, seed=index)
    label, votes = ('Bad', {'Bad': 2, 'Good': 1}) if index % 2 else ('Good', {})
    caption = f'square {index // 2}'
    entries += [
      conversation(f'{index}.mp4', caption, text, label, 'I saw it.', votes)
      for text in questions.values()
    ]
  (root / 'hra.json').write_text(json.dumps(entries))
  return root


@pytest.fixture(scope='module')
def trained(data, tmp_path_factory):
  workdir = tmp_path_factory.mktemp('critic')
  outcome = lift(
    'train_critic',
    'critic_qwen3vl_4b.py',
    workdir,
    SIZES | MESH | {'data.root': data},
  )
  assert outcome.has_logged('% of the tokens are padding')
  assert outcome.has_logged(' pairs, ')
  return workdir


def test_validation(trained):
  """Of every loss that is trained, before and after."""
  lines = [one for one in jobs.metrics_of(trained) if 'validation/loss' in one]
  assert [line['step'] for line in lines] == [0, 2]
  for line in lines:
    assert line.keys() == {'step'} | {
      f'validation/{name}'
      for name in (
        'loss', 'label_loss', 'token_accuracy', 'label_accuracy',
        'soft_label_loss', 'pair_loss', 'pair_accuracy',
      )
    }  # fmt: skip
    assert line['validation/soft_label_loss'] > 0
    assert line['validation/pair_loss'] > 0
    assert 0 <= line['validation/pair_accuracy'] <= 1


def test_training(trained):
  lines = [one for one in jobs.metrics_of(trained) if 'loss' in one]
  assert len(lines) == 2
  for line in lines:
    parts = line['soft_label_loss'], line['pair_loss'], line['pair_accuracy']
    assert np.isfinite([line['loss'], *parts]).all()
  # Votes are kept for `lift score` and others.
  records = json.loads((trained / 'splits' / 'train.json').read_text())
  assert any('votes' in one['conversations'][1] for one in records)


def test_what_is_trained(trained):
  """Each chosen part, and none of the others."""
  base, export = (
    safetensors_files.open_tensors(trained / name, 'model')
    for name in ('model', 'export')
  )
  changed = {
    name
    for name, tensor in base.items()
    if not np.array_equal(tensor[...], export[name][...])
  }
  assert base.keys() == export.keys()
  expected = {
    'model.visual.merger.linear_fc1.weight': True,
    'model.visual.blocks.0.attn.qkv.weight': True,
    'model.visual.blocks.0.attn.qkv.bias': False,
    'model.visual.pos_embed.weight': False,
    'model.language_model.layers.0.mlp.down_proj.weight': True,
    'model.language_model.embed_tokens.weight': False,
  }
  assert {name: name in changed for name in expected} == expected


@pytest.mark.parametrize(
  ('settings', 'words'),
  [
    ({'data.rated_pairs': False}, 'losses.pair is 1, but there is no pair'),
    ({'losses.pair': 0.0, 'data.pairs': ('p.json',)}, 'data.pairs is given'),
    ({'losses.overall': 1.0}, 'losses.overall is 1, but data.pairs is empty'),
    ({'train.grad_accum': 2}, 'works on 1 examples at a time'),
  ],
)
def test_refused(settings, words, trained, data, tmp_path):
  settings = {'data.root': data, 'model.path': trained / 'model'} | settings
  outcome = jobs.lift(
    'train_critic',
    f'--config={CONFIGS / "critic_qwen3vl_4b.py"}:smoke',
    f'--workdir={tmp_path}',
    *(
      f'--config.{key}={value}'
      for key, value in (SIZES | MESH | settings).items()
    ),
  )
  assert outcome.status == 2
  assert len(outcome.stderr.splitlines()) == 1
  assert words in outcome.stderr


def test_scores(trained, data, tmp_path):
  outcome = lift(
    'score',
    'score.py',
    tmp_path,
    MESH
    | {
      'model.path': trained / 'export',
      'videos.root': data,
      'videos.files': ('hra.json',),
      'run.batch_per_shard': 1,
      'prompts.text_buckets': (128,),
      'prompts.max_answer_tokens': 3,
      'frames.num_frames': 2,
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
  line = json.loads((tmp_path / 'ratings.jsonl').read_text().splitlines()[0])
  assert line['made_by']['frames'] == {'num_frames': 2}
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
