"""Adapters in jobs: checked before any clip, with every setting."""

import json

import numpy as np
import pytest

from lift_jax import config_lib
from lift_jax.cli import job_flags
from lift_jax.jobs.sample import SampleConfig
from lift_jax.models import critic_tokens
from lift_jax.models.adapter_config import AdapterConfig
from lift_jax.toyworld import weights
from lift_jax.weights import safetensors_files
from tests.jobs import jobs

pytestmark = pytest.mark.fast

LISTS = {
  'sample': ('sample.py', {'prompts.file': 'list.json'}),
  'align': (
    'align_sample.py', {'data.root': '.', 'data.synthetic': ('list.json',)}
  ),
  'prepare': (
    'align_sample.py', {'data.root': '.', 'data.synthetic': ('list.json',)}
  ),
  'score': (
    'score.py', {'videos.root': '.', 'videos.files': ('list.json',)}
  ),
  'train_critic': (
    'critic_tiny.py', {'data.root': '.', 'data.hra': ('list.json',)}
  ),
}  # fmt: skip
QUESTIONS = critic_tokens.questions_path()
CRITIC_JOBS = ('score', 'train_critic')


def lift(job, tmp_path, **settings):
  """Runs a job whose list of clips is not readable."""
  config, lists = LISTS[job]
  (tmp_path / 'list.json').write_text('[{"video": ')
  is_critic = job in CRITIC_JOBS
  settings = {
    'model.path': weights.CRITIC if is_critic else weights.T2V,
    **({'model.template': 'hermes-2'} if is_critic else {}),
    **({'prompts.questions': QUESTIONS} if job == 'score' else {}),
    **{
      key: tmp_path / value if isinstance(value, str) else value
      for key, value in lists.items()
    },
    **settings,
  }
  return jobs.lift(
    job,
    f'--config={jobs.REPOSITORY / "configs" / config}:smoke',
    f'--workdir={tmp_path / "work"}',
    *(f'--config.{key}={value}' for key, value in settings.items()),
  )


def write(path, layer):
  """Adapters of one layer, in PEFT's names."""
  tensors = {
    f'{layer}.lora_A.weight': (2, 3),
    f'{layer}.lora_B.weight': (5, 2),
  }
  safetensors_files.write(
    path,
    [
      (name, shape, np.float32, lambda shape=shape: np.zeros(shape, np.float32))
      for name, shape in tensors.items()
    ],
  )
  return path


@pytest.mark.parametrize('job', LISTS)
def test_before_clips(job, tmp_path):
  """The adapters are named, not the list that cannot be read."""
  list_alone = lift(job, tmp_path)
  assert list_alone.status == 2 and 'list.json' in list_alone.stderr
  layers = {
    True: 'model.layers.0.self_attn.q_proj',
    False: 'transformer_blocks.0.attn1.to_q',
  }
  own = write(tmp_path / 'own.safetensors', layers[job in CRITIC_JOBS])
  other = write(tmp_path / 'other.safetensors', layers[job not in CRITIC_JOBS])
  missing = tmp_path / 'missing'
  for path, message in (
    (missing, 'no such file or folder'),
    (other, 'is an adapter of this network'),
    (own, 'is of another shape: [2, 3] instead of'),
  ):
    outcome = lift(job, tmp_path, **{'model.adapter': path})
    assert outcome.status == 2
    assert f'{path}: ' in outcome.stderr and message in outcome.stderr
    assert len(outcome.stderr.splitlines()) == 1
  several = f"({{'path': '{missing}', 'scale': 0.5}},)"
  outcome = lift(job, tmp_path, **{'model.adapters': several})
  assert f'{missing}: no such file or folder' in outcome.stderr


def test_settings(tmp_path):
  """On the command line, and from the JSON that a run writes."""
  several = "({'path': 'b', 'scale': 2}, {'path': 'c', 'alpha': 8.0})"
  config, source = job_flags.read_config(
    f'{jobs.REPOSITORY / "configs" / "sample.py"}:smoke',
    (
      '--config.model.adapter=a',
      '--config.model.adapter_scale=0.5',
      '--config.model.adapter_alpha=64',
      f'--config.model.adapters={several}',
    ),
    SampleConfig,
  )
  expected = (
    AdapterConfig('a', 0.5, 64.0),
    AdapterConfig('b', 2.0),
    AdapterConfig('c', alpha=8.0),
  )
  assert config.model.all_adapters == expected
  text = source.to_json_best_effort()
  again = config_lib.resolve(json.loads(text), SampleConfig)
  assert again == config
