"""Tables that carry weights between published checkpoints and ours.

A table is a tuple of `Row`s. In a row `{i}`, `{j}` stand for numbers. A
placeholder on both sides names the same list entry on both; one that stands in
the published name only is stacked: our parameter holds the layers along its
first axis.

  Row('blocks.{i}.attn.to_q.weight', 'blocks/attn/to_q/kernel', LINEAR)
  Row('encoder.down.{i}.conv.weight', 'encoder/down/{i}/conv/kernel', CONV3D)

A table is total: `resolve` accounts for every parameter, and `load` for every
published tensor, or they raise with the names of the strangers.
"""

import collections
from collections.abc import Mapping, Sequence
import dataclasses
import functools
import os
import re
from typing import Any

import jax
from jax.experimental import multihost_utils
import jax.numpy as jnp
import numpy as np

from lift_jax import errors
from lift_jax.weights import param_paths, safetensors_files


@dataclasses.dataclass(frozen=True)
class Transform:
  """A change of axis order: ours = transpose(published, axes)."""

  name: str
  axes: tuple[int, ...] | None = None  # None: the order stays

  def ours(self, published_shape: tuple[int, ...]) -> tuple[int, ...]:
    if self.axes is None:
      return tuple(published_shape)
    return tuple(published_shape[axis] for axis in self.axes)

  def published(self, our_shape: tuple[int, ...]) -> tuple[int, ...]:
    if self.axes is None:
      return tuple(our_shape)
    return tuple(our_shape[self.axes.index(a)] for a in range(len(self.axes)))

  @property
  def inverse_axes(self) -> tuple[int, ...] | None:
    if self.axes is None:
      return None
    return tuple(self.axes.index(axis) for axis in range(len(self.axes)))


SAME = Transform('same')
LINEAR = Transform('linear: out,in -> in,out', (1, 0))
CONV2D = Transform('conv: out,in,h,w -> h,w,in,out', (2, 3, 1, 0))
CONV3D = Transform('conv: out,in,t,h,w -> t,h,w,in,out', (2, 3, 4, 1, 0))


@dataclasses.dataclass(frozen=True)
class Row:
  """One line of a table: published name, our name, change of axes."""

  published: str
  ours: str
  transform: Transform = SAME


Table = tuple[Row, ...]


@dataclasses.dataclass(frozen=True)
class Source:
  """Where one of our parameters comes from.

  Attributes:
    names: published names; more than one where layers are stacked.
    stacked: whether the parameter has a leading layer axis.
    shape: published shape of each tensor.
  """

  names: tuple[str, ...]
  stacked: bool
  shape: tuple[int, ...]
  transform: Transform


def linear(published: str, ours: str, bias: bool = True) -> Table:
  """Rows of a linear layer."""
  rows = (Row(f'{published}.weight', f'{ours}/kernel', LINEAR),)
  if bias:
    rows += (Row(f'{published}.bias', f'{ours}/bias'),)
  return rows


def norm(published: str, ours: str, bias: bool = True) -> Table:
  """Rows of a normalisation with a scale, and a bias unless told."""
  rows = (Row(f'{published}.weight', f'{ours}/scale'),)
  if bias:
    rows += (Row(f'{published}.bias', f'{ours}/bias'),)
  return rows


def conv(published: str, ours: str, transform: Transform) -> Table:
  """Rows of a convolution with a bias; CONV2D or CONV3D."""
  return (
    Row(f'{published}.weight', f'{ours}/kernel', transform),
    Row(f'{published}.bias', f'{ours}/bias'),
  )


def _placeholders(pattern: str) -> list[str]:
  return re.findall(r'\{(\w+)\}', pattern)


def _matcher(pattern: str) -> re.Pattern[str]:
  parts = re.split(r'\{(\w+)\}', pattern)
  regex = ''
  for index, part in enumerate(parts):
    regex += f'(?P<{part}>\\d+)' if index % 2 else re.escape(part)
  return re.compile(regex)


def resolve(table: Table, abstract_params) -> dict[str, Source]:
  """The source of every parameter, by our name.

  Args:
    table: the rows of this network.
    abstract_params: nested dict of anything with a `shape`.

  Raises:
    ValueError: a parameter is covered by no row, or by two; or two
      parameters come from one published tensor.
  """
  rows = [(row, _matcher(row.ours)) for row in table]
  sources: dict[str, Source] = {}
  for name, leaf in param_paths.flatten(abstract_params).items():
    matches = [
      (row, match) for row, regex in rows if (match := regex.fullmatch(name))
    ]
    if len(matches) != 1:
      found = [row.published for row, _ in matches] or 'no row'
      raise ValueError(f'conversion table: {name} is covered by {found}')
    row, match = matches[0]
    free = set(_placeholders(row.published)) - set(_placeholders(row.ours))
    if len(free) > 1:
      raise ValueError(f'conversion table: {row.published} stacks twice')
    fixed = {key: int(value) for key, value in match.groupdict().items()}
    if free:
      (layer,) = free
      names = tuple(
        row.published.format(**fixed, **{layer: index})
        for index in range(leaf.shape[0])
      )
      shape = row.transform.published(tuple(leaf.shape[1:]))
    else:
      names = (row.published.format(**fixed),)
      shape = row.transform.published(tuple(leaf.shape))
    sources[name] = Source(names, bool(free), shape, row.transform)
  taken = collections.Counter(
    name for source in sources.values() for name in source.names
  )
  if shared := [name for name, count in taken.items() if count > 1]:
    raise ValueError(
      f'conversion table: several parameters come from {errors.listing(shared)}'
    )
  return sources


def _account(
  sources: Mapping[str, Source],
  tensors: Mapping[str, safetensors_files.LazyTensor],
  aliases: Sequence[tuple[str, str]],
  ignored: Sequence[str],
  where: str,
) -> dict[str, safetensors_files.LazyTensor]:
  """The tensors by the names of the table, once all are accounted for."""
  tensors = dict(tensors)
  for other, name in aliases:
    if other not in tensors:
      continue
    alias = tensors.pop(other)
    kept = tensors.setdefault(name, alias)
    # The ends stand for the whole, which may be gigabytes.
    if (kept.shape, kept.dtype) != (alias.shape, alias.dtype) or (
      kept.edges() != alias.edges()
    ):
      raise errors.UserError(
        f'{where}: {other} and {name} should be one tensor, but differ; '
        'this network ties them, so use weights that do'
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
      'the config are of one model'
    )
  return tensors


def _cast(array: np.ndarray, dtype: np.dtype, name: str) -> np.ndarray:
  """`array` as a dense array of `dtype`; float16 must be able to hold it."""
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
  """The dtype to keep tensors in: `dtype` for floats, if one is asked for."""
  stored = functools.reduce(jnp.promote_types, dtypes)
  if dtype is not None and jnp.issubdtype(stored, jnp.floating):
    return np.dtype(dtype)
  return np.dtype(stored)


def _read(
  source: Source,
  tensors: Mapping[str, safetensors_files.LazyTensor],
  index: tuple[slice, ...],
  dtype: np.dtype,
) -> np.ndarray:
  """`parameter[index]`, from nothing but that part of the files."""
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


def load(
  table: Table,
  abstract_params: Any,
  tensors: Mapping[str, safetensors_files.LazyTensor],
  *,
  shardings: Any = None,
  dtype: Any = None,
  aliases: Sequence[tuple[str, str]] = (),
  ignored: Sequence[str] = (),
  where: str = 'checkpoint',
) -> dict[Any, Any]:
  """Published tensors as our parameters, each device's part straight to it.

  Each process reads what its devices hold, one part of one parameter at a
  time: the host needs memory for the largest such part, a few times over.

  Args:
    table: the rows of this network.
    abstract_params: nested dict of anything with a `shape`.
    tensors: what `safetensors_files.open_tensors` returned.
    shardings: nested dict like the parameters; None leaves them on the
      default device.
    dtype: of every parameter of floats; None keeps what is stored.
    aliases: (other name, name in the table) of tensors that a publisher may
      store under either name, or under both.
    ignored: regular expressions, matched in full, of published tensors that
      our network does not need.
    where: what an error calls these weights, e.g. 'transformer of FOLDER'.

  Raises:
    UserError: unknown, missing or wrongly shaped tensors; all in one message.
    ValueError: the table does not cover the parameters.
  """
  sources = resolve(table, abstract_params)
  tensors = _account(sources, tensors, aliases, ignored, where)
  by_name = None if shardings is None else param_paths.flatten(shardings)

  def build(name, leaf):
    source, shape = sources[name], tuple(leaf.shape)
    stored = [tensors[published].dtype for published in source.names]
    kept = _choose_dtype(stored, dtype)

    def read(bounds):
      return _read(source, tensors, tuple(slice(*b) for b in bounds), kept)

    if by_name is None:
      return jnp.asarray(read([(0, size) for size in shape]))
    # Like jax.make_array_from_callback, which would hold all the parts of
    # this host at once, and read a part again for each device that has it.
    devices_by_bounds = collections.defaultdict(list)
    index_map = by_name[name].addressable_devices_indices_map(shape)
    for device, index in index_map.items():
      bounds = tuple(
        part.indices(size)[:2] for part, size in zip(index, shape, strict=True)
      )
      devices_by_bounds[bounds].append(device)
    arrays = []
    for bounds, devices in devices_by_bounds.items():
      part = read(bounds)
      arrays += jax.block_until_ready(
        [jax.device_put(part, device) for device in devices]
      )
    return jax.make_array_from_single_device_arrays(
      shape, by_name[name], arrays
    )

  return param_paths.map_named(build, abstract_params)


def check(
  table: Table,
  abstract_params: Any,
  tensors: Mapping[str, safetensors_files.LazyTensor],
  *,
  where: str,
) -> None:
  """Raises what `load` would, from names and shapes alone."""
  _account(resolve(table, abstract_params), tensors, (), (), where)


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
    # A traced layer number: one program serves all layers.
    leaf = _layer(leaf, layer) if isinstance(leaf, jax.Array) else leaf[layer]
  if isinstance(leaf, jax.Array) and not leaf.is_fully_addressable:
    array = multihost_utils.process_allgather(leaf, tiled=True)
  else:
    # Of a copy: a jax.Array keeps its values on the host once it is asked.
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

  Every process must call it, since all take part in gathering a tensor that
  lies on several; process 0 alone writes, and all return once it has.

  Args:
    table: the rows of this network.
    params: nested dict of arrays.
    folder: on a file system of process 0; made if it does not exist.
    stem: 'diffusion_pytorch_model' for diffusers, 'model' for transformers.
    dtype: of every tensor of floats; None keeps each parameter's own.
    max_shard_bytes: of tensor data in a file.

  Raises:
    UserError: a value does not fit into float16, where that is the dtype.
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
  # The order of a file, so that all processes gather in the same one.
  specs.sort(key=lambda spec: (-spec[2].itemsize, spec[0]))
  if jax.process_index() == 0:
    safetensors_files.write_sharded(folder, stem, specs, max_shard_bytes)
  else:
    for *_, gather in specs:
      gather()
  if jax.process_count() > 1:
    multihost_utils.sync_global_devices('weights are written')
