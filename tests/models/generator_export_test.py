"""Exports of trained parameters, loaded by diffusers."""

import jax
import numpy as np
import pytest

from lift_jax import partitioning
from lift_jax.models.adapter_config import AdapterConfig
from lift_jax.models.adapter_files import STEM
from lift_jax.models.adapter_names import DIFFUSERS_PREFIX
from lift_jax.models.cogvideox.convert import TRANSFORMER_TABLE
from lift_jax.models.generator_config import ModelConfig
from lift_jax.models.generator_export import write
from lift_jax.models.generators import open_model
from lift_jax.models.lora import LoRAConfig, adapter_table
from lift_jax.training import alignment
from lift_jax.weights import conversion, param_paths
from tests.models.cogvideox.reference import TINY
from tests.models.cogvideox.tiny_pipeline import (
  TOLERANCE,
  inputs,
  make_pipeline,
  run_torch,
)
from tests.optional import diffusers, safetensors_torch, torch
from tests.torch_weights import scaled_error

ADAPTERS = LoRAConfig(
  rank=2,
  alpha=3.0,
  targets=('blocks/attn/to_(q|out)', 'blocks/ff/.*', 'blocks/norm1/linear'),
)
CONFIG = ModelConfig(
  path='',
  adapter='',
  random=None,
  compute_dtype='float32',
  attention='auto',
)


@pytest.fixture(scope='module', params=[False, True], ids=['2B', '5B'])
def model(request, tmp_path_factory):
  path = tmp_path_factory.mktemp('base')
  make_pipeline(rotary=request.param).save_pretrained(path)
  return open_model(path)


def setup_of(model, trainable, adapters=ADAPTERS):
  """The setup of a run on eight devices."""
  mesh = partitioning.make_mesh(partitioning.MeshConfig(tensor=2))
  setup = alignment.make_setup(model, CONFIG, trainable, adapters, mesh)
  trained, frozen = alignment.load_base(
    setup, model, CONFIG.compute_dtype, jax.random.key(0)
  )
  return setup, trained, frozen


def changed(params, std):
  """`params` with noise, in place of training."""
  rng = np.random.default_rng(5)
  return jax.tree.map(
    lambda leaf: jax.device_put(
      leaf + std * rng.normal(size=leaf.shape).astype(leaf.dtype), leaf.sharding
    ),
    params,
  )


def run_ours(setup, trained, frozen):
  params = jax.device_get(param_paths.merge(trained, frozen))
  return np.asarray(jax.jit(setup.model)(params, *inputs()))


@pytest.mark.parametrize('trainable', ['blocks', 'all'])
def test_transformer_computes_the_same(model, trainable, tmp_path):
  setup, trained, frozen = setup_of(model, trainable)
  assert bool(frozen) == (trainable == 'blocks')
  trained = changed(trained, 0.05)
  target = tmp_path / 'export'
  write(model, target, trained, frozen, None, 'float32')
  module = diffusers.CogVideoXTransformer3DModel.from_pretrained(
    target / 'transformer'
  )
  ours, theirs = run_ours(setup, trained, frozen), run_torch(module)
  assert scaled_error(ours, theirs) < TOLERANCE
  base = diffusers.CogVideoXTransformer3DModel.from_pretrained(
    model.path / 'transformer'
  )
  assert scaled_error(run_torch(base), theirs) > 0.01
  # Other files are copied byte for byte.
  for part in ('vae', 'text_encoder', 'tokenizer', 'scheduler'):
    for path in (model.path / part).iterdir():
      copy = target / part / path.name
      if path.suffix == '.json':
        continue
      assert copy.read_bytes() == path.read_bytes(), copy
  assert list(tmp_path.iterdir()) == [target]


def test_adapters_compute_the_same(model, tmp_path):
  setup, trained, frozen = setup_of(model, 'lora')
  trained = changed(trained, 0.3)
  target = tmp_path / 'export'
  write(model, target, trained, frozen, ADAPTERS, 'float32')
  pipeline = diffusers.CogVideoXPipeline.from_pretrained(model.path)
  before = run_torch(pipeline.transformer)
  pipeline.load_lora_weights(target)
  after = run_torch(pipeline.transformer)
  assert scaled_error(run_ours(setup, trained, frozen), after) < TOLERANCE
  assert scaled_error(before, after) > 0.03
  assert len(pipeline.transformer.peft_config) == 1


def test_adapters_on_top_of_others(model, tmp_path):
  """One file for the base model, whatever layers each of them adapts."""
  setup, trained, frozen = setup_of(model, 'lora')
  first, both = tmp_path / 'first', tmp_path / 'both'
  write(model, first, changed(trained, 0.3), frozen, ADAPTERS, 'float32')
  # Again, with a scale of two, which our exports never have.
  tensors = safetensors_torch.load_file(first / f'{STEM}.safetensors')
  for name in list(tensors):
    if 'lora_B' in name:
      alpha = name.replace('lora_B.weight', 'alpha')
      tensors |= {alpha: torch.tensor(4.0), name: tensors[name] / 2}
  (tmp_path / 'scaled').mkdir()
  file = tmp_path / 'scaled' / f'{STEM}.safetensors'
  safetensors_torch.save_file(tensors, file)
  # Twice, each at half its strength.
  half = AdapterConfig(str(tmp_path / 'scaled'), scale=0.5)
  below = open_model(model.path, [half, half])
  assert 'scale 0.5: W + 1 B A' in below.adapters[0].describe()
  others = LoRAConfig(
    rank=4, alpha=2.0, targets=('blocks/attn/to_[qv]', 'proj_out')
  )
  setup, trained, frozen = setup_of(below, 'lora', others)
  trained = changed(trained, 0.2)
  write(below, both, trained, frozen, others, 'float32')
  pipeline = diffusers.CogVideoXPipeline.from_pretrained(model.path)
  pipeline.load_lora_weights(first)
  after_one = run_torch(pipeline.transformer)
  pipeline.unload_lora_weights()
  pipeline.load_lora_weights(both)
  after_both = run_torch(pipeline.transformer)
  assert scaled_error(run_ours(setup, trained, frozen), after_both) < TOLERANCE
  assert scaled_error(after_one, after_both) > 0.03

  # We can open it, too.
  again = open_model(model.path, [AdapterConfig(str(both))])
  network = again.declare('transformer')
  ours = jax.jit(network)(again.load('transformer', network, None), *inputs())
  assert scaled_error(ours, after_both) < TOLERANCE
  assert again.adapters[0].rank == 2 * ADAPTERS.rank + others.rank


def test_full_model_on_top_of_adapters(model, tmp_path):
  _, trained, frozen = setup_of(model, 'lora')
  trained = changed(trained, 0.3)
  write(model, tmp_path / 'x', trained, frozen, ADAPTERS, 'float32')
  below = open_model(model.path, [AdapterConfig(str(tmp_path / 'x'))])
  setup, trained, frozen = setup_of(below, 'blocks')
  target = tmp_path / 'export'
  write(below, target, trained, frozen, None, 'float32')
  module = diffusers.CogVideoXTransformer3DModel.from_pretrained(
    target / 'transformer'
  )
  pipeline = diffusers.CogVideoXPipeline.from_pretrained(model.path)
  pipeline.load_lora_weights(tmp_path / 'x')
  error = scaled_error(run_torch(module), run_torch(pipeline.transformer))
  assert error < TOLERANCE


def test_dtype_and_replaced_target(model, tmp_path):
  _, trained, frozen = setup_of(model, 'lora')
  target = tmp_path / 'export'
  for dtype in (torch.float32, torch.bfloat16):
    name = str(dtype).removeprefix('torch.')
    write(model, target, trained, frozen, ADAPTERS, name)
    (file,) = target.iterdir()
    tensors = safetensors_torch.load_file(file)
    assert {tensor.dtype for tensor in tensors.values()} == {dtype}
  sources = conversion.resolve(
    adapter_table(TRANSFORMER_TABLE, DIFFUSERS_PREFIX), trained
  )
  names = {name for source in sources.values() for name in source.names}
  # Two linear layers of attention, two after it, one before; A and B.
  assert tensors.keys() == names and len(names) == TINY['num_layers'] * 5 * 2
