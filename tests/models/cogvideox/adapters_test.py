"""LoRA adapters of a transformer on disk, compared with diffusers."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lift_jax import partitioning
from lift_jax.errors import UserError
from lift_jax.models import adapter_files, generator_folder, generators
from lift_jax.models.adapter_config import AdapterConfig
from lift_jax.models.cogvideox.convert import TRANSFORMER_TABLE
from lift_jax.models.cogvideox.sharding import TRANSFORMER_RULES
from lift_jax.weights import param_paths
from tests.models.cogvideox.reference import TINY
from tests.models.cogvideox.tiny_pipeline import (
  TOLERANCE,
  inputs,
  make_pipeline,
  run_torch,
)
from tests.optional import Package, diffusers, peft, safetensors_torch, torch
from tests.torch_weights import scaled_error

training_utils = Package('diffusers.training_utils')

RANK, ALPHA = 4, 6.0  # a scale that is not one
# In blocks and outside, as PEFT calls them.
TARGETS = ['to_q', 'to_out.0', 'ff.net.0.proj', 'text_proj', 'proj_out']
ADAPTED = {
  f'{layer}/kernel'
  for layer in ('blocks/attn/to_q', 'blocks/attn/to_out', 'blocks/ff/up',
                'text_proj', 'proj_out')
}  # fmt: skip
FILE = f'{adapter_files.STEM}.safetensors'


def lora_config(**changes):
  settings = {'r': RANK, 'lora_alpha': ALPHA, 'target_modules': TARGETS}
  # B does not start at zero.
  return peft.LoraConfig(init_lora_weights=False, **settings | changes)


@pytest.fixture(scope='module')
def base(tmp_path_factory):
  path = tmp_path_factory.mktemp('base')
  make_pipeline().save_pretrained(path)
  return path


@pytest.fixture(scope='module')
def forms(base, tmp_path_factory):
  """One set of adapters in every format, and diffusers' result with it."""
  root = tmp_path_factory.mktemp('adapters')
  transformer = diffusers.CogVideoXPipeline.from_pretrained(base).transformer
  torch.manual_seed(3)
  transformer.add_adapter(lora_config())
  layers = peft.get_peft_model_state_dict(transformer)
  diffusers.CogVideoXPipeline.save_lora_weights(
    root / 'header',
    transformer_lora_layers=layers,
    **training_utils._collate_lora_metadata({'transformer': transformer}),
  )

  scaled = {
    f'transformer.{name}': ALPHA / RANK * x if 'lora_B' in name else x
    for name, x in layers.items()
  }
  plain = {f'transformer.{name}': x for name, x in layers.items()}
  scalars = {
    name.replace('lora_A.weight', 'alpha'): torch.tensor(ALPHA)
    for name in plain
    if 'lora_A' in name
  }
  for name, tensors in (('plain', scaled), ('scalars', plain | scalars)):
    save(root / name, tensors)
  (root / 'file').mkdir()
  shutil.copy(root / 'plain' / FILE, root / 'file' / 'any.safetensors')

  other = diffusers.CogVideoXPipeline.from_pretrained(base).transformer
  wrapped = peft.get_peft_model(other, lora_config())
  peft.set_peft_model_state_dict(
    wrapped, {f'base_model.model.{k}': v for k, v in layers.items()}
  )
  wrapped.save_pretrained(root / 'peft')

  pipeline = diffusers.CogVideoXPipeline.from_pretrained(base)
  before = run_torch(pipeline.transformer)
  pipeline.load_lora_weights(root / 'header')
  after = run_torch(pipeline.transformer)
  assert scaled_error(before, after) > 0.03
  # The scale in the header applies.
  pipeline.unload_lora_weights()
  pipeline.load_lora_weights(plain)
  assert scaled_error(run_torch(pipeline.transformer), after) > 0.01
  return root, after


def open_model(base, *paths, **settings):
  """The model with adapters, by their paths."""
  return generators.open_model(
    base, tuple(AdapterConfig(str(path), **settings) for path in paths)
  )


def save(folder, tensors, metadata=None):
  folder.mkdir()
  contiguous = {name: x.contiguous() for name, x in tensors.items()}
  safetensors_torch.save_file(contiguous, folder / FILE, metadata)
  return folder


@pytest.fixture
def spoil(forms, tmp_path):
  """`spoil(change)` writes plain adapters modified by `change(tensors)`."""

  def write(change, metadata=None):
    tensors = safetensors_torch.load_file(forms[0] / 'plain' / FILE)
    change(tensors)
    return save(tmp_path / 'spoiled', tensors, metadata)

  return write


def shardings_of(network):
  mesh = partitioning.make_mesh(
    partitioning.MeshConfig(data=2, fsdp=2, tensor=2)
  )
  return partitioning.param_shardings(
    TRANSFORMER_RULES, network.abstract_params, mesh
  )


def load(model, dtype=None, shardings=None):
  return model.load('transformer', model.declare('transformer'), shardings,
                    dtype)  # fmt: skip


def random_matrices(rank, seed):
  """A and B of a projection of attention."""
  rng, width = np.random.default_rng(seed), 32
  return [
    torch.tensor(rng.normal(size=shape), dtype=torch.float32)
    for shape in ((rank, width), (width, rank))
  ]


def assert_same(params, expected):
  expected = flat(expected)
  for name, leaf in flat(params).items():
    np.testing.assert_array_equal(leaf, expected[name], name)


def flat(params):
  return param_paths.flatten(jax.device_get(params))


class TestMerged:
  @pytest.mark.parametrize(
    'form', ['plain', 'header', 'scalars', 'peft', 'file/any.safetensors']
  )
  def test_computes_as_diffusers(self, base, forms, form):
    root, expected = forms
    model = open_model(base, root / form)
    network = model.declare('transformer')
    shardings = shardings_of(network)
    params = model.load('transformer', network, shardings, jnp.float32)
    assert jax.tree.map(lambda x: x.sharding, params) == shardings
    ours = jax.jit(network)(jax.device_get(params), *inputs())
    assert scaled_error(ours, expected) < TOLERANCE

  def test_names_of_kohya_and_sat(self, base, tmp_path):
    """The same bits as with the names of diffusers."""
    forms = {name: {} for name in ('diffusers', 'kohya', 'sat')}
    for number, part in enumerate(('to_q', 'to_k', 'to_v', 'to_out.0')):
      module = f'transformer_blocks.1.attn1.{part}'
      kohya = f'lora_unet__{module.replace(".", "_")}'
      layer, index = ('query_key_value', number) if number < 3 else ('dense', 0)
      sat = f'model.diffusion_model.transformer.layers.1.attention.{layer}'
      a, b = random_matrices(3, number)
      alpha = torch.tensor(2.0)
      forms['diffusers'] |= {
        f'transformer.{module}.lora_A.weight': a,
        f'transformer.{module}.lora_B.weight': b,
        f'transformer.{module}.alpha': alpha,
      }
      forms['kohya'] |= {
        f'{kohya}.lora_down.weight': a,
        f'{kohya}.lora_up.weight': b,
        f'{kohya}.alpha': alpha,
      }
      forms['sat'] |= {
        f'{sat}.matrix_A.{index}': a,
        f'{sat}.matrix_B.{index}': b,
      }
    paths = {
      name: save(tmp_path / name, tensors) for name, tensors in forms.items()
    }
    expected = open_model(base, paths['diffusers'])
    for found in (
      open_model(base, paths['kohya']),
      open_model(base, paths['sat'], alpha=2.0),
    ):
      assert_same(load(found), load(expected))
    with pytest.raises(UserError, match=r'SAT.*model\.adapter_alpha'):
      open_model(base, paths['sat'])

  def test_fused_projections(self, base, tmp_path):
    """A is that of all three; the rows of B are those of q, k and v."""
    a, b_q = random_matrices(3, 0)
    parts = {'q': b_q, 'k': random_matrices(3, 1)[1], 'v': 2 * b_q}
    block = 'transformer.transformer_blocks.0.attn1'
    together = {
      f'{block}.to_qkv.lora_A.weight': a,
      f'{block}.to_qkv.lora_B.weight': torch.cat([*parts.values()]),
    }
    fused = save(tmp_path / 'fused', together)
    split = {}
    for part, b in parts.items():
      split[f'{block}.to_{part}.lora_A.weight'] = a.clone()
      split[f'{block}.to_{part}.lora_B.weight'] = b
    split = save(tmp_path / 'split', split)
    assert_same(load(open_model(base, fused)), load(open_model(base, split)))

  def test_several(self, base, forms, tmp_path):
    """Their sum, as diffusers adds them."""
    a, b = random_matrices(2, 5)
    module = 'transformer.transformer_blocks.0.attn1.to_q'
    tensors = {f'{module}.lora_A.weight': a, f'{module}.lora_B.weight': b}
    other = save(tmp_path / 'other', tensors)
    pipeline = diffusers.CogVideoXPipeline.from_pretrained(base)
    files = {forms[0] / 'plain': 0.5, other: -2.0}
    for path, scale in files.items():
      pipeline.load_lora_weights(path)
      pipeline.fuse_lora(lora_scale=scale)
      pipeline.unload_lora_weights()
    model = generators.open_model(
      base, [AdapterConfig(str(path), scale) for path, scale in files.items()]
    )
    params = load(model, jnp.float32)
    ours = jax.jit(model.declare('transformer'))(params, *inputs())
    theirs = run_torch(pipeline.transformer)
    assert scaled_error(ours, theirs) < TOLERANCE
    assert scaled_error(forms[1], theirs) > 0.01

  def test_one_device_and_orbax(self, base, forms, tmp_path):
    stored = open_model(base)
    generator_folder.copy_configs(stored, tmp_path)
    generator_folder.write_orbax(stored, 'transformer', tmp_path)
    for component in ('vae', 'text_encoder'):
      shutil.copytree(base / component, tmp_path / component,
                      dirs_exist_ok=True)  # fmt: skip
    before = flat(load(stored))
    whole = [
      flat(load(open_model(path, forms[0] / 'plain')))
      for path in (base, tmp_path)
    ]
    model = open_model(base, forms[0] / 'plain')
    spread = load(model, None, shardings_of(model.declare('transformer')))
    for name, leaf in flat(spread).items():
      np.testing.assert_allclose(whole[0][name], leaf, rtol=1e-5, atol=1e-6)
      np.testing.assert_array_equal(whole[0][name], whole[1][name], name)
      changed = np.abs(leaf - before[name]).max() > 1e-3
      assert changed == (name in ADAPTED), name

  @pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
  def test_rounded_once(self, forms, dtype, tmp_path):
    """The sum is fp32, whatever the type of the stored weights."""
    make_pipeline(transformer=dtype).save_pretrained(tmp_path)
    model = open_model(tmp_path, forms[0] / 'plain')
    shardings = shardings_of(model.declare('transformer'))
    wide = flat(load(model, jnp.float32, shardings))
    narrow = load(model, jnp.bfloat16, shardings)
    assert jax.tree.map(lambda x: x.sharding, narrow) == shardings
    narrow = flat(narrow)
    stored = flat(load(open_model(tmp_path), jnp.float32))
    kept = flat(load(model, None, shardings))
    adapters = safetensors_torch.load_file(forms[0] / 'plain' / FILE)
    for name, leaf in wide.items():
      expected, tolerance = stored[name], 0
      if name in ADAPTED:
        expected = stored[name] + update_of(adapters, name)
        tolerance = 1e-6
        assert kept[name].dtype == np.float32
        np.testing.assert_array_equal(kept[name], leaf)
      else:
        assert str(kept[name].dtype) == str(dtype).removeprefix('torch.')
      np.testing.assert_allclose(leaf, expected, rtol=0, atol=tolerance)
      np.testing.assert_array_equal(narrow[name], leaf.astype(jnp.bfloat16))
      assert narrow[name].dtype == jnp.bfloat16

  def test_error_of_bfloat16(self, base, forms):
    """Weights are off by half a unit in the last of eight bits, at most.

    So of a weight that is bfloat16 itself, adapters that add less than a 512th
    of it are lost. What the network computes is no worse than of the base.
    """
    errors = []
    network = open_model(base).declare('transformer')
    compute = jax.jit(network)
    for paths in ((), (forms[0] / 'plain',)):
      model = open_model(base, *paths)
      wide, narrow = load(model, jnp.float32), load(model, jnp.bfloat16)
      narrow = jax.tree.map(lambda x: x.astype(jnp.float32), narrow)
      found = flat(narrow)
      for name, leaf in flat(wide).items():
        difference = np.abs(found[name] - leaf)
        assert np.all(difference <= 2.0**-8 * np.abs(leaf)), name
      errors.append(
        scaled_error(compute(narrow, *inputs()), compute(wide, *inputs()))
      )
    assert 0 < errors[1] < 2 * errors[0] < 0.02


def update_of(adapters, name):
  """B A of the layers of a kernel, transposed and stacked as ours."""
  (layer,) = (
    rule.published.removesuffix('.weight')
    for rule in TRANSFORMER_TABLE
    if rule.ours == name
  )
  layers = range(TINY['num_layers']) if '{i}' in layer else [0]
  stack = []
  for index in layers:
    module = f'transformer.{layer.format(i=index)}'
    a, b = (adapters[f'{module}.lora_{half}.weight'].numpy() for half in 'AB')
    stack.append((b @ a).T)
  return np.stack(stack) if '{i}' in layer else stack[0]


class TestFingerprint:
  def test_differs_between_adapters(self, base, forms, spoil):
    root, _ = forms

    def change(tensors):
      tensors['transformer.proj_out.lora_B.weight'][-1, -1] += 1

    metadata = {
      adapter_files._METADATA_KEY: json.dumps({'transformer.lora_alpha': 1.0})
    }
    spoiled = spoil(change)
    rescaled = save(
      spoiled.with_name('rescaled'),
      safetensors_torch.load_file(root / 'plain' / FILE),
      metadata,
    )
    paths = [root / 'plain', root / 'peft', spoiled, rescaled]
    models = [open_model(base), *(open_model(base, path) for path in paths)]
    models.append(open_model(base, paths[0], scale=0.5))
    models.append(open_model(base, *paths[:2]))
    found = {model.fingerprint('transformer') for model in models}
    assert len(found) == len(models)
    assert len({model.fingerprint('vae') for model in models}) == 1
    copy = shutil.copytree(root / 'plain', spoiled.with_name('copy'))
    again = open_model(base, copy)
    assert again.fingerprint('transformer') == models[1].fingerprint(
      'transformer'
    )


LAYER = 'transformer.transformer_blocks.0.attn1.to_q'


def _magnitudes(tensors):
  tensors[f'{LAYER}.lora_magnitude_vector'] = torch.zeros(4)


def _text_encoder(tensors):
  name = 'text_encoder.encoder.block.0.layer.0.SelfAttention.q.lora_A.weight'
  tensors[name] = torch.zeros(4, 32)


def _missing(tensors):
  del tensors[f'{LAYER}.lora_B.weight']


def _wider(tensors):
  tensors[f'{LAYER}.lora_B.weight'] = torch.zeros(7, RANK)


def _another_network(tensors):
  for name in list(tensors):
    tensors[name.replace('transformer.', 'unet.')] = tensors.pop(name)


def _nothing(tensors):
  del tensors


class TestErrors:
  @pytest.mark.parametrize(
    ('change', 'message'),
    [
      (_magnitudes, f'DoRA .*{LAYER}.lora_magnitude_vector.* cannot be merged'),
      (_text_encoder, 'no linear layer of this network: text_encoder.encoder'),
      (_missing, f'{LAYER}.lora_A.weight lacks its matrix b'),
      (_wider, rf'{LAYER}.lora_B.weight is .* \[7, 4\] instead of \[32, 4\]'),
      (_another_network, 'none of its tensors .* is an adapter of this'),
    ],
  )
  def test_tensors(self, base, spoil, change, message):
    self.assert_refused(base, spoil(change), message)

  @pytest.mark.parametrize(
    ('text', 'message'),
    [
      ('{', 'in its header cannot be parsed'),
      ('[1]', 'in its header cannot be parsed'),
      ('{"transformer.use_dora": true}', 'use_dora = True cannot be merged'),
      (
        '{"transformer.lora_alpha": 4, "transformer.r": 8}',
        'r is 8 for .* have rank 4',
      ),
      ('{"transformer.r": 4}', 'lora_alpha is missing'),
    ],
  )
  def test_header(self, base, spoil, text, message):
    path = spoil(_nothing, {adapter_files._METADATA_KEY: text})
    self.assert_refused(base, path, message)

  def test_header_and_scalars(self, base, forms, tmp_path):
    tensors = safetensors_torch.load_file(forms[0] / 'scalars' / FILE)
    text = json.dumps({'transformer.lora_alpha': ALPHA + 1})
    path = save(tmp_path / 'x', tensors, {adapter_files._METADATA_KEY: text})
    self.assert_refused(base, path, 'more than one alpha: 6 in .*, 7 in')

  def test_another_size(self, forms, tmp_path):
    """Adapters of more layers than the model has."""
    make_pipeline().save_pretrained(tmp_path)
    config = tmp_path / 'transformer/config.json'
    config.write_text(
      json.dumps({**json.loads(config.read_text()), 'num_layers': 1})
    )
    self.assert_refused(
      tmp_path, forms[0] / 'plain', '6 tensors are of .*blocks.1'
    )

  def test_paths(self, base, forms, tmp_path):
    missing = tmp_path / 'nowhere'
    self.assert_refused(base, missing, f'{missing}: no such file or folder')
    self.assert_refused(base, tmp_path, 'contains neither pytorch_lora_weights')
    (tmp_path / 'text.safetensors').write_text('no tensors')
    file = tmp_path / 'text.safetensors'
    self.assert_refused(base, file, 'not a safetensors file')
    both = shutil.copytree(forms[0] / 'peft', tmp_path / 'both')
    shutil.copy(forms[0] / 'plain' / FILE, both)
    self.assert_refused(base, both, f'contains both {FILE}')
    with pytest.raises(UserError, match='give it as model.adapter'):
      open_model(forms[0] / 'plain')

  def assert_refused(self, base, path, message):
    with pytest.raises(UserError, match=message) as raised:
      open_model(base, path)
    assert str(path) in str(raised.value)
    assert len(str(raised.value).splitlines()) == 1
