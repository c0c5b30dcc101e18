"""Reading and writing safetensors files, one slice at a time.

The format (https://huggingface.co/docs/safetensors) is: the length of the
header in eight little-endian bytes, the header as JSON
`{name: {dtype, shape, data_offsets}}`, then the little-endian data. The
`safetensors` package opens and checks each file. We memory-map the values
ourselves, as its NumPy binding supports neither float8 nor reading the raw ends
of a tensor, which fingerprints cover; and we write them ourselves, one tensor
at a time, as the package needs a complete file in memory.

A large network is several such files and an index
`{"metadata": {"total_size": n}, "weight_map": {tensor name: file name}}`, as
Hugging Face writes them: `STEM-00001-of-00003.safetensors` and
`STEM.safetensors.index.json`.
"""

import collections
from collections.abc import Callable, Iterable, Mapping, Sequence
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
from lift_jax.runtime import storage
from lift_jax.runtime.files import atomic_path, parse_json, write_json

# Dtypes by name, except those below one byte: `Dtype` of safetensors/src/
# tensor.rs in https://github.com/huggingface/safetensors.
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

_EDGE_BYTES = 4096  # a fingerprint covers so many at each end of a tensor

# Hugging Face's "5GB", which are powers of ten.
MAX_SHARD_BYTES = 5_000_000_000

# What DistributedDataParallel and torch.compile put before all names.
_WRAPPERS = re.compile(r'((module|_orig_mod)\.)+')

# A tensor to write: its name, shape, dtype, and a function for its values.
TensorSpec = tuple[str, tuple[int, ...], Any, Callable[[], np.ndarray]]


@dataclasses.dataclass(frozen=True)
class LazyTensor:
  """A tensor in a file; indexing it reads only that slice.

  Attributes:
    name: the tensor's name in the file.
    file: the file that contains it.
    offset: of its first byte in that file.
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
    # Mapped for each read, so that its pages do not stay resident.
    file = storage.local_copy(self.file)
    mapped = np.memmap(
      file, np.uint8, 'r', offset=self.offset, shape=(self.nbytes,)
    )
    tensor = mapped.view(np.ndarray).view(self.dtype).reshape(self.shape)
    return np.array(tensor[slices])

  def edges(self) -> bytes:
    """The first and the last 4096 bytes of the data (fewer if small)."""
    size = min(self.nbytes, _EDGE_BYTES)
    with open(storage.local_copy(self.file), 'rb') as file:
      file.seek(self.offset)
      first = file.read(size)
      file.seek(self.offset + self.nbytes - size)
      return first + file.read(size)


class _DuplicateKeyError(ValueError):
  """A JSON object has a duplicate key."""


def _duplicates(names: Iterable[str]) -> list[str]:
  counts = collections.Counter(names)
  return [name for name, count in counts.items() if count > 1]


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
  if duplicates := _duplicates(name for name, _ in pairs):
    raise _DuplicateKeyError(errors.listing(duplicates))
  return dict(pairs)


def _json_object(data: bytes, file: pathlib.Path) -> dict[str, Any]:
  """Parses a JSON object, without duplicate keys."""
  try:
    value = parse_json(data, object_pairs_hook=_unique)
  except _DuplicateKeyError as error:
    raise errors.UserError(
      f'{file}: its JSON has the duplicate key {error}; download the file again'
    ) from error
  except (ValueError, RecursionError) as error:
    raise errors.UserError(
      f'{file}: its JSON cannot be parsed; download the file again'
    ) from error
  if not isinstance(value, dict):
    raise errors.UserError(
      f'{file}: its JSON is not an object; download the file again'
    )
  return value


def _unreadable(file: pathlib.Path, error: OSError) -> errors.UserError:
  return errors.UserError(f'{file}: cannot be read ({error}); check the path')


def _read_header(file: pathlib.Path) -> tuple[dict[str, Any], int]:
  """(header, offset of the data) of a valid file."""
  try:
    # The package checks the header against the size of the file: types,
    # shapes, and data without gaps or overlaps.
    local = storage.local_copy(file)
    with safetensors.safe_open(local, 'np'), open(local, 'rb') as opened:
      length = int.from_bytes(opened.read(8), 'little')
      # But it accepts duplicate names, of which the last one would count.
      return _json_object(opened.read(length), file), 8 + length
  except OSError as error:
    raise _unreadable(file, error) from error
  except safetensors.SafetensorError as error:
    reason = ' '.join(str(error).split())  # it may quote a name
    raise errors.UserError(
      f'{file}: not a safetensors file, or truncated ({reason}); '
      'download the file again'
    ) from error


def read_metadata(file: pathlib.Path) -> dict[str, str]:
  """The metadata strings in the header of one file.

  Raises:
    UserError: the file is missing or not valid.
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
  """The tensors of all the files of an index."""
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
      'download the file again'
    )
  tensors = {}
  for shard in sorted(set(weight_map.values())):
    path = pathlib.PurePosixPath(shard)
    # Checks the path itself, not its target: a download cache is made of links.
    if path.is_absolute() or '..' in path.parts or '\\' in shard:
      raise errors.UserError(
        f'{index}: the path {shard!r} leaves the folder; correct weight_map'
      )
    file = index.parent / path
    if not file.is_file():
      raise errors.UserError(
        f'{index}: lists {shard}, which is missing; download that file too'
      )
    found = _open_file(file)
    if duplicates := found.keys() & tensors.keys():
      other = tensors[min(duplicates)].file.name
      raise errors.UserError(
        f'{file}: contains {errors.listing(duplicates)}, which {other} '
        'contains too; download the folder again'
      )
    listed = {name for name, value in weight_map.items() if value == shard}
    if unlisted := found.keys() - listed:
      raise errors.UserError(
        f'{file}: contains {errors.listing(unlisted)}, which {index.name} does '
        'not list there; download the folder again'
      )
    if missing := listed - found.keys():
      raise errors.UserError(
        f'{file}: lacks {errors.listing(missing)}, which {index.name} '
        'lists there; download the folder again'
      )
    tensors.update(found)
  return tensors


def open_tensors(
  folder_or_file: str | os.PathLike[str], stem: str
) -> dict[str, LazyTensor]:
  """The tensors of a network, by name; reads only headers.

  If the network was saved in a wrapper, whose prefix all names have, they are
  without it.

  Args:
    folder_or_file: a folder with `STEM.safetensors`, or with
      `STEM.safetensors.index.json` and the files that it lists; or one file.
    stem: 'diffusion_pytorch_model' for diffusers, 'model' for transformers.

  Raises:
    UserError: a file is missing, not valid, or does not match the index.
  """
  path = storage.to_path(folder_or_file)
  if path.is_file():
    return _unwrapped(_open_file(path))
  if not path.is_dir():
    raise errors.UserError(f'{path}: no such file or folder; check the path')
  single = path / f'{stem}.safetensors'
  index = path / f'{stem}.safetensors.index.json'
  if single.is_file() and index.is_file():
    raise errors.UserError(
      f'{path}: contains both {single.name} and {index.name}; remove one'
    )
  if single.is_file():
    return _unwrapped(_open_file(single))
  if index.is_file():
    return _unwrapped(_open_index(index))
  raise errors.UserError(
    f'{path}: contains neither {single.name} nor {index.name}; give the folder '
    'of the weights, in safetensors format'
  )


def _unwrapped(tensors: dict[str, LazyTensor]) -> dict[str, LazyTensor]:
  found = _WRAPPERS.match(next(iter(tensors), ''))
  if found is None or not all(name.startswith(found[0]) for name in tensors):
    return tensors
  return {
    name.removeprefix(found[0]): tensor for name, tensor in tensors.items()
  }


def fingerprint(tensors: Mapping[str, LazyTensor], dtype: Any = None) -> str:
  """SHA-256 that identifies a network's weights, however they are sharded.

  Covers every tensor's name, dtype, shape, and the first and last 4096 bytes
  of its data: cheap, and enough to distinguish published checkpoints and
  training runs, but not to detect an edit in the middle of a tensor.

  Args:
    tensors: by name.
    dtype: floats are hashed as if they were cast to it; None for no cast.
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
  """`tensor.edges()` of the values cast to `dtype`."""
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


def header_bytes(tensors: Sequence[TensorSpec]) -> bytes:
  """The length and the header of a file of these tensors in this order.

  Raises:
    ValueError: duplicate names, or a dtype that the format lacks.
  """
  _check_unique(tensors)
  # transformers rejects a file without this entry.
  header: dict[str, Any] = {'__metadata__': {'format': 'pt'}}
  offset = 0
  for spec in tensors:
    name, shape, dtype, _ = spec
    if np.dtype(dtype) not in _CODES:
      raise ValueError(f'tensor {name!r}: safetensors has no {dtype}')
    end = offset + _size(spec)
    header[name] = {
      'dtype': _CODES[np.dtype(dtype)],
      'shape': list(shape),
      'data_offsets': [offset, end],
    }
    offset = end
  data = json.dumps(header, separators=(',', ':')).encode()
  data += b' ' * (-len(data) % 8)  # aligns the data to eight bytes
  return len(data).to_bytes(8, 'little') + data


def _check_unique(tensors: Sequence[TensorSpec]) -> None:
  if duplicates := _duplicates(name for name, *_ in tensors):
    raise ValueError(f'duplicate tensors: {errors.listing(duplicates)}')


def _write_to(path: pathlib.Path, tensors: Iterable[TensorSpec]) -> None:
  # Widest first: this aligns each tensor to its item size, which readers that
  # map the file rely on.
  ordered = sorted(tensors, key=lambda spec: -np.dtype(spec[2]).itemsize)
  with open(path, 'wb') as file:
    file.write(header_bytes(ordered))
    for name, shape, dtype, values in ordered:
      array = np.asarray(values())
      if array.shape != tuple(shape) or array.dtype != np.dtype(dtype):
        raise ValueError(
          f'tensor {name!r} was declared as {np.dtype(dtype)}{list(shape)}, '
          f'but is {array.dtype}{list(array.shape)}'
        )
      # As bytes, as a file does not accept a buffer of bfloat16.
      file.write(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data)


def write(path: str | os.PathLike[str], tensors: Iterable[TensorSpec]) -> None:
  """Writes one file atomically, with one tensor in memory at a time.

  Args:
    path: of the file.
    tensors: (name, shape, dtype, function that returns the array).
  """
  path = storage.to_path(path)
  with atomic_path(path) as partial:
    _write_to(partial, tensors)


def _shards(
  specs: Iterable[TensorSpec], max_shard_bytes: float
) -> list[list[TensorSpec]]:
  """Splits a list of tensors, in order, into shards of `max_shard_bytes`."""
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

  Replaces existing files of this stem. The old index is removed before the new
  files appear, and the new one is written last: a killed run leaves a folder
  that cannot be opened, and never a mixture of two networks.

  Args:
    folder: created if it does not exist.
    stem: 'diffusion_pytorch_model' for diffusers, 'model' for transformers.
    specs: (name, shape, dtype, function that returns the array).
    max_shard_bytes: of tensor data in a file; one larger tensor may exceed it.
  """
  folder = storage.to_path(folder)
  folder.mkdir(parents=True, exist_ok=True)
  specs = list(specs)
  _check_unique(specs)
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
    for old in storage.children(folder):
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
