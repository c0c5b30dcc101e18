"""Jobs on models, adapters and data sets of the Hugging Face Hub.

The server is that of `tests.hub_server`; what it has are the folders that other
tests of jobs read from disk.
"""

import json
import shutil
from unittest import mock

import jax
import numpy as np
import pytest
from safetensors.numpy import save_file

from lift_jax.errors import UserError
from lift_jax.models import generator_config, generator_folder, generators
from lift_jax.models.adapter_config import AdapterConfig
from lift_jax.runtime import hub
from tests import hub_server
from tests.jobs import jobs, sample_jobs

# Beside the model, and not read.
NOT_READ = {
  'transformer/diffusion_pytorch_model.bin': b'a pickle',
  'transformer/diffusion_pytorch_model.fp16.safetensors': b'other weights',
  'safety_checker/model.safetensors': b'another network',
  'sat/1000/mp_rank_00_model_states.pt': b'a pickle',
}


@pytest.fixture
def server(tmp_path):
  with hub_server.serve() as server:
    with hub_server.use(server.url, tmp_path / 'hub'):
      yield server


@pytest.fixture
def model(server, world):
  """The folder of the model org/model, as it is on disk."""
  folder = world.workdir / 'model'
  server.add_folder('models/org/model', folder, **NOT_READ)
  return folder


def refused(outcome, *words):
  assert outcome.status == 2
  assert len(outcome.stderr.splitlines()) == 1
  for word in words:
    assert word in outcome.stderr, outcome.stderr


def test_same_model(server, model):
  found = generators.fetch_model('org/model')
  ours, theirs = generators.open_model(found), generators.open_model(model)
  for part in (*generators.NETWORKS, generators.TOKENIZER):
    assert ours.fingerprint(part) == theirs.fingerprint(part)
  for network in generators.NETWORKS:
    declared = ours.declare(network)
    jax.tree.map(
      np.testing.assert_array_equal,
      ours.load(network, declared, None),
      theirs.load(network, declared, None),
    )
  read = {str(path.relative_to(model)) for path in model.rglob('*.*')}
  assert set(server.downloads()) == read


def choice(**settings):
  settings = {'path': 'org/model', 'adapter': '', 'random': None} | settings
  return generator_config.ModelConfig(
    **settings, compute_dtype='float32', attention='auto'
  )


def test_planned_model(server, model):
  """A plan needs no weights."""
  declared = generator_config.declare_chosen(choice())
  expected = generators.open_model(model)
  assert declared.transformer == expected.transformer
  assert not [name for name in server.downloads() if 'safetensors' in name]


def test_other_pipeline(server, model):
  """It is refused before its weights are downloaded."""
  index = json.dumps({'_class_name': 'WanPipeline'}).encode()
  server.add_folder('models/org/model', model, **{'model_index.json': index})
  with pytest.raises(UserError, match="_class_name is 'WanPipe"):
    generator_config.open_chosen(choice(), model)
  assert server.downloads() == ['model_index.json']


def test_adapter(server, model, tmp_path):
  layer = 'transformer.transformer_blocks.0.attn1.to_q'
  width = generators.open_model(model).transformer.width
  folder = tmp_path / 'adapter'
  folder.mkdir()
  save_file(
    {
      f'{layer}.lora_A.weight': np.ones((2, width), np.float32),
      f'{layer}.lora_B.weight': np.ones((width, 2), np.float32),
    },
    folder / 'pytorch_lora_weights.safetensors',
  )
  server.add_folder(
    'models/org/adapter',
    folder,
    **{'optimizer.pt': b'a pickle', 'step-10/adapter_model.safetensors': b''},
  )
  ours = generator_config.open_chosen(choice(adapter='org/adapter'), tmp_path)
  theirs = generators.open_model(model, [AdapterConfig(str(folder))])
  assert ours.adapters[0].fingerprint == theirs.adapters[0].fingerprint
  found = set(server.downloads())
  assert 'pytorch_lora_weights.safetensors' in found
  assert not found & {'optimizer.pt', 'step-10/adapter_model.safetensors'}


def test_convert(server, model, tmp_path):
  target = tmp_path / 'converted'
  with mock.patch.object(generator_folder, 'write_orbax') as write:
    outcome = jobs.lift('convert', '--from=org/model', f'--to={target}')
  assert outcome.status == 0, outcome
  expected = generators.open_model(model)
  written = {call.args[1]: call.args[0] for call in write.call_args_list}
  for network in generators.NETWORKS:
    found = written[network].fingerprint(network)
    assert found == expected.fingerprint(network)
  outcome = jobs.lift('convert', '--from=modles/x', f'--to={tmp_path / "x"}')
  refused(outcome, 'modles/x: no such file or folder', 'no such model')


def test_prepare(server, model, world, tmp_path):
  """The same cache; once it is there, the clips are not downloaded again."""
  commit = server.add_folder(
    'datasets/org/clips',
    world.root,
    **{'videos/never_named.mp4': b'', 'README.md': b'---\nlicense: mit\n---'},
  )
  settings = {
    'model__path': 'org/model',
    'data__root': f'org/clips@{commit}',
    'data__synthetic': 'all.json',
  }
  workdir = tmp_path / 'run'
  outcome = jobs.lift('prepare', *jobs.flags(workdir, **settings))
  assert (outcome.status, outcome.stderr) == (0, '')
  assert outcome.has_logged(f'org/clips@{commit}: licence mit')
  found, expected = (
    jobs.records_of(folder / 'cache') for folder in (workdir, world.workdir)
  )
  assert found == expected
  read = {name for name in server.downloads() if name.endswith('.mp4')}
  assert read == found.keys()
  shutil.rmtree(tmp_path / 'hub' / 'datasets--org--clips')
  server.requests.clear()
  hub.find_repository.cache_clear()
  outcome = jobs.lift('prepare', *jobs.flags(workdir, **settings))
  assert outcome.status == 0, outcome
  assert server.downloads() == ['README.md', 'all.json']


def test_prompts(server, model, tmp_path):
  """They are read before the size of clips is checked."""
  server.add('datasets/org/prompts', {'a.txt': b'a fox\ntwo kites\n'})
  flags = sample_jobs.flags(
    tmp_path / 'run',
    model__path=model,
    prompts__root='org/prompts',
    video__height=50,
  )
  outcome = jobs.lift('sample', *flags, '--config.prompts.file=a.txt')
  refused(outcome, 'height')
  assert outcome.has_logged('sample: 2 prompts, 2 videos')
  outcome = jobs.lift('sample', *flags, '--config.prompts.file=b.txt')
  refused(outcome, "no file 'b.txt'")
