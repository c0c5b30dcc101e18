"""Published weights: read as our parameters, and written from them.

Both follow a conversion table, see `conversion`.
"""

import collections
from collections.abc import Callable, Mapping, Sequence
import functools
import os
import re
from types import MappingProxyType
from typing import Any

import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
import numpy as np

from lift_jax import errors
from lift_jax.weights import param_paths, safetensors_files
from lift_jax.weights.conversion import Computed, Source, Table, resolve

# Largest difference of a computed tensor in fp32. Sines and cosines of
# positions up to 100 are known no better if the angle is rounded to fp32.
_COMPUTED_ATOL = 1e-5


def _match_tensors(
  sources: Mapping[str, Source],
  tensors: Mapping[str, safetensors_files.LazyTensor],
  aliases: Sequence[tuple[str, str]],
  ignored: Sequence[str],
  where: str,
) -> dict[str, safetensors_files.LazyTensor]:
  """The tensors under the names of the table; see `load` for the errors."""
  tensors = dict(tensors)
  for other, name in aliases:
    if other not in tensors:
      continue
    alias = tensors.pop(other)
    kept = tensors.setdefault(name, alias)
    # Compares the ends only, as the tensors may be gigabytes.
    if (kept.shape, kept.dtype) != (alias.shape, alias.dtype) or (
      kept.edges() != alias.edges()
    ):
      raise errors.UserError(
        f'{where}: {other} and {name} should be equal, but differ; this '
        'network ties them, so use weights that do'
      )
  expected = {
    name: source.shape for source in sources.values() for name in source.names
  }
  skipped = {
    name
    for name in tensors.keys() - expected.keys()
    if any(re.fullmatch(pattern, name) for pattern in ignored)
  }
  found = {
    'unknown': tensors.keys() - expected.keys() - skipped,
    'missing': expected.keys() - tensors.keys(),
    'of another shape': {
      f'{name} {list(tensors[name].shape)} instead of {list(shape)}'
      for name, shape in expected.items()
      if name in tensors and tensors[name].shape != tuple(shape)
    },
  }
  if problems := [
    f'{len(names)} {kind}: {errors.listing(names)}'
    for kind, names in found.items()
    if names
  ]:
    raise errors.UserError(
      f'{where}: tensors {"; ".join(problems)}; check that the weights and '
      'the config belong to the same model'
    )
  for name in expected:
    _check_float(name, tensors[name], where)
  return tensors


def _check_float(
  name: str, tensor: safetensors_files.LazyTensor, where: str
) -> None:
  if not jnp.issubdtype(tensor.dtype, jnp.floating):
    raise errors.UserError(
      f'{where}: {name} is {tensor.dtype}; quantised weights are not supported,'
      ' use those in bfloat16, float16 or float32'
    )


def _without_computed(
  tensors: Mapping[str, safetensors_files.LazyTensor],
  computed: Computed,
  where: str,
) -> dict[str, safetensors_files.LazyTensor]:
  """The tensors that are left to load; see `load` for the errors."""
  tensors = dict(tensors)
  for name in computed.keys() & tensors.keys():
    stored, expected = tensors.pop(name), computed[name]()
    _check_float(name, stored, where)
    # A value may be rounded the other way.
    atol = max(_COMPUTED_ATOL, float(jnp.finfo(stored.dtype).eps))
    if stored.shape != expected.shape or not np.allclose(
      stored[...].astype(np.float32), expected, rtol=0, atol=atol
    ):
      raise errors.UserError(
        f'{where}: {name} is not the table that follows from the config; use '
        'the config of these weights, and a model that learned no positions'
      )
  return tensors


def _cast(array: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
  """`array` as a contiguous array of `dtype`.

  Raises:
    UserError: a value overflows float16.
  """
  if dtype != np.float16 or array.dtype == np.float16:
    return np.asarray(array, dtype, order='C')
  with np.errstate(over='ignore'):
    cast = np.asarray(array, dtype, order='C')
  if (np.isinf(cast) & ~np.isinf(array)).any():
    raise errors.UserError(
      f'{name}: values beyond the range of float16; choose bfloat16 or float32'
    )
  return cast


def _choose_dtype(dtypes: Sequence[Any], dtype: Any | None) -> np.dtype:
  """`dtype` if it is given, otherwise the stored one."""
  if dtype is not None:
    return np.dtype(dtype)
  return np.dtype(functools.reduce(jnp.promote_types, dtypes))


def _read(
  source: Source,
  tensors: Mapping[str, safetensors_files.LazyTensor],
  index: tuple[slice, ...],
  dtype: np.dtype,
) -> np.ndarray:
  """`parameter[index]`, reading only that part of the files."""
  axes, inverse = source.transform.axes, source.transform.inverse_axes
  part = index[1:] if source.stacked else index
  if inverse is not None:
    part = tuple(part[axis] for axis in inverse)

  def read(name):
    array = tensors[name][part]
    array = array if axes is None else array.transpose(axes)
    return _cast(array, dtype, name)

  if not source.stacked:
    return read(source.names[0])
  names = source.names[index[0]]
  first = read(names[0])
  layers = np.empty((len(names), *first.shape), dtype)
  layers[0] = first
  for layer, name in enumerate(names[1:], start=1):
    layers[layer] = read(name)
  return layers


def placed(
  shape: tuple[int, ...],
  sharding: jax.sharding.Sharding,
  read: Callable[[tuple[slice, ...]], np.ndarray],
) -> jax.Array:
  """An array whose shards are read one by one.

  Like jax.make_array_from_callback, which would hold all the shards of this
  host at once, and read a replicated shard once per device.

  Args:
    shape: of the array.
    sharding: of the array.
    read: `read(index)` is the part of it at an index of slices.
  """
  devices_by_bounds = collections.defaultdict(list)
  index_map = sharding.addressable_devices_indices_map(shape)
  for device, index in index_map.items():
    assert index is not None  # all these devices are addressable
    bounds = tuple(
      part.indices(size)[:2] for part, size in zip(index, shape, strict=True)
    )
    devices_by_bounds[bounds].append(device)
  arrays = []
  for bounds, devices in devices_by_bounds.items():
    shard = read(tuple(slice(*b) for b in bounds))
    arrays += jax.block_until_ready(
      [jax.device_put(shard, device) for device in devices]
    )
  return jax.make_array_from_single_device_arrays(shape, sharding, arrays)


def load(
  table: Table,
  abstract_params: Any,
  tensors: Mapping[str, safetensors_files.LazyTensor],
  *,
  shardings: Any = None,
  dtype: Any = None,
  update: Callable[[str, jax.Array], jax.Array] | None = None,
  aliases: Sequence[tuple[str, str]] = (),
  ignored: Sequence[str] = (),
  computed: Computed = MappingProxyType({}),
  where: str = 'checkpoint',
) -> dict[Any, Any]:
  """Loads published tensors as our parameters, shard by shard.

  Each process reads the shards of its devices, one shard of one parameter at a
  time: the host needs memory for the largest shard, a few times over.

  Args:
    table: the rules of this network.
    abstract_params: nested dict of anything with a `shape`.
    tensors: from `safetensors_files.open_tensors`.
    shardings: nested dict like the parameters; None puts them on the default
      device.
    dtype: of floating-point parameters; None keeps the stored ones.
    update: `update(name, array)` is kept in place of each array, before the
      next one is read.
    aliases: (other name, name in the table) of tensors that a publisher may
      store under either name, or under both.
    ignored: regular expressions, matched in full, of published tensors that
      our network does not need.
    computed: published tensors that are compared instead of loaded.
    where: how errors name these weights, e.g. 'transformer of FOLDER'.

  Raises:
    UserError: unknown, missing or wrongly shaped tensors, all in one message;
      or a tensor that is not floating-point or not as computed, or a value that
      overflows float16.
    ValueError: the table does not cover the parameters.
  """
  sources = resolve(table, abstract_params)
  tensors = _without_computed(tensors, computed, where)
  tensors = _match_tensors(sources, tensors, aliases, ignored, where)
  by_name = None if shardings is None else param_paths.flatten(shardings)

  def build(name, leaf):
    source, shape = sources[name], tuple(leaf.shape)
    stored = [tensors[published].dtype for published in source.names]
    kept = _choose_dtype(stored, dtype)

    def read(index):
      return _read(source, tensors, index, kept)

    if by_name is None:
      array = jnp.asarray(read(tuple(slice(0, size) for size in shape)))
    else:
      array = placed(shape, by_name[name], read)
    return array if update is None else update(name, array)

  return param_paths.map_named(build, abstract_params)


def check(
  table: Table,
  abstract_params: Any,
  tensors: Mapping[str, safetensors_files.LazyTensor],
  *,
  where: str,
) -> None:
  """Raises the errors of `load` that names and shapes alone show."""
  _match_tensors(resolve(table, abstract_params), tensors, (), (), where)


@jax.jit
def _layer(stacked: jax.Array, layer: int) -> jax.Array:
  return jax.lax.dynamic_index_in_dim(stacked, layer, keepdims=False)


def _gather(
  leaf: jax.Array | np.ndarray,
  source: Source,
  name: str,
  layer: int,
  dtype: np.dtype,
) -> np.ndarray:
  """One published tensor on this host; every process must call it."""
  if source.stacked:
    # The layer index is traced: one program serves all layers.
    leaf = _layer(leaf, layer) if isinstance(leaf, jax.Array) else leaf[layer]
  if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
    array = multihost_utils.process_allgather(leaf, tiled=True)
  else:
    # A copy, as a jax.Array caches the values that it has sent to the host.
    array = np.asarray(leaf if source.stacked else leaf.copy())
  if source.transform.axes is not None:
    array = array.transpose(source.transform.inverse_axes)
  return _cast(array, dtype, name)


def save(
  table: Table,
  params: Any,
  folder: str | os.PathLike[str],
  stem: str,
  *,
  dtype: Any = None,
  max_shard_bytes: float = safetensors_files.MAX_SHARD_BYTES,
) -> None:
  """Writes our parameters as published tensors, one at a time.

  Every process must call it, since all take part in gathering a tensor that is
  sharded over several; process 0 alone writes, and all return once it has.

  Args:
    table: the rules of this network.
    params: nested dict of arrays.
    folder: on a file system of process 0; created if it does not exist.
    stem: 'diffusion_pytorch_model' for diffusers, 'model' for transformers.
    dtype: of the tensors; None keeps each parameter's own.
    max_shard_bytes: of tensor data in a file.

  Raises:
    UserError: a value overflows float16.
    ValueError: the table does not cover the parameters.
  """
  leaves = param_paths.flatten(params)
  specs = []
  for ours, source in resolve(table, params).items():
    kept = _choose_dtype([leaves[ours].dtype], dtype)
    for layer, name in enumerate(source.names):
      gather = functools.partial(
        _gather, leaves[ours], source, name, layer, kept
      )
      specs.append((name, source.shape, kept, gather))
  # The order of tensors in a file, so that all processes gather in that order.
  specs.sort(key=lambda spec: (-spec[2].itemsize, spec[0]))
  if jax.process_index() == 0:
    safetensors_files.write_sharded(folder, stem, specs, max_shard_bytes)
  else:
    for *_, gather in specs:
      gather()
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices('weights are written')
