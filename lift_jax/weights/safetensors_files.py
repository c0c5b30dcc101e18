"""Reading and writing safetensors files, one slice at a time.

The format (https://huggingface.co/docs/safetensors) is: the length of the
header in eight little-endian bytes, the header as JSON
`{name: {dtype, shape, data_offsets}}`, then the little-endian data. The
`safetensors` package opens and checks each file. Values are mapped here, as its
NumPy binding knows neither float8 nor the raw ends of a tensor, which a
fingerprint covers; and written here, one tensor at a time, as it would hold a
whole file in memory.

A large network is several such files and an index
`{"metadata": {"total_size": n}, "weight_map": {tensor name: file name}}`, as
Hugging Face writes them: `STEM-00001-of-00003.safetensors` and
`STEM.safetensors.index.json`.
"""

import collections
from collections.abc import Callable, Iterable, Mapping
import contextlib
import dataclasses
import hashlib
import json
import math
import os
import pathlib
import re
from typing import Any

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import safetensors

from lift_jax import errors
from lift_jax.runtime.files import atomic_path, write_json

# The names of the format, https://github.com/huggingface/safetensors
# (`Dtype` in safetensors/src/tensor.rs); those below one byte are left out.
DTYPES: Mapping[str, np.dtype] = {
  'BOOL': np.dtype(np.bool_),
  'U8': np.dtype(np.uint8),
  'I8': np.dtype(np.int8),
  'F8_E5M2': np.dtype(ml_dtypes.float8_e5m2),
  'F8_E4M3': np.dtype(ml_dtypes.float8_e4m3fn),
  'I16': np.dtype(np.int16),
  'U16': np.dtype(np.uint16),
  'F16': np.dtype(np.float16),
  'BF16': np.dtype(ml_dtypes.bfloat16),
  'I32': np.dtype(np.int32),
  'U32': np.dtype(np.uint32),
  'F32': np.dtype(np.float32),
  'F64': np.dtype(np.float64),
  'I64': np.dtype(np.int64),
  'U64': np.dtype(np.uint64),
}
_CODES = {dtype: code for code, dtype in DTYPES.items()}

_EDGE_BYTES = 4096  # of each end of a tensor that its fingerprint covers

# Hugging Face cuts at "5GB", counted in powers of ten.
MAX_SHARD_BYTES = 5_000_000_000

# A tensor to write: its name, shape, dtype, and what makes its values.
TensorSpec = tuple[str, tuple[int, ...], Any, Callable[[], np.ndarray]]


@dataclasses.dataclass(frozen=True)
class LazyTensor:
  """A tensor in a file; indexing it reads the slice asked for.

  Attributes:
    name: the tensor's name in the file.
    file: the file that holds it.
    offset: position of its first byte in that file.
  """

  name: str
  shape: tuple[int, ...]
  dtype: np.dtype
  file: pathlib.Path
  offset: int

  @property
  def nbytes(self) -> int:
    return math.prod(self.shape) * self.dtype.itemsize

  def __getitem__(self, slices) -> np.ndarray:
    """A copy of `tensor[slices]`, slices as for a numpy array."""
    if not self.nbytes:  # an empty range cannot be mapped
      return np.empty(self.shape, self.dtype)[slices]
    # Mapped anew for each read, so that its pages do not stay with us.
    mapped = np.memmap(
      self.file, np.uint8, 'r', offset=self.offset, shape=(self.nbytes,)
    )
    whole = mapped.view(np.ndarray).view(self.dtype).reshape(self.shape)
    return np.array(whole[slices])

  def edges(self) -> bytes:
    """The first and the last 4096 bytes of the data (fewer if small)."""
    size = min(self.nbytes, _EDGE_BYTES)
    with open(self.file, 'rb') as file:
      file.seek(self.offset)
      first = file.read(size)
      file.seek(self.offset + self.nbytes - size)
      return first + file.read(size)


class _RepeatedKeyError(ValueError):
  """A JSON object holds a key twice."""


def _repeated(names: Iterable[str]) -> list[str]:
  counts = collections.Counter(names)
  return [name for name, count in counts.items() if count > 1]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  if repeated := _repeated(name for name, _ in pairs):
    raise _RepeatedKeyError(errors.listing(repeated))
  return dict(pairs)


def _json_object(data: bytes, file: pathlib.Path) -> dict[str, Any]:
  """Parses a JSON object, refusing keys that occur twice."""
  try:
    value = json.loads(data, object_pairs_hook=_unique)
  except _RepeatedKeyError as error:
    raise errors.UserError(
      f'{file}: its JSON names {error} twice; fetch the file again'
    ) from error
  except (ValueError, RecursionError) as error:
    raise errors.UserError(
      f'{file}: its JSON cannot be parsed; fetch the file again'
    ) from error
  if not isinstance(value, dict):
    raise errors.UserError(
      f'{file}: its JSON is not an object; fetch the file again'
    )
  return value


def _unreadable(file: pathlib.Path, error: OSError) -> errors.UserError:
  return errors.UserError(f'{file}: cannot be read ({error}); check the path')


def _read_header(file: pathlib.Path) -> tuple[dict[str, Any], int]:
  """(header, position of the data) of a file that is whole."""
  try:
    # The package checks what the header says against the size of the file:
    # types, shapes, and data without a hole or an overlap.
    with safetensors.safe_open(file, 'np'), open(file, 'rb') as opened:
      length = int.from_bytes(opened.read(8), 'little')
      # But of a tensor that is named twice it would return the second one.
      return _json_object(opened.read(length), file), 8 + length
  except OSError as error:
    raise _unreadable(file, error) from error
  except safetensors.SafetensorError as error:
    reason = ' '.join(str(error).split())  # it may quote a name
    raise errors.UserError(
      f'{file}: not a safetensors file, or cut short ({reason}); '
      'fetch the file again'
    ) from error


def read_metadata(file: pathlib.Path) -> dict[str, str]:
  """The strings kept in the header of one file.

  Raises:
    UserError: the file is missing, or not what the format says.
  """
  return _read_header(file)[0].get('__metadata__', {})


def _open_file(file: pathlib.Path) -> dict[str, LazyTensor]:
  """The tensors of one file, by name."""
  header, start = _read_header(file)
  header.pop('__metadata__', None)
  tensors = {}
  for name, entry in header.items():
    if entry['dtype'] not in DTYPES:
      raise errors.UserError(
        f'{file}: tensor {name!r} has dtype {entry["dtype"]}; '
        f'save it as one of {", ".join(DTYPES)}'
      )
    tensors[name] = LazyTensor(
      name,
      tuple(entry['shape']),
      DTYPES[entry['dtype']],
      file,
      start + entry['data_offsets'][0],
    )
  return tensors


def _open_index(index: pathlib.Path) -> dict[str, LazyTensor]:
  """The tensors of all the files that an index names."""
  try:
    content = _json_object(index.read_bytes(), index)
  except OSError as error:
    raise _unreadable(index, error) from error
  weight_map = content.get('weight_map')
  if not isinstance(weight_map, dict) or not all(
    isinstance(value, str) for value in weight_map.values()
  ):
    raise errors.UserError(
      f'{index}: weight_map does not map tensor names to file names; '
      'fetch the file again'
    )
  tensors = {}
  for shard in sorted(set(weight_map.values())):
    path = pathlib.PurePosixPath(shard)
    # By its words, not its target: a download cache is made of links.
    if path.is_absolute() or '..' in path.parts or '\\' in shard:
      raise errors.UserError(
        f'{index}: the path {shard!r} leaves the folder; correct weight_map'
      )
    file = index.parent / path
    if not file.is_file():
      raise errors.UserError(
        f'{index}: names {shard}, which is missing; fetch that file too'
      )
    held = _open_file(file)
    if repeated := held.keys() & tensors.keys():
      other = tensors[min(repeated)].file.name
      raise errors.UserError(
        f'{file}: holds {errors.listing(repeated)} a second time, '
        f'after {other}; fetch the folder again'
      )
    listed = {name for name, value in weight_map.items() if value == shard}
    if unlisted := held.keys() - listed:
      raise errors.UserError(
        f'{file}: holds {errors.listing(unlisted)}, which {index.name} does '
        'not list there; fetch the folder again'
      )
    if missing := listed - held.keys():
      raise errors.UserError(
        f'{file}: lacks {errors.listing(missing)}, which {index.name} '
        'lists there; fetch the folder again'
      )
    tensors.update(held)
  return tensors


def open_tensors(
  folder_or_file: str | os.PathLike[str], stem: str
) -> dict[str, LazyTensor]:
  """The tensors of a network, by name; nothing but headers is read.

  Args:
    folder_or_file: a folder with `STEM.safetensors`, or with
      `STEM.safetensors.index.json` and the files it names; or one file.
    stem: 'diffusion_pytorch_model' for diffusers, 'model' for transformers.

  Raises:
    UserError: a file is missing, or not what the format or the index says.
  """
  path = pathlib.Path(folder_or_file)
  if path.is_file():
    return _open_file(path)
  if not path.is_dir():
    raise errors.UserError(f'{path}: no such file or folder; check the path')
  single = path / f'{stem}.safetensors'
  index = path / f'{stem}.safetensors.index.json'
  if single.is_file() and index.is_file():
    raise errors.UserError(
      f'{path}: holds both {single.name} and {index.name}; remove one'
    )
  if single.is_file():
    return _open_file(single)
  if index.is_file():
    return _open_index(index)
  raise errors.UserError(
    f'{path}: holds neither {single.name} nor {index.name}; give the folder '
    'of the weights, in safetensors format'
  )


def fingerprint(tensors: Mapping[str, LazyTensor], dtype: Any = None) -> str:
  """SHA-256 of what a network's weights are, however they are sharded.

  Covers every tensor's name, dtype, shape, and the first and last 4096 bytes
  of its data: cheap, and it tells published checkpoints and training runs
  apart. It is no proof against someone who edits the middle of a tensor.

  Args:
    tensors: by name.
    dtype: that floats are about to be cast to.
  """
  digest = hashlib.sha256()
  for name, tensor in sorted(tensors.items()):
    is_float = jnp.issubdtype(tensor.dtype, jnp.floating)
    kept = np.dtype(dtype) if dtype is not None and is_float else tensor.dtype
    entry = [name, _CODES[kept], tensor.shape]
    digest.update(json.dumps(entry).encode() + b'\n')
    digest.update(_ends(tensor, kept))
  return digest.hexdigest()


def _ends(tensor: LazyTensor, dtype: np.dtype) -> bytes:
  """What `tensor.edges()` would be of the same values in another type."""
  if dtype == tensor.dtype:
    return tensor.edges()
  size = math.prod(tensor.shape)
  flat = dataclasses.replace(tensor, shape=(size,))
  count = min(size, _EDGE_BYTES // dtype.itemsize)
  parts = flat[:count], flat[size - count :]
  with np.errstate(over='ignore'):  # the weights themselves are checked
    return b''.join(part.astype(dtype).tobytes() for part in parts)


def _size(spec: TensorSpec) -> int:
  _, shape, dtype, _ = spec
  return math.prod(shape) * np.dtype(dtype).itemsize


def header_bytes(tensors: list[TensorSpec]) -> bytes:
  """The length and the header of a file of these tensors in this order."""
  if repeated := _repeated(name for name, *_ in tensors):
    raise ValueError(f'written twice: {errors.listing(repeated)}')
  # transformers refuses a file without this note.
  header: dict[str, Any] = {'__metadata__': {'format': 'pt'}}
  position = 0
  for spec in tensors:
    name, shape, dtype, _ = spec
    if np.dtype(dtype) not in _CODES:
      raise ValueError(f'tensor {name!r}: safetensors has no {dtype}')
    end = position + _size(spec)
    header[name] = {
      'dtype': _CODES[np.dtype(dtype)],
      'shape': list(shape),
      'data_offsets': [position, end],
    }
    position = end
  data = json.dumps(header, separators=(',', ':')).encode()
  data += b' ' * (-len(data) % 8)  # the data begins at a multiple of eight
  return len(data).to_bytes(8, 'little') + data


def _write_to(path: pathlib.Path, tensors: Iterable[TensorSpec]) -> None:
  # Widest first: then each tensor begins at a multiple of its item size,
  # which readers that map the file rely on.
  ordered = sorted(tensors, key=lambda spec: -np.dtype(spec[2]).itemsize)
  with open(path, 'wb') as file:
    file.write(header_bytes(ordered))
    for name, shape, dtype, values in ordered:
      array = np.asarray(values())
      if array.shape != tuple(shape) or array.dtype != np.dtype(dtype):
        raise ValueError(
          f'tensor {name!r} was announced as {np.dtype(dtype)}{list(shape)} '
          f'and came as {array.dtype}{list(array.shape)}'
        )
      # As bytes: a buffer of bfloat16 is not one that a file accepts.
      file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8))


def write(path: str | os.PathLike[str], tensors: Iterable[TensorSpec]) -> None:
  """Writes one file, holding one tensor at a time.

  Args:
    path: the file; it appears once it is whole.
    tensors: (name, shape, dtype, function that returns the array).
  """
  path = pathlib.Path(path)
  with atomic_path(path) as partial:
    _write_to(partial, tensors)


def _shards(
  specs: Iterable[TensorSpec], max_shard_bytes: int
) -> list[list[TensorSpec]]:
  """Cuts a list of tensors, in its order, at `max_shard_bytes` each."""
  shards: list[list[TensorSpec]] = [[]]
  filled = 0
  for spec in specs:
    if shards[-1] and filled + _size(spec) > max_shard_bytes:
      shards.append([])
      filled = 0
    shards[-1].append(spec)
    filled += _size(spec)
  return shards


def write_sharded(
  folder: str | os.PathLike[str],
  stem: str,
  specs: Iterable[TensorSpec],
  max_shard_bytes: float = MAX_SHARD_BYTES,
) -> None:
  """Writes a network as Hugging Face does: one file, or shards and an index.

  What the folder held under this stem is replaced. The old index goes before
  the new files come, and the new one comes last: a run that is killed leaves
  a folder that does not open, and never a mixture of two networks.

  Args:
    folder: made if it does not exist.
    stem: 'diffusion_pytorch_model' for diffusers, 'model' for transformers.
    specs: (name, shape, dtype, function that returns the array).
    max_shard_bytes: of tensor data in a file; one larger tensor may exceed it.
  """
  folder = pathlib.Path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  specs = list(specs)
  if repeated := _repeated(name for name, *_ in specs):
    raise ValueError(f'written twice: {errors.listing(repeated)}')
  shards = _shards(specs, max_shard_bytes)
  single, index = f'{stem}.safetensors', f'{stem}.safetensors.index.json'
  if len(shards) == 1:
    contents = {single: shards[0]}
  else:
    contents = {
      f'{stem}-{number:05}-of-{len(shards):05}.safetensors': shard
      for number, shard in enumerate(shards, start=1)
    }

  with contextlib.ExitStack() as stack:
    for name, shard in contents.items():
      partial = stack.enter_context(atomic_path(folder / name))
      _write_to(partial, shard)
    old_shard = re.compile(re.escape(stem) + r'-\d{5}-of-\d{5}\.safetensors')
    for old in list(folder.iterdir()):
      if old.name in (index, single) or old_shard.fullmatch(old.name):
        old.unlink()
  if len(shards) > 1:
    weight_map = {
      spec[0]: name for name, shard in contents.items() for spec in shard
    }
    total_size = sum(map(_size, specs))
    write_json(
      folder / index,
      {'metadata': {'total_size': total_size}, 'weight_map': weight_map},
    )
