import json
import os

from absl.testing import parameterized
import ml_dtypes
import numpy as np
import pytest
import safetensors

from lift_jax import errors
from lift_jax.weights import safetensors_files
from tests.optional import safetensors_torch, torch

pytestmark = pytest.mark.fast

NUMPY_DTYPES = {
  torch.float32: np.float32,
  torch.float16: np.float16,
  torch.bfloat16: ml_dtypes.bfloat16,
}


def spec(name, array):
  return name, array.shape, array.dtype, lambda: array


def example(dtype, seed=0):
  draw = np.random.default_rng(seed).standard_normal
  return {
    'b.weight': draw((5, 7)).astype(dtype),
    'a.bias': draw((3,)).astype(dtype),
    'scalar': draw(()).astype(dtype),
    'empty': np.empty((0, 4), dtype),
    'deep': draw((2, 3, 1, 4)).astype(dtype),
  }


def raw_file(path, header, data=b'', length=None):
  if not isinstance(header, bytes):
    header = json.dumps(header).encode()
  length = len(header) if length is None else length
  path.write_bytes(length.to_bytes(8, 'little') + header + data)


def entry(dtype='F32', shape=(1,), offsets=(0, 4)):
  return {'dtype': dtype, 'shape': list(shape), 'data_offsets': list(offsets)}


def equal_bits(left, right):
  left, right = np.asarray(left), np.asarray(right)
  assert left.dtype == right.dtype and left.shape == right.shape
  assert left.tobytes() == right.tobytes()


class RoundTripTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.folder = tmp_path

  @parameterized.parameters(*NUMPY_DTYPES)
  def test_safetensors_reads_what_we_write(self, dtype):
    arrays = example(NUMPY_DTYPES[dtype])
    path = self.folder / 'model.safetensors'
    safetensors_files.write(path, [spec(*item) for item in arrays.items()])
    loaded = safetensors_torch.load_file(path)
    assert loaded.keys() == arrays.keys()
    for name, array in arrays.items():
      assert loaded[name].dtype == dtype
      equal_bits(
        loaded[name].reshape(-1).view(torch.uint8).numpy(),
        np.ascontiguousarray(array).reshape(-1).view(np.uint8),
      )
    with safetensors.safe_open(path, 'pt') as opened:
      assert opened.metadata() == {'format': 'pt'}
      part = opened.get_slice('b.weight')[1:3, 2:]
      assert part.shape == (2, 5)
      np.testing.assert_array_equal(
        part.float(), arrays['b.weight'][1:3, 2:].astype(np.float32)
      )
    assert os.listdir(self.folder) == ['model.safetensors']

  @parameterized.parameters(*NUMPY_DTYPES)
  def test_we_read_what_safetensors_writes(self, dtype):
    torch.manual_seed(0)
    tensors = {
      'x': torch.randn(4, 6).to(dtype),
      'y': torch.randn(()).to(dtype),
      'z': torch.empty(0, 3, dtype=dtype),
    }
    path = self.folder / 'model.safetensors'
    safetensors_torch.save_file(tensors, path)
    opened = safetensors_files.open_tensors(self.folder, 'model')
    assert opened.keys() == tensors.keys()
    for name, tensor in tensors.items():
      assert opened[name].dtype == NUMPY_DTYPES[dtype]
      assert opened[name].shape == tuple(tensor.shape)
      np.testing.assert_array_equal(
        opened[name][...].astype(np.float32), tensor.float().numpy()
      )
    np.testing.assert_array_equal(
      opened['x'][1:3, ::2].astype(np.float32),
      tensors['x'][1:3, ::2].float().numpy(),
    )

  @parameterized.parameters(*safetensors_files.DTYPES)
  def test_every_dtype(self, code):
    dtype = safetensors_files.DTYPES[code]
    array = np.arange(24).reshape(4, 3, 2).astype(dtype)
    path = self.folder / 'model.safetensors'
    safetensors_files.write(path, [spec('x', array)])
    opened = safetensors_files.open_tensors(path, 'unused')['x']
    assert (opened.dtype, opened.shape) == (dtype, (4, 3, 2))
    for index in (..., 1, slice(1, 3), (slice(None), slice(0, 3, 2), -1)):
      equal_bits(opened[index], array[index])
    equal_bits(opened[4:], array[4:])

  def test_a_slice_of_a_file_larger_than_memory(self):
    path = self.folder / 'model.safetensors'
    rows = 2**28
    header = {'x': entry('BF16', (rows, 512), (0, rows * 1024))}  # 256 GiB
    raw_file(path, header)
    with open(path, 'r+b') as file:
      start = file.seek(0, os.SEEK_END)
      file.truncate(start + rows * 1024)  # sparse: it takes no space
      file.seek(start + (rows - 1) * 1024)
      file.write(np.arange(512, dtype=ml_dtypes.bfloat16).tobytes())
    opened = safetensors_files.open_tensors(path, 'unused')
    part = opened['x'][rows - 2 :, 5:8]
    np.testing.assert_array_equal(part, [[0, 0, 0], [5, 6, 7]])
    assert len(safetensors_files.fingerprint(opened)) == 64

  @parameterized.parameters('module.', '_orig_mod.', '_orig_mod.module.')
  def test_saved_in_a_wrapper(self, prefix):
    arrays = {f'{prefix}{x}': np.full(2, i) for i, x in enumerate('ab')}
    path = self.folder / 'model.safetensors'
    safetensors_files.write(path, [spec(*item) for item in arrays.items()])
    opened = safetensors_files.open_tensors(path, 'unused')
    assert [int(opened[name][0]) for name in 'ab'] == [0, 1]
    # Not a wrapper's: another tensor lacks it.
    arrays['c'] = np.zeros(2)
    safetensors_files.write(path, [spec(*item) for item in arrays.items()])
    opened = safetensors_files.open_tensors(path, 'unused')
    assert opened.keys() == arrays.keys()

  def test_mixed_item_sizes_stay_aligned(self):
    arrays = {
      'a': np.arange(3, dtype=np.uint8),
      'b': np.arange(3, dtype=ml_dtypes.bfloat16),
      'c': np.arange(3, dtype=np.float32),
      'd': np.array([True, False]),
      'e': np.arange(2, dtype=np.int64),
      'f': np.arange(3).astype(ml_dtypes.float8_e4m3fn),
    }
    path = self.folder / 'mixed.safetensors'
    safetensors_files.write(path, [spec(*item) for item in arrays.items()])
    opened = safetensors_files.open_tensors(path, 'unused')
    for name, array in arrays.items():
      equal_bits(opened[name][...], array)
      assert opened[name].offset % array.itemsize == 0
    torch_loaded = safetensors_torch.load_file(path)
    assert torch_loaded['c'].tolist() == [0, 1, 2]
    assert torch_loaded['e'].tolist() == [0, 1]

  def test_a_failing_write_leaves_the_old_file(self):
    path = self.folder / 'model.safetensors'
    good = spec('x', np.ones(3, np.float32))
    safetensors_files.write(path, [good])
    before = path.read_bytes()
    wrong = ('y', (2,), np.float32, lambda: np.ones(3, np.float32))
    with pytest.raises(ValueError, match=r"'y' was declared .*\[2\].*\[3\]"):
      safetensors_files.write(path, [good, wrong])
    with pytest.raises(ValueError, match='duplicate tensors: x'):
      safetensors_files.write(path, [good, good])
    with pytest.raises(ValueError, match='has no .*complex64'):
      safetensors_files.write(path, [spec('z', np.ones(1, np.complex64))])
    with pytest.raises(ValueError, match='has no >f4'):  # the wrong byte order
      safetensors_files.write(path, [spec('z', np.ones(1, '>f4'))])
    assert path.read_bytes() == before
    assert os.listdir(self.folder) == ['model.safetensors']


class ShardsTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.folder = tmp_path

  def write(self, count, max_shard_bytes, seed=0):
    draw = np.random.default_rng(seed).standard_normal
    arrays = {
      f'w{i}': draw((5, 5)).astype(np.float32) for i in range(count)
    }  # 100 bytes each
    safetensors_files.write_sharded(
      self.folder,
      'net',
      [spec(*item) for item in arrays.items()],
      max_shard_bytes,
    )
    opened = safetensors_files.open_tensors(self.folder, 'net')
    assert opened.keys() == arrays.keys()
    for name, array in arrays.items():
      equal_bits(opened[name][...], array)

  def test_layout_and_index(self):
    self.write(5, 200)
    shards = [f'net-0000{i}-of-00003.safetensors' for i in (1, 2, 3)]
    index = 'net.safetensors.index.json'
    assert sorted(os.listdir(self.folder)) == [*shards, index]
    content = json.loads((self.folder / index).read_text())
    assert content['metadata'] == {'total_size': 500}
    assert content['weight_map'] == {
      'w0': shards[0],
      'w1': shards[0],
      'w2': shards[1],
      'w3': shards[1],
      'w4': shards[2],
    }
    for shard in shards:
      with safetensors.safe_open(self.folder / shard, 'pt') as opened:
        for name in opened.keys():
          assert content['weight_map'][name] == shard

  def test_writing_again_replaces_all_of_the_stem(self):
    (self.folder / 'net-extra.safetensors').write_bytes(b'not ours')
    self.write(5, 200)
    self.write(5, 100, seed=1)
    assert len(os.listdir(self.folder)) == 5 + 1 + 1
    self.write(3, 1e9, seed=2)
    assert sorted(os.listdir(self.folder)) == [
      'net-extra.safetensors',
      'net.safetensors',
    ]
    self.write(2, 50, seed=3)
    assert len(os.listdir(self.folder)) == 2 + 1 + 1

  def test_one_tensor_at_a_time(self):
    alive, most = 0, 0

    class Array(np.ndarray):
      def __del__(self):
        nonlocal alive
        if self.base is None:
          alive -= 1

    def make():
      nonlocal alive, most
      alive += 1
      most = max(most, alive)
      return Array((10,), np.float32)

    specs = [(f'w{i}', (10,), np.float32, make) for i in range(6)]
    safetensors_files.write_sharded(self.folder, 'net', specs, 80)
    assert most <= 2  # the one written, and the next as it is made

  def test_transformers_style_loading(self):
    self.write(4, 100)
    content = json.loads(
      (self.folder / 'net.safetensors.index.json').read_text()
    )
    names = set()
    for shard in set(content['weight_map'].values()):
      names |= safetensors_torch.load_file(self.folder / shard).keys()
    assert names == content['weight_map'].keys()

  def test_fingerprint(self):
    arrays = {
      'a': np.arange(10_000, dtype=np.float32),  # more than its two ends
      'b': np.arange(6, dtype=np.float32).reshape(2, 3),
    }

    def fingerprint(arrays, max_shard_bytes=1e9):
      safetensors_files.write_sharded(
        self.folder,
        'net',
        [spec(*item) for item in arrays.items()],
        max_shard_bytes,
      )
      return safetensors_files.fingerprint(
        safetensors_files.open_tensors(self.folder, 'net')
      )

    whole = fingerprint(arrays)
    assert len(whole) == 64
    assert fingerprint(arrays, 10) == whole
    assert fingerprint(dict(reversed(arrays.items()))) == whole
    others = [
      {**arrays, 'b': arrays['b'].reshape(3, 2)},
      {**arrays, 'b': arrays['b'].astype(np.float16)},
      {**arrays, 'b': arrays['b'].view(np.int32)},
      {'a': arrays['a'], 'c': arrays['b']},
      {'a': arrays['a']},
    ]
    for position in (0, 1023, -1, -1024):
      changed = arrays['a'].copy()
      changed[position] = -5
      others.append({**arrays, 'a': changed})
    found = [fingerprint(other) for other in others]
    assert len({whole, *found}) == len(others) + 1


# The reasons are those of the safetensors package, except for duplicate names
# and unknown dtypes.
HEADERS = {
  'not json': (b'{"x": ', b'', 'invalid JSON in header'),
  'not utf-8': (b'{"\xff": 1}', b'', 'invalid UTF-8'),
  'too deep': (b'[' * 100_000, b'', 'invalid JSON in header'),
  'a list': (b'[]', b'', 'invalid type: sequence'),
  'same name': (
    b'{"x": %b, "x": %b}' % ((json.dumps(entry()).encode(),) * 2),
    b'1234',
    'duplicate key x',
  ),
  'same field': (
    b'{"x": {"dtype": "F32", "dtype": "F16"}}',
    b'',
    'duplicate field `dtype`',
  ),
  'no entry': ({'x': 3}, b'', 'expected struct TensorInfo'),
  'no offsets': (
    {'x': {'dtype': 'F32', 'shape': [1]}},
    b'',
    'missing field `data_offsets`',
  ),
  'dtype': (
    {'x': entry('C64', offsets=(0, 8))},
    b'12345678',
    "'x' has dtype C64; save it as",
  ),
  'dtype name': ({'x': entry('F\n4')}, b'1234', 'unknown variant `F 4`'),
  'dtype list': ({'x': entry([])}, b'1234', 'expected string'),
  'negative': ({'x': entry(shape=(-1, -1))}, b'1234', '`-1`, expected usize'),
  'bool': ({'x': entry(shape=(True,))}, b'1234', 'expected usize'),
  'fraction': ({'x': entry(shape=(1.0,))}, b'1234', 'expected usize'),
  'three offsets': ({'x': entry(offsets=(0, 1, 4))}, b'1234', 'length 3'),
  'float offset': ({'x': entry(offsets=(0, 4.0))}, b'1234', 'expected usize'),
  'outside': (
    {'x': entry(shape=(2,), offsets=(0, 8))},
    b'1234',
    'not fully covered',
  ),
  'backwards': ({'x': entry(offsets=(4, 0))}, b'1234', 'invalid offset'),
  'size': ({'x': entry(shape=(2,))}, b'1234', 'invalid shape'),
  'hole': (
    {'x': entry(), 'y': entry(offsets=(8, 12))},
    b'0' * 12,
    'invalid offset for tensor `y`',
  ),
  'overlap': (
    {'x': entry(), 'y': entry(offsets=(2, 6))},
    b'0' * 6,
    'invalid offset for tensor `y`',
  ),
  'late': ({'x': entry(offsets=(4, 8))}, b'0' * 8, 'invalid offset'),
  'trailing': ({'x': entry()}, b'12345', 'not fully covered'),
  'metadata': ({'__metadata__': {'a': 3}}, b'', 'expected a string'),
}


class BadInputTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.folder = tmp_path

  def fails(self, message, path=None):
    with pytest.raises(errors.UserError, match=message) as caught:
      safetensors_files.open_tensors(path or self.folder, 'net')
    text = str(caught.value)
    assert '\n' not in text and str(self.folder) in text and ';' in text

  @parameterized.named_parameters(
    *((name, *case) for name, case in HEADERS.items())
  )
  def test_header(self, header, data, message):
    raw_file(self.folder / 'net.safetensors', header, data)
    self.fails(message)

  def test_good_header_opens(self):
    """The cases above fail for their own reason, not for a common one."""
    raw_file(
      self.folder / 'net.safetensors',
      {'__metadata__': {'a': 'b'}, 'y': entry(offsets=(4, 8)), 'x': entry()},
      b'0' * 8,
    )
    opened = safetensors_files.open_tensors(self.folder, 'net')
    assert sorted(opened) == ['x', 'y']

  @parameterized.parameters(0, 7, 8, 20)
  def test_truncated(self, size):
    path = self.folder / 'net.safetensors'
    raw_file(path, {'x': entry()}, b'1234')
    path.write_bytes(path.read_bytes()[:size])
    self.fails('not a safetensors file, or truncated')

  @parameterized.parameters(2**63, 100, 100_000_001, 2**64 - 1)
  def test_header_length(self, length):
    raw_file(self.folder / 'net.safetensors', {'x': entry()}, b'1', length)
    self.fails('not a safetensors file, or truncated')

  def test_no_file(self):
    self.fails(
      'contains neither net.safetensors nor net.safetensors.index.json'
    )
    self.fails('no such file or folder', self.folder / 'nowhere')
    with pytest.raises(errors.UserError, match='x: cannot be read .*; check'):
      safetensors_files.read_metadata(self.folder / 'x')

  def sharded(self):
    safetensors_files.write_sharded(
      self.folder,
      'net',
      [spec(name, np.ones(2, np.float32)) for name in 'abc'],
      8,
    )
    self.index = self.folder / 'net.safetensors.index.json'
    self.shards = [f'net-0000{i}-of-00003.safetensors' for i in (1, 2, 3)]

  def set_index(self, weight_map):
    self.index.write_text(json.dumps({'weight_map': weight_map}))

  def test_single_and_index(self):
    self.sharded()
    raw_file(self.folder / 'net.safetensors', {'x': entry()}, b'1234')
    self.fails('contains both')

  def test_missing_shard(self):
    self.sharded()
    (self.folder / self.shards[1]).unlink()
    self.fails(f'lists {self.shards[1]}, which is missing')

  @parameterized.parameters(
    '../net.safetensors', '/etc/passwd', r'..\x', 'a/../b'
  )
  def test_path_leaves_the_folder(self, path):
    self.sharded()
    self.set_index({'a': path})
    self.fails('leaves the folder')

  def test_tensor_not_in_index(self):
    self.sharded()
    self.set_index({'a': self.shards[0], 'b': self.shards[1]})
    assert len(safetensors_files.open_tensors(self.folder, 'net')) == 2
    raw_file(
      self.folder / self.shards[1],
      {'b': entry(), 'unlisted': entry(offsets=(4, 8))},
      b'0' * 8,
    )
    self.fails('contains unlisted, which net.safetensors.index.json does not')

  def test_tensor_not_in_shard(self):
    self.sharded()
    self.set_index(
      {'a': self.shards[0], 'b': self.shards[1], 'd': self.shards[1]}
    )
    self.fails('lacks d, which net.safetensors.index.json lists')

  def test_tensor_in_two_shards(self):
    self.sharded()
    raw_file(
      self.folder / self.shards[1],
      {'b': entry(), 'a': entry(offsets=(4, 8))},
      b'0' * 8,
    )
    self.fails(f'contains a, which {self.shards[0]} contains too')

  @parameterized.parameters(
    ('{', 'cannot be parsed'),
    ('[]', 'is not an object'),
    ('{}', 'weight_map does not map'),
    ('{"weight_map": {"a": 3}}', 'weight_map does not map'),
    ('{"weight_map": {"a": "x", "a": "y"}}', 'duplicate key a'),
  )
  def test_index(self, text, message):
    self.sharded()
    self.index.write_text(text)
    self.fails(message)

  def test_linked_files_open(self):
    """A Hugging Face cache is a folder of links to files outside of it."""
    self.sharded()
    snapshot = self.folder / 'snapshot'
    snapshot.mkdir()
    for name in (*self.shards, self.index.name):
      (snapshot / name).symlink_to(self.folder / name)
    assert sorted(safetensors_files.open_tensors(snapshot, 'net')) == [*'abc']
