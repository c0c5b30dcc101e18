"""Published adapters, on a small network; see also critic/folder_test.py."""

import json
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lift_jax import partitioning
from lift_jax.errors import UserError
from lift_jax.models import adapters, lora
from lift_jax.models.functional import functional
from lift_jax.weights import conversion, param_paths, safetensors_files
from tests.models.adapted_network import (
  CONFIG,
  LAYERS,
  TABLE,
  Network,
  inputs,
  random_like,
)

PEFT_TABLE = lora.adapter_table(TABLE, prefix=adapters.PEFT_PREFIX)
PLAIN = functional(Network)
ADAPTED = functional(lora.adapted(Network, CONFIG))
SHAPES, _ = param_paths.partition(ADAPTED.abstract_params, lora.is_adapter)
# For a network with dimensions of 4, 5 and 8.
RULES = (
  (r'blocks/.*/kernel', jax.P(None, 'fsdp', None)),
  (r'head/kernel', jax.P('fsdp', None)),
  (r'.*/(bias|scale)', jax.P()),
)


def mesh_of(**axes):
  config = partitioning.MeshConfig(**{'fsdp': 1} | axes)
  return partitioning.make_mesh(config, jax.devices()[:4])


def open_tensors(folder):
  return safetensors_files.open_tensors(folder, 'adapter_model')


@pytest.fixture
def added():
  return jax.tree.map(jnp.asarray, random_like(SHAPES, 2))


@pytest.fixture
def folder(tmp_path, added):
  path = tmp_path / 'adapter'
  adapters.write_peft(path, added, CONFIG, PEFT_TABLE, 'float32')
  return path


def edit(folder, change):
  """Changes the tensors of a folder, numpy arrays by name."""
  arrays = {name: tensor[...] for name, tensor in open_tensors(folder).items()}
  change(arrays)
  safetensors_files.write(
    folder / 'adapter_model.safetensors',
    [
      (name, array.shape, array.dtype, lambda array=array: array)
      for name, array in arrays.items()
    ],
  )


UP = 'base_model.model.layer.1.up.lora_'


class TestConfigOf:
  def config(self, folder, alpha=None):
    return adapters.config_of(open_tensors(folder), PEFT_TABLE, alpha, 'file')

  def test_all(self, folder):
    config = self.config(folder, 6.0)
    assert (config.rank, config.alpha, config.scale) == (2, 6.0, 3.0)
    built = functional(lora.adapted(Network, config)).abstract_params
    assert jax.tree.structure(built) == jax.tree.structure(
      ADAPTED.abstract_params
    )

  def test_scale_without_alpha_is_one(self, folder):
    assert self.config(folder).scale == 1

  def test_some(self, folder):
    edit(folder, lambda arrays: [
      arrays.pop(name) for name in list(arrays) if '.up.' not in name
    ])  # fmt: skip
    assert self.config(folder).targets == ('blocks/up',)

  def test_of_another_network(self, folder):
    edit(folder, lambda arrays: [
      arrays.update({f'other.{name}': arrays.pop(name)})
      for name in list(arrays)
    ])  # fmt: skip
    with pytest.raises(UserError, match=r'file: none of its tensors \(other'):
      self.config(folder)

  def test_ranks_that_differ(self, folder):
    edit(
      folder,
      lambda arrays: arrays.update(
        {f'{UP}A.weight': np.zeros((3, 4), np.float32)}
      ),
    )
    with pytest.raises(UserError, match=r'file: .* ranks \[2, 3\]'):
      self.config(folder)

  def test_no_matrix(self, folder):
    edit(
      folder,
      lambda arrays: arrays.update(
        {f'{UP}A.weight': np.float32(1).reshape(())}
      ),
    )
    with pytest.raises(UserError, match=r'layer\.1\.up\.lora_A\.weight'):
      self.config(folder)


class TestLoad:
  def load(self, folder, mesh=None):
    config = adapters.config_of(open_tensors(folder), PEFT_TABLE, 6.0, 'file')
    return adapters.load(
      Network,
      config,
      PEFT_TABLE,
      open_tensors(folder),
      mesh or mesh_of(data=4),
      'file',
    )

  def test_what_was_written(self, folder, added):
    loaded = self.load(folder, mesh_of(fsdp=4))
    jax.tree.map(np.testing.assert_array_equal, loaded, added)
    specs = {n: x.sharding.spec for n, x in param_paths.flatten(loaded).items()}
    assert specs['blocks/up/lora_a'] == jax.P(None, 'fsdp', None)

  @pytest.mark.parametrize(
    ('change', 'message'),
    [
      (lambda x: x.pop(f'{UP}B.weight'), f'1 missing: {UP}B'),
      (lambda x: x.update({'extra': np.ones(2)}), '1 unknown: extra'),
      (
        lambda x: x.update({f'{UP}B.weight': np.ones((7, 2), np.float32)}),
        '1 of another shape',
      ),
    ],
  )
  def test_total(self, folder, change, message):
    edit(folder, change)
    with pytest.raises(UserError, match=f'file: tensors {message}'):
      self.load(folder)

  def test_half_precision_is_cast_to_fp32(self, tmp_path, added):
    adapters.write_peft(tmp_path, added, CONFIG, PEFT_TABLE, 'bfloat16')
    stored = {tensor.dtype for tensor in open_tensors(tmp_path).values()}
    assert stored == {np.dtype('bfloat16')}
    loaded = self.load(tmp_path)
    assert {leaf.dtype for leaf in jax.tree.leaves(loaded)} == {
      np.dtype('float32')
    }


class TestMerge:
  def base(self, mesh, dtype=np.float32):
    shardings = partitioning.param_shardings(RULES, PLAIN.abstract_params, mesh)
    params = random_like(PLAIN.abstract_params, 1)
    return jax.device_put(
      jax.tree.map(lambda leaf: leaf.astype(dtype), params), shardings
    )

  @pytest.mark.parametrize('axes', [{'data': 4}, {'fsdp': 4}])
  def test_equals_the_adapted_network(self, added, axes):
    mesh = mesh_of(**axes)
    base = self.base(mesh)
    places = jax.tree.map(lambda leaf: leaf.sharding, base)
    expected = ADAPTED(jax.device_get(param_paths.merge(base, added)), inputs())
    everywhere = jax.NamedSharding(mesh, jax.P())
    merged = adapters.merge(
      base, jax.device_put(added, everywhere), CONFIG.scale
    )
    assert jax.tree.map(lambda leaf: leaf.sharding, merged) == places
    np.testing.assert_allclose(
      PLAIN(jax.device_get(merged), inputs()), expected, rtol=1e-4
    )
    assert base['head']['kernel'].is_deleted()
    assert not added['head']['lora_a'].is_deleted()

  def test_rounds_once(self, added):
    mesh = mesh_of(data=4)
    base = self.base(mesh, jnp.bfloat16)
    kernel = np.asarray(base['head']['kernel'], np.float32)
    merged = adapters.merge(
      base,
      jax.device_put(added, jax.NamedSharding(mesh, jax.P())),
      CONFIG.scale,
    )
    head = jax.device_get(added['head'])
    # fp32 sums of two products are exact enough for bf16 in any order.
    expected = kernel + CONFIG.scale * (head['lora_a'] @ head['lora_b'])
    actual = merged['head']['kernel']
    assert actual.dtype == jnp.bfloat16
    np.testing.assert_array_equal(actual, expected.astype(jnp.bfloat16))

  def test_memory(self):
    """About one kernel in addition to the network, not all 6 at once."""
    layers, size, rank = 16, 256, 4
    kernel = jax.ShapeDtypeStruct((layers, size, size), jnp.bfloat16)
    adapter = {
      'a': jax.ShapeDtypeStruct((layers, size, rank), jnp.float32),
      'b': jax.ShapeDtypeStruct((layers, rank, size), jnp.float32),
    }
    names = ('q', 'k', 'v')
    compiled = (
      jax.jit(adapters._merged, static_argnums=2, donate_argnums=0)
      .lower(
        {name: {'kernel': kernel} for name in names},
        {f'{n}/lora_{half}': x for n in names for half, x in adapter.items()},
        2.0,
      )
      .compile()
    )
    memory = compiled.memory_analysis()
    one = layers * size * size * 2
    assert memory.alias_size_in_bytes == 3 * one
    assert memory.temp_size_in_bytes < 1.3 * one


class TestPeft:
  def test_settings(self, folder):
    file = adapters.open_peft(str(folder))
    assert file.alpha == 6.0
    assert len(file.tensors) == 2 * (2 * LAYERS + 1)
    settings = json.loads((folder / 'adapter_config.json').read_text())
    assert (settings['r'], settings['lora_alpha']) == (2, 6.0)
    # Full names, so that PEFT adapts no other layer of the same name.
    assert settings['target_modules'] == sorted(
      [
        'head',
        *(f'layer.{i}.{x}' for i in range(LAYERS) for x in ('up', 'down')),
      ]
    )

  @pytest.mark.parametrize(
    'change',
    [
      {'peft_type': 'LOHA'},
      {'use_rslora': True},
      {'use_dora': True},
      {'bias': 'all'},
      {'rank_pattern': {'up': 4}},
      {'alpha_pattern': {'up': 4}},
      {'modules_to_save': ['head']},
      # These change the weights that are adapted.
      {'init_lora_weights': 'pissa'},
      {'init_lora_weights': 'olora'},
      {'layer_replication': [[0, 2], [1, 3]]},
      {'alora_invocation_tokens': [5]},
      {'use_qalora': True},
      {'lora_alpha': None},
      {'lora_alpha': True},
      {'lora_alpha': '16'},
    ],
  )
  def test_refuses(self, folder, change):
    path = folder / 'adapter_config.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    (key,) = change
    with pytest.raises(UserError, match=rf'adapter_config\.json: {key} '):
      adapters.open_peft(folder)

  @pytest.mark.parametrize(
    'change',
    [
      {'modules_to_save': []},
      {'init_lora_weights': False},
      {'lora_dropout': 0.05, 'target_modules': 'all-linear'},
      {'a_key_of_the_future': None},
    ],
  )
  def test_accepts(self, folder, change):
    path = folder / 'adapter_config.json'
    path.write_text(json.dumps(json.loads(path.read_text()) | change))
    assert adapters.open_peft(folder).alpha == 6.0

  @pytest.mark.parametrize(
    'name', ['adapter_config.json', 'adapter_model.safetensors']
  )
  def test_missing_file(self, folder, name):
    (folder / name).unlink()
    with pytest.raises(UserError, match=f'adapter.*{name}'):
      adapters.open_peft(folder)

  def test_pickled_weights_are_ignored(self, folder):
    shutil.move(
      folder / 'adapter_model.safetensors', folder / 'adapter_model.bin'
    )
    with pytest.raises(UserError, match='in safetensors format'):
      adapters.open_peft(folder)

  def test_table_is_total(self, tmp_path, added):
    stranger = {'blocks': added['blocks'], 'tail': added['head']}
    with pytest.raises(ValueError, match='tail/lora_a matches no rule'):
      adapters.write_peft(tmp_path, stranger, CONFIG, PEFT_TABLE, 'float32')

  def test_names_are_those_of_the_table(self, folder):
    sources = conversion.resolve(PEFT_TABLE, SHAPES)
    names = {name for source in sources.values() for name in source.names}
    assert open_tensors(folder).keys() == names
