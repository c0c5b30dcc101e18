"""Model folders in both formats: equal fingerprints and complete content."""

import dataclasses
import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lift_jax import partitioning
from lift_jax.errors import UserError
from lift_jax.models import generator_folder as folder_lib
from lift_jax.models import generators
from lift_jax.models.cogvideox.model import CogVideoXSizes
from lift_jax.models.generators import NETWORKS, TOKENIZER, open_model
from lift_jax.weights import (
  checkpoints,
  param_paths,
  safetensors_files,
)
from tests.models.cogvideox.tiny_pipeline import make_pipeline
from tests.optional import diffusers, safetensors_torch

ENCODER = 'text_encoder/model.safetensors'


@pytest.fixture(scope='module')
def published(tmp_path_factory):
  path = tmp_path_factory.mktemp('published')
  make_pipeline().save_pretrained(path)
  return path


@pytest.fixture(scope='module')
def ours(published, tmp_path_factory):
  target = tmp_path_factory.mktemp('ours')
  model = open_model(published)
  folder_lib.copy_configs(model, target)
  for network in NETWORKS:
    folder_lib.write_orbax(model, network, target)
  return open_model(target)


@pytest.fixture
def copy(published, tmp_path):
  """A published folder that a test may modify."""
  return shutil.copytree(published, tmp_path / 'copy')


def fingerprints(model):
  names = (*NETWORKS, TOKENIZER)
  return {name: model.fingerprint(name) for name in names}


class TestFingerprint:
  def test_same_in_both_formats(self, published, ours):
    assert fingerprints(ours) == fingerprints(open_model(published))

  def test_same_in_both_formats_after_a_cast(self, published, tmp_path):
    model = open_model(published)
    names = ('transformer', 'text_encoder')  # of large tensors, and of tied
    folder_lib.copy_configs(model, tmp_path / 'ours')
    folder_lib.copy_configs(model, tmp_path / 'again')
    for name in names:
      folder_lib.write_orbax(model, name, tmp_path / 'ours', 'bfloat16')
    ours = open_model(tmp_path / 'ours')
    for name in names:
      folder_lib.write_published(ours, name, tmp_path / 'again')
    again = open_model(tmp_path / 'again')
    for name in names:
      assert ours.fingerprint(name) == again.fingerprint(name)
      assert ours.fingerprint(name) != model.fingerprint(name)

  def test_is_that_of_safetensors(self, published):
    model = open_model(published)
    for name, network in model.networks.items():
      assert model.weights_fingerprint(name) == safetensors_files.fingerprint(
        safetensors_files.open_tensors(published / name, network.stem)
      )

  def test_cast_that_changes_nothing(self, published):
    model = open_model(published)
    assert model.weights_fingerprint(
      'vae', jnp.float32
    ) == model.weights_fingerprint('vae')

  def test_other_name_of_a_tied_tensor(self, published, copy):
    tensors = safetensors_torch.load_file(copy / ENCODER)
    shared = tensors.pop('shared.weight')
    alias = {'encoder.embed_tokens.weight': shared}
    expected = open_model(published).fingerprint('text_encoder')
    for extra in (alias, {**alias, 'shared.weight': shared.clone()}):
      safetensors_torch.save_file({**tensors, **extra}, copy / ENCODER)
      found = open_model(copy).fingerprint('text_encoder')
      assert found == expected

  def test_differs_between_models(self, copy):
    before = fingerprints(open_model(copy))
    tensors = safetensors_torch.load_file(copy / ENCODER)
    tensors['shared.weight'][-1, -1] += 1
    safetensors_torch.save_file(tensors, copy / ENCODER)
    vae = json.loads((copy / 'vae/config.json').read_text())
    vae['scaling_factor'] = 0.7
    (copy / 'vae/config.json').write_text(json.dumps(vae))
    after = fingerprints(open_model(copy))
    changed = {name for name in before if before[name] != after[name]}
    assert changed == {'text_encoder', 'vae'}


class TestFormats:
  def test_load_spread_and_cast(self, published, ours):
    mesh = partitioning.make_mesh(partitioning.MeshConfig(tensor=2))
    for name in NETWORKS:
      network = ours.declare(name)
      shardings = partitioning.param_shardings(
        ours.networks[name].rules, network.abstract_params, mesh
      )
      expected = open_model(published).load(name, network, None)
      for dtype in (None, jnp.bfloat16):
        params = ours.load(name, network, shardings, dtype)
        assert jax.tree.map(lambda x: x.sharding, params) == shardings
        for path, leaf in param_paths.flatten(expected).items():
          found = param_paths.flatten(params)[path]
          np.testing.assert_array_equal(found, leaf.astype(found.dtype), path)
          assert found.dtype == dtype or dtype is None

  def test_weights_of_another_model(self, ours):
    network = ours.declare('vae')
    with pytest.raises(
      UserError, match='is of another model: .* differ.; give'
    ):
      checkpoints.load_params(
        ours.path / 'transformer' / generators.PARAMS,
        network.abstract_params,
        None,
      )

  def test_damaged(self, ours, tmp_path):
    broken = shutil.copytree(ours.path, tmp_path / 'broken')
    model = open_model(broken)
    network = model.declare('vae')
    (broken / 'vae' / generators.PARAMS / '_METADATA').write_text('{')
    with pytest.raises(UserError, match='vae/params has no parameters'):
      model.load('vae', network, None)
    (broken / 'vae' / generators.FINGERPRINT).unlink()
    with pytest.raises(UserError, match='fingerprint.txt cannot be read'):
      model.fingerprint('vae')


class TestConfigs:
  def test_other_keys_are_kept(self, published, tmp_path):
    model = open_model(published)
    folder_lib.copy_configs(model, tmp_path, 'bfloat16')
    for path in published.rglob('*.json'):
      name = path.relative_to(published)
      if name.name.endswith('.index.json'):
        continue
      old = json.loads(path.read_text())
      new = json.loads((tmp_path / name).read_text())
      if str(name) == 'text_encoder/config.json':
        assert (old['dtype'], new['dtype']) == ('float32', 'bfloat16')
        old['dtype'] = new['dtype']
      assert new == old, name

  def test_no_tokenizer(self, copy, tmp_path):
    shutil.rmtree(copy / 'tokenizer')
    with pytest.raises(UserError, match='download the tokenizer'):
      folder_lib.copy_configs(open_model(copy), tmp_path / 'x')

  def test_error_names_the_folder(self, copy):
    name = copy / 'scheduler/scheduler_config.json'
    config = json.loads(name.read_text())
    name.write_text(json.dumps({**config, 'beta_schedule': 'linear'}))
    with pytest.raises(UserError, match=f'{copy}: scheduler/.*beta_schedule'):
      open_model(copy)


def test_diffusers_loads_random_models(published, tmp_path):
  like = open_model(published)
  target = tmp_path / 'model'
  parts = {name: getattr(like, name) for name in generators.CONFIG_FILES}
  sizes = CogVideoXSizes(family='cogvideox', seed=3, **parts)
  folder_lib.make_random_model(target, sizes)
  model = open_model(target)
  assert {name: getattr(model, name) for name in parts} == parts
  pipeline = diffusers.CogVideoXPipeline.from_pretrained(target)
  ids = pipeline.tokenizer('ab').input_ids
  assert ids == [ord('a') + 3, ord('b') + 3, pipeline.tokenizer.eos_token_id]
  before = (target / ENCODER).read_bytes()
  folder_lib.make_random_model(target, dataclasses.replace(sizes, seed=4))
  assert (target / ENCODER).read_bytes() == before
