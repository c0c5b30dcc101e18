import os
import pathlib
import socket
import subprocess
import sys

from absl.testing import parameterized
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P
import ml_dtypes
import numpy as np
import pytest

from lift_jax import errors, partitioning
from lift_jax.weights import (
  conversion,
  param_paths,
  published_tensors,
  safetensors_files,
)
from tests.optional import safetensors_torch, torch

TABLE = (
  *conversion.linear('blocks.{i}.attn.to_q', 'blocks/attn/to_q'),
  *conversion.norm('blocks.{i}.norm', 'blocks/norm', bias=False),
  *conversion.conv('down.{i}.conv', 'down/{i}/conv', conversion.CONV3D),
  *conversion.conv('stage.{i}.res.{j}', 'stage/{i}/res', conversion.CONV2D),
  conversion.TensorRule('gain', 'gain'),
)
LAYERS = 3


def shape(*sizes):
  return jax.ShapeDtypeStruct(sizes, jnp.float32)


ABSTRACT = {
  'blocks': {
    'attn': {
      'to_q': {'kernel': shape(LAYERS, 8, 16), 'bias': shape(LAYERS, 16)}
    },
    'norm': {'scale': shape(LAYERS, 8)},
  },
  'down': {
    i: {'conv': {'kernel': shape(3, 2, 1, 4, 8), 'bias': shape(8)}}
    for i in range(2)
  },
  'stage': {
    i: {'res': {'kernel': shape(2, 3, 2, 4, 8), 'bias': shape(2, 8)}}
    for i in range(2)
  },
  'gain': shape(),
}
RULES = (
  ('blocks/attn/to_q/kernel', P(None, 'fsdp', 'tensor')),
  (r'down/\d/conv/kernel', P(None, None, None, 'fsdp', 'tensor')),
  (r'stage/\d/res/kernel', P(('data', 'tensor'), None, None, 'fsdp')),
  (r'.*/(bias|scale)|gain', P()),
)


def stored_tensors():
  """Torch tensors by published name."""
  torch.manual_seed(0)
  tensors = {'gain': torch.randn(())}
  for i in range(LAYERS):
    tensors[f'blocks.{i}.attn.to_q.weight'] = torch.randn(16, 8)
    tensors[f'blocks.{i}.attn.to_q.bias'] = torch.randn(16)
    tensors[f'blocks.{i}.norm.weight'] = torch.randn(8)
  for i in range(2):
    tensors[f'down.{i}.conv.weight'] = torch.randn(8, 4, 3, 2, 1)
    tensors[f'down.{i}.conv.bias'] = torch.randn(8)
    for j in range(2):
      tensors[f'stage.{i}.res.{j}.weight'] = torch.randn(8, 4, 3, 2)
      tensors[f'stage.{i}.res.{j}.bias'] = torch.randn(8)
  return tensors


def expected_params(tensors, dtype=np.float32):
  """The same by our names, computed without the table."""

  def get(name, *axes):
    array = tensors[name].float().numpy().astype(dtype)
    return array.transpose(axes) if axes else array

  blocks = range(LAYERS)
  return {
    'blocks': {
      'attn': {
        'to_q': {
          'kernel': np.stack(
            [get(f'blocks.{i}.attn.to_q.weight', 1, 0) for i in blocks]
          ),
          'bias': np.stack([get(f'blocks.{i}.attn.to_q.bias') for i in blocks]),
        }
      },
      'norm': {
        'scale': np.stack([get(f'blocks.{i}.norm.weight') for i in blocks])
      },
    },
    'down': {
      i: {
        'conv': {
          'kernel': get(f'down.{i}.conv.weight', 2, 3, 4, 1, 0),
          'bias': get(f'down.{i}.conv.bias'),
        }
      }
      for i in range(2)
    },
    'stage': {
      i: {
        'res': {
          'kernel': np.stack(
            [get(f'stage.{i}.res.{j}.weight', 2, 3, 1, 0) for j in range(2)]
          ),
          'bias': np.stack([get(f'stage.{i}.res.{j}.bias') for j in range(2)]),
        }
      }
      for i in range(2)
    },
    'gain': get('gain'),
  }


def assert_same_bits(found, expected):
  assert jax.tree.structure(found) == jax.tree.structure(expected)
  for name, array in param_paths.flatten(expected).items():
    other = param_paths.flatten(found)[name]
    assert other.dtype == array.dtype and other.shape == array.shape, name
    assert np.asarray(other).tobytes() == np.asarray(array).tobytes(), name


class FolderTestCase(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.folder = tmp_path

  def publish(self, tensors):
    # Cloned, because safetensors rejects tensors that share memory.
    safetensors_torch.save_file(
      {name: tensor.clone() for name, tensor in tensors.items()},
      self.folder / 'model.safetensors',
    )
    return safetensors_files.open_tensors(self.folder, 'model')


class LoadTest(FolderTestCase):
  @parameterized.parameters(
    (torch.float32, None, np.float32),
    (torch.bfloat16, None, ml_dtypes.bfloat16),
    (torch.float16, None, np.float16),
    (torch.float16, jnp.float32, np.float32),
    (torch.float32, jnp.bfloat16, ml_dtypes.bfloat16),
    (torch.float32, jnp.float16, np.float16),
  )
  def test_values(self, stored, dtype, expected_dtype):
    tensors = {
      name: tensor.to(stored) for name, tensor in stored_tensors().items()
    }
    params = published_tensors.load(
      TABLE, ABSTRACT, self.publish(tensors), dtype=dtype
    )
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(params))
    assert_same_bits(params, expected_params(tensors, expected_dtype))

  @parameterized.parameters(
    (partitioning.MeshConfig(tensor=2), None),
    (partitioning.MeshConfig(data=2, fsdp=2, context=2), jnp.bfloat16),
  )
  def test_sharded_equals_plain(self, config, dtype):
    mesh = partitioning.make_mesh(config)
    shardings = partitioning.param_shardings(RULES, ABSTRACT, mesh)
    tensors = self.publish(stored_tensors())
    plain = published_tensors.load(TABLE, ABSTRACT, tensors, dtype=dtype)
    params = published_tensors.load(
      TABLE, ABSTRACT, tensors, shardings=shardings, dtype=dtype
    )
    assert_same_bits(params, plain)
    assert jax.tree.map(lambda leaf: leaf.sharding, params) == shardings
    # The devices own their buffers: a step may donate them.
    doubled = jax.jit(
      lambda tree: jax.tree.map(lambda x: 2 * x, tree), donate_argnums=0
    )(params)
    assert_same_bits(doubled, jax.tree.map(lambda x: 2 * x, plain))

  def test_devices_in_another_order(self):
    mesh = partitioning.make_mesh(
      partitioning.MeshConfig(tensor=2), jax.devices()[::-1]
    )
    shardings = partitioning.param_shardings(RULES, ABSTRACT, mesh)
    tensors = stored_tensors()
    params = published_tensors.load(
      TABLE, ABSTRACT, self.publish(tensors), shardings=shardings
    )
    expected = expected_params(tensors)
    assert_same_bits(params, expected)
    for leaf, whole in zip(
      jax.tree.leaves(params), jax.tree.leaves(expected), strict=True
    ):
      for shard in leaf.addressable_shards:
        np.testing.assert_array_equal(shard.data, whole[shard.index])

  def test_reads_only_what_is_needed(self):
    tensors = self.publish(stored_tensors())
    total = sum(tensor.nbytes for tensor in tensors.values())
    reads = []
    read = safetensors_files.LazyTensor.__getitem__

    def spy(tensor, slices):
      part = read(tensor, slices)
      assert part.base is None or part.base.nbytes == part.nbytes
      reads.append((tensor.name, part.nbytes))
      return part

    mesh = partitioning.make_mesh(partitioning.MeshConfig(tensor=2))
    shardings = partitioning.param_shardings(RULES, ABSTRACT, mesh)
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(safetensors_files.LazyTensor, '__getitem__', spy)
      published_tensors.load(TABLE, ABSTRACT, tensors, shardings=shardings)
      # Every byte once, though biases are replicated over all 8 devices and
      # the kernels of `stage` over pairs of them.
      assert sum(nbytes for _, nbytes in reads) == total
      most = {
        name: max(n for other, n in reads if other == name) for name in tensors
      }
      for name, tensor in tensors.items():
        cut = {'blocks': 8, 'down': 8, 'stage': 4}.get(name.split('.')[0])
        parts = cut if name.endswith('weight') and 'norm' not in name else 1
        assert most[name] == tensor.nbytes // parts, name
      # A stage is stacked from two layers and sharded along them: each device
      # reads only its own layer.
      assert sum(name == 'stage.0.res.1.weight' for name, _ in reads) == 4

  def test_all_problems_in_one_line(self):
    tensors = stored_tensors()
    del tensors['blocks.1.norm.weight'], tensors['gain']
    tensors['down.1.conv.bias'] = torch.randn(9)
    tensors['stage.0.res.1.weight'] = torch.randn(4, 8, 3, 2)
    tensors['blocks.3.norm.weight'] = torch.randn(8)
    tensors['head'] = torch.randn(1)
    with pytest.raises(errors.UserError) as caught:
      published_tensors.load(
        TABLE, ABSTRACT, self.publish(tensors), where='transformer of x/y'
      )
    assert str(caught.value) == (
      'transformer of x/y: tensors 2 unknown: blocks.3.norm.weight, head; '
      '2 missing: blocks.1.norm.weight, gain; '
      '2 of another shape: down.1.conv.bias [9] instead of [8], '
      'stage.0.res.1.weight [4, 8, 3, 2] instead of [8, 4, 3, 2]; '
      'check that the weights and the config belong to the same model'
    )

  def test_aliases(self):
    table = (conversion.TensorRule('shared', 'embed'),)
    abstract = {'embed': shape(4, 3)}
    aliases = (('encoder.embed', 'shared'),)
    values = torch.randn(4, 3)

    def load(tensors):
      return published_tensors.load(
        table, abstract, self.publish(tensors), aliases=aliases
      )['embed']

    for tensors in (
      {'shared': values},
      {'encoder.embed': values},
      {'shared': values, 'encoder.embed': values},
    ):
      np.testing.assert_array_equal(load(tensors), values)
    for other in (values + 1, values.half(), values.reshape(3, 4)):
      with pytest.raises(
        errors.UserError, match='encoder.embed and shared should be equal'
      ):
        load({'shared': values, 'encoder.embed': other})

  def test_ignored(self):
    tensors = {
      'gain': torch.randn(()),
      'head.a': torch.ones(1),
      'head.b': torch.ones(2),
    }

    def load(*ignored):
      return published_tensors.load(
        TABLE[-1:], {'gain': shape()}, self.publish(tensors), ignored=ignored
      )

    assert load(r'head\..*')['gain'] == tensors['gain'].item()
    with pytest.raises(errors.UserError, match='1 unknown: head.b'):
      load('head.a', 'head')

  def test_integers(self):
    tensors = stored_tensors()
    tensors['gain'] = torch.tensor(3, dtype=torch.int8)
    with pytest.raises(errors.UserError, match='^x: gain is int8; quantised'):
      published_tensors.load(
        TABLE, ABSTRACT, self.publish(tensors), dtype=jnp.float32, where='x'
      )

  def test_computed(self):
    """Not loaded, but equal up to rounding."""
    table = np.sin(np.arange(12, dtype=np.float32).reshape(3, 4))
    computed = {'positions': lambda: table, 'absent': lambda: 1 / 0}
    gain = torch.randn(())

    def load(positions):
      tensors = {'gain': gain, 'positions': positions}
      return published_tensors.load(
        TABLE[-1:],
        {'gain': shape()},
        self.publish(tensors),
        computed=computed,
        where='x',
      )

    stored = torch.tensor(table)
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
      assert load(stored.to(dtype))['gain'] == gain.item()
    for other in (stored + 1e-3, stored[:2], stored.bfloat16() + 0.05):
      with pytest.raises(
        errors.UserError, match='^x: positions is not the table that follows'
      ):
        load(other)
    with pytest.raises(errors.UserError, match='^x: positions is int8'):
      load(stored.to(torch.int8))

  def test_layers_of_two_dtypes(self):
    tensors = stored_tensors()
    name = 'blocks.1.norm.weight'
    tensors[name] = tensors[name].half()
    params = published_tensors.load(TABLE, ABSTRACT, self.publish(tensors))
    assert_same_bits(params, expected_params(tensors))

  @parameterized.parameters(torch.float32, torch.bfloat16)
  def test_beyond_float16(self, stored):
    table, abstract = TABLE[-1:], {'gain': shape()}
    for value in (7e4, -1e30):
      tensors = self.publish({'gain': torch.tensor(value, dtype=stored)})
      with pytest.raises(errors.UserError, match='gain: values beyond'):
        published_tensors.load(table, abstract, tensors, dtype=jnp.float16)
    for value in (np.inf, np.nan, 65504.0 if stored == torch.float32 else 1.0):
      tensors = self.publish({'gain': torch.tensor(value, dtype=stored)})
      found = published_tensors.load(
        table, abstract, tensors, dtype=jnp.float16
      )
      np.testing.assert_array_equal(found['gain'], np.float16(value))


class SaveTest(FolderTestCase):
  @parameterized.product(
    stored=(torch.float32, torch.bfloat16, torch.float16),
    sharded=(True, False),
  )
  def test_round_trip_is_bit_exact(self, stored, sharded):
    tensors = {
      name: tensor.to(stored) for name, tensor in stored_tensors().items()
    }
    shardings = None
    if sharded:
      mesh = partitioning.make_mesh(partitioning.MeshConfig(tensor=2))
      shardings = partitioning.param_shardings(RULES, ABSTRACT, mesh)
    params = published_tensors.load(
      TABLE, ABSTRACT, self.publish(tensors), shardings=shardings
    )
    copy = self.folder / 'copy'
    published_tensors.save(TABLE, params, copy, 'net', max_shard_bytes=3000)
    assert (copy / 'net.safetensors.index.json').exists()
    written = {}
    for shard in copy.glob('net-*.safetensors'):
      written |= safetensors_torch.load_file(shard)
    assert written.keys() == tensors.keys()
    for name, tensor in tensors.items():
      assert written[name].dtype == stored
      assert torch.equal(written[name], tensor), name
    of_copy, of_original = (
      safetensors_files.fingerprint(safetensors_files.open_tensors(*source))
      for source in ((copy, 'net'), (self.folder, 'model'))
    )
    assert of_copy == of_original
    again = published_tensors.load(
      TABLE, ABSTRACT, safetensors_files.open_tensors(copy, 'net')
    )
    assert_same_bits(again, params)

  def test_dtype_and_numpy_params(self):
    tensors = stored_tensors()
    published_tensors.save(
      TABLE, expected_params(tensors), self.folder, 'net', dtype=jnp.bfloat16
    )
    written = safetensors_torch.load_file(self.folder / 'net.safetensors')
    assert written.keys() == tensors.keys()
    for name, tensor in tensors.items():
      assert torch.equal(written[name], tensor.bfloat16())

  def test_one_tensor_on_the_host_at_a_time(self):
    """Parameters keep no host copy of themselves once saved."""
    mesh = partitioning.make_mesh(partitioning.MeshConfig(tensor=2))
    params = published_tensors.load(
      TABLE,
      ABSTRACT,
      self.publish(stored_tensors()),
      shardings=partitioning.param_shardings(RULES, ABSTRACT, mesh),
    )
    published_tensors.save(TABLE, params, self.folder, 'net')
    for leaf in jax.tree.leaves(params):
      assert leaf._npy_value is None

  def test_beyond_float16_writes_nothing(self):
    params = {'gain': jnp.float32(1e5)}
    with pytest.raises(errors.UserError, match='gain: values beyond'):
      published_tensors.save(
        TABLE[-1:], params, self.folder, 'net', dtype=jnp.float16
      )
    assert not os.listdir(self.folder)

  def test_table_must_be_complete(self):
    with pytest.raises(ValueError, match='unknown matches no rule'):
      published_tensors.save(
        TABLE, {'unknown': jnp.ones(1)}, self.folder, 'net'
      )
    assert not os.listdir(self.folder)

  def test_two_processes(self):
    """Each reads its shards, both gather, the first writes."""
    torch.manual_seed(0)
    tensors = {
      f'{name}.{kind}': torch.randn(sizes)
      for name in ('blocks.0.proj', 'blocks.1.proj', 'blocks.2.proj', 'out')
      for kind, sizes in (('weight', (16, 8)), ('bias', (16,)))
    }
    self.publish(tensors)
    with socket.socket() as free:
      free.bind(('127.0.0.1', 0))
      port = free.getsockname()[1]
    worker = pathlib.Path(__file__).with_name('published_tensors_worker.py')
    environment = {
      **os.environ,
      'PYTHONPATH': str(worker.parents[2]),
      'JAX_PLATFORMS': 'cpu',
      'XLA_FLAGS': '--xla_force_host_platform_device_count=4',
    }
    processes = [
      subprocess.Popen(
        [sys.executable, worker, str(port), str(index), self.folder],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
      )
      for index in range(2)
    ]
    try:
      outputs = [process.communicate(timeout=120)[0] for process in processes]
    finally:
      for process in processes:
        process.kill()
    assert [process.returncode for process in processes] == [0, 0], outputs
    written = safetensors_torch.load_file(self.folder / 'net.safetensors')
    assert written.keys() == tensors.keys()
    for name, tensor in tensors.items():
      assert torch.equal(written[name], tensor), name
