"""Adapters of a small network, merged and written.

Of the forms of their files see adapter_files_test.py.
"""

import functools
import json
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lift_jax import partitioning
from lift_jax.models import adapter_files, adapters, lora
from lift_jax.models.adapter_config import AdapterConfig
from lift_jax.models.adapter_names import PEFT_PREFIX
from lift_jax.models.functional import functional
from lift_jax.weights import (
  checkpoints,
  conversion,
  param_paths,
  published_tensors,
  safetensors_files,
)
from tests.models.adapted_network import (
  CONFIG,
  LAYERS,
  TABLE,
  Network,
  inputs,
  random_like,
)

PEFT_TABLE = lora.adapter_table(TABLE, prefix=PEFT_PREFIX)
PLAIN = functional(Network)
ADAPTED = functional(lora.adapted(Network, CONFIG))
SHAPES, _ = param_paths.partition(ADAPTED.abstract_params, lora.is_adapter)
SITES = adapter_files.sites_of(PEFT_TABLE, PLAIN.abstract_params, {})
# For a network with dimensions of 4, 5 and 8.
RULES = (
  (r'blocks/up/kernel', jax.P(None, 'fsdp', 'tensor')),
  (r'blocks/down/kernel', jax.P(None, 'tensor', 'fsdp')),
  (r'head/kernel', jax.P('fsdp')),
  (r'.*/(bias|scale)', jax.P()),
)


def mesh_of(**axes):
  config = partitioning.MeshConfig(**{'fsdp': 1} | axes)
  return partitioning.make_mesh(config, jax.devices()[:4])


def shardings_of(mesh):
  return partitioning.param_shardings(RULES, PLAIN.abstract_params, mesh)


@pytest.fixture(scope='module')
def added():
  return jax.tree.map(jnp.asarray, random_like(SHAPES, 2))


@pytest.fixture(scope='module')
def folder(tmp_path_factory, added):
  path = tmp_path_factory.mktemp('adapter')
  adapters.write_peft(path, added, CONFIG, PEFT_TABLE, 'float32')
  return path


def open_adapter(path, **settings):
  return adapter_files.open_adapter(AdapterConfig(str(path), **settings), SITES)


@pytest.fixture
def opened(folder):
  return open_adapter(folder)


@pytest.fixture(scope='module', params=['float32', 'float16', 'bfloat16'])
def stored(request, tmp_path_factory):
  """The base in a type, in the published and in our checkpoint format."""
  path = tmp_path_factory.mktemp(request.param)
  params = jax.tree.map(
    lambda leaf: jnp.asarray(leaf, request.param),
    random_like(PLAIN.abstract_params, 1),
  )
  published_tensors.save(TABLE, params, path / 'published', 'model')
  checkpoints.save_params(path / 'ours', params)
  return SimpleNamespace(path=path, params=param_paths.flatten(params))


def load(stored, is_orbax, opened, dtype, **axes):
  """Parameters by name, loaded with adapters."""
  update = functools.partial(adapters.merged, [opened], dtype)
  shardings = shardings_of(mesh_of(**axes))
  if is_orbax:
    params = checkpoints.load_params(
      stored.path / 'ours', PLAIN.abstract_params, shardings, update=update
    )
  else:
    params = published_tensors.load(
      TABLE,
      PLAIN.abstract_params,
      safetensors_files.open_tensors(stored.path / 'published', 'model'),
      shardings=shardings,
      update=update,
    )
  assert jax.tree.map(lambda leaf: leaf.sharding, params) == shardings
  return param_paths.flatten(params)


class TestMerged:
  @pytest.mark.parametrize('is_orbax', [False, True])
  def test_rounded_once(self, stored, opened, added, is_orbax):
    """The sum of the stored weights is fp32, whatever their type."""
    wide = load(stored, is_orbax, opened, jnp.float32, fsdp=2, tensor=2)
    narrow = load(stored, is_orbax, opened, jnp.bfloat16, fsdp=2, tensor=2)
    factors = param_paths.flatten(jax.device_get(added))
    for name, leaf in wide.items():
      expected = np.asarray(stored.params[name], np.float32)
      if name.endswith('/kernel'):
        layer = name.removesuffix('/kernel')
        a, b = (factors[f'{layer}/lora_{half}'] for half in 'ab')
        expected = expected + CONFIG.scale * np.matmul(a, b)
      np.testing.assert_allclose(leaf, expected, rtol=1e-5, atol=1e-6)
      assert narrow[name].dtype == jnp.bfloat16
      np.testing.assert_array_equal(
        narrow[name], np.asarray(leaf).astype(jnp.bfloat16), name
      )

  def test_without_a_type(self, stored, opened):
    """Kernels with adapters become fp32; others keep their type."""
    found = load(stored, False, opened, None, data=4)
    wide = load(stored, False, opened, jnp.float32, data=4)
    for name, leaf in found.items():
      if name.endswith('/kernel'):
        np.testing.assert_array_equal(leaf, wide[name])
      else:
        assert leaf.dtype == stored.params[name].dtype, name

  @pytest.mark.parametrize('axes', [{'data': 4}, {'fsdp': 2, 'tensor': 2}])
  def test_equals_the_adapted_network(self, opened, added, axes):
    base = jax.device_put(
      random_like(PLAIN.abstract_params, 1), shardings_of(mesh_of(**axes))
    )
    expected = ADAPTED(jax.device_get(param_paths.merge(base, added)), inputs())
    merged = param_paths.map_named(
      functools.partial(adapters.merged, [opened], jnp.float32), base
    )
    np.testing.assert_allclose(
      PLAIN(jax.device_get(merged), inputs()), expected, rtol=1e-4
    )
    assert base['head']['kernel'].is_deleted()

  def test_one_device(self, opened):
    kernel = jnp.ones((4, 5))
    merged = adapters.merged([opened], jnp.float32, 'head/kernel', kernel)
    assert merged.sharding == jax.sharding.SingleDeviceSharding(
      jax.devices()[0]
    )

  def test_none(self):
    """No copy is made of a parameter that does not change."""
    leaf = jnp.ones(3)
    assert adapters.merged([], None, 'x/kernel', leaf) is leaf
    assert adapters.merged([], jnp.float32, 'x/kernel', leaf) is leaf

  @pytest.mark.parametrize('dtype', [jnp.bfloat16, jnp.float32])
  def test_memory(self, dtype):
    """About one more result, and layers in fp32 one by one."""
    layers, size, rank = 16, 256, 4
    kernel = jax.ShapeDtypeStruct((layers, size, size), dtype)
    factors = [
      (
        jax.ShapeDtypeStruct((layers, size, rank), jnp.float32),
        jax.ShapeDtypeStruct((layers, rank, size), jnp.float32),
        jax.ShapeDtypeStruct((layers,), jnp.float32),
      )
    ] * 2
    is_same = dtype == jnp.bfloat16
    compiled = (
      jax.jit(
        adapters._added,
        static_argnums=2,
        donate_argnums=0 if is_same else (),
      )
      .lower(kernel, factors, jnp.dtype(jnp.bfloat16))
      .compile()
    )
    memory = compiled.memory_analysis()
    result, layer = 2 * layers * size**2, 4 * size**2
    assert memory.alias_size_in_bytes == (result if is_same else 0)
    assert memory.temp_size_in_bytes < result + 4 * layer


class TestAdapter:
  def test_factors_by_shards(self, opened, added):
    """Each device has its part, and no other is read."""
    mesh = mesh_of(fsdp=2, tensor=2)
    shardings = (
      jax.NamedSharding(mesh, jax.P(None, 'fsdp', None)),
      jax.NamedSharding(mesh, jax.P(None, None, 'tensor')),
    )
    a, b = opened.factors('blocks/up', (LAYERS, 4, 8), shardings)
    assert (a.sharding, b.sharding) == shardings
    np.testing.assert_array_equal(a, added['blocks']['up']['lora_a'])
    np.testing.assert_array_equal(b, added['blocks']['up']['lora_b'])

  def test_layers_without_adapters(self, opened):
    place = jax.sharding.SingleDeviceSharding(jax.devices()[0])
    for half in opened.factors('other', (2, 4, 8), (place, place)):
      assert not half.any()
    assert not opened.scales('other', (2, 4, 8)).any()

  def test_description(self, folder):
    text = open_adapter(folder, scale=0.5).describe()
    assert text == (
      f'{folder}: rank 2, alpha 6, scale 0.5: W + 1.5 B A in 7 layers'
    )

  def test_fingerprint(self, folder, tmp_path, added):
    more = jax.tree.map(lambda leaf: leaf + 1, added)
    adapters.write_peft(tmp_path, more, CONFIG, PEFT_TABLE, 'float32')
    one = open_adapter(folder)
    assert one.fingerprint == open_adapter(folder, alpha=6.0).fingerprint
    others = (open_adapter(folder, scale=0.5), open_adapter(tmp_path))
    found = {one.fingerprint, *(other.fingerprint for other in others)}
    assert len(found) == 3

  def test_folder(self, folder):
    file = folder / 'adapter_model.safetensors'
    assert open_adapter(file).folder == open_adapter(folder).folder == folder


class TestWritePeft:
  def test_settings(self, folder):
    settings = json.loads((folder / 'adapter_config.json').read_text())
    assert (settings['r'], settings['lora_alpha']) == (2, 6.0)
    # Full names, so that PEFT adapts no other layer of the same name.
    assert settings['target_modules'] == sorted(
      [
        'head',
        *(f'layer.{i}.{x}' for i in range(LAYERS) for x in ('up', 'down')),
      ]
    )

  def test_half_precision(self, tmp_path, added):
    adapters.write_peft(tmp_path, added, CONFIG, PEFT_TABLE, 'bfloat16')
    stored = safetensors_files.open_tensors(tmp_path, 'adapter_model')
    assert {tensor.dtype for tensor in stored.values()} == {
      np.dtype('bfloat16')
    }

  def test_table_is_total(self, tmp_path, added):
    stranger = {'blocks': added['blocks'], 'tail': added['head']}
    with pytest.raises(ValueError, match='tail/lora_a matches no rule'):
      adapters.write_peft(tmp_path, stranger, CONFIG, PEFT_TABLE, 'float32')

  def test_names_are_those_of_the_table(self, folder):
    sources = conversion.resolve(PEFT_TABLE, SHAPES)
    names = {name for source in sources.values() for name in source.names}
    stored = safetensors_files.open_tensors(folder, 'adapter_model')
    assert stored.keys() == names
