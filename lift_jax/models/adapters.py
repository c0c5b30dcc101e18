"""LoRA adapters of a network: merging them into its weights, and writing them.

  W <- W + scale alpha / rank A B

`adapter_files` opens them.
"""

from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import pathlib
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np

from lift_jax.models import adapter_names, lora
from lift_jax.models.functional import Params
from lift_jax.runtime import distributed
from lift_jax.runtime.files import json_sha256, write_json
from lift_jax.weights import (
  conversion,
  param_paths,
  published_tensors,
  safetensors_files,
)
from lift_jax.weights.safetensors_files import LazyTensor


@dataclasses.dataclass(frozen=True)
class Update:
  """The update of one layer, scale B A.

  Attributes:
    a: [rank, inputs].
    b: [outputs, rank], or more rows if layers lie side by side in it.
    first_row: of `b`, the first that belongs to this layer.
    alpha: as stated; None if it is not.
    scale: alpha / rank, times the strength of the adapters.
  """

  a: LazyTensor
  b: LazyTensor
  first_row: int
  alpha: float | None
  scale: float

  @property
  def rank(self) -> int:
    return self.a.shape[0]


@dataclasses.dataclass(frozen=True)
class Adapter:
  """Opened adapters that fit a network; their matrices are not read yet.

  Attributes:
    path: of the folder or file.
    strength: `AdapterConfig.scale`.
    updates: by path of a layer, and by its index among stacked layers.
  """

  path: pathlib.Path
  strength: float
  updates: Mapping[str, Mapping[int, Update]]

  @property
  def folder(self) -> pathlib.Path:
    """The folder, or that of the file."""
    return self.path if self.path.is_dir() else self.path.parent

  @functools.cached_property
  def rank(self) -> int:
    """The largest rank of a layer."""
    return max(update.rank for update in self._all())

  def _all(self) -> list[Update]:
    return [
      update for stack in self.updates.values() for update in stack.values()
    ]

  def describe(self) -> str:
    """Path, rank, alpha and scale, for the log."""
    updates = self._all()
    ranks = _span([update.rank for update in updates])
    stated = [update.alpha for update in updates if update.alpha is not None]
    alpha = _span(stated) if stated else 'not stated (taken as the rank)'
    total = _span([update.scale for update in updates])
    return (
      f'{self.path}: rank {ranks}, alpha {alpha}, scale {self.strength:g}: '
      f'W + {total} B A in {len(updates)} layers'
    )

  @functools.cached_property
  def fingerprint(self) -> str:
    """Hash of matrices and scales; see `safetensors_files.fingerprint`."""
    tensors, scales = {}, []
    for layer, stack in sorted(self.updates.items()):
      for index, update in sorted(stack.items()):
        tensors |= {half.name: half for half in (update.a, update.b)}
        scales.append([layer, index, update.scale])
    return json_sha256([scales, safetensors_files.fingerprint(tensors)])

  def scales(self, layer: str, shape: tuple[int, ...]) -> np.ndarray:
    """fp32 scales of the layers of a kernel: [] or [layers]."""
    updates = self.updates.get(layer, {})
    values = np.zeros(shape[:-2], np.float32)
    for index, update in updates.items():
      values[(index,) * values.ndim] = update.scale
    return values

  def factors(
    self,
    layer: str,
    shape: tuple[int, ...],
    shardings: tuple[jax.sharding.Sharding, jax.sharding.Sharding],
  ) -> tuple[jax.Array, jax.Array]:
    """Reads A and B of a kernel, fp32 [..., inputs, R] and [..., R, outputs].

    R is `rank`; a smaller rank and missing layers are filled with zeros.

    Args:
      layer: path of the layer.
      shape: of its kernel.
      shardings: of the results; R must not be sharded.
    """
    *lead, inputs, outputs = shape
    updates = self.updates.get(layer, {})

    def read_a(update: Update, columns: range) -> np.ndarray:
      return update.a[:, columns.start : columns.stop].T

    def read_b(update: Update, rows: range) -> np.ndarray:
      first = update.first_row
      return update.b[first + rows.start : first + rows.stop].T

    a = _stacked(updates, (*lead, inputs, self.rank), -2, read_a, shardings[0])
    b = _stacked(updates, (*lead, self.rank, outputs), -1, read_b, shardings[1])
    return a, b


def _stacked(
  updates: Mapping[int, Update],
  shape: tuple[int, ...],
  axis: int,
  read: Callable[[Update, range], np.ndarray],
  sharding: jax.sharding.Sharding,
) -> jax.Array:
  """An array of matrices; `read(update, range)` reads a part along `axis`."""

  def part(index: tuple[slice, ...]) -> np.ndarray:
    ranges = [range(size)[cut] for size, cut in zip(shape, index, strict=True)]
    values = np.zeros([len(one) for one in ranges], np.float32)
    matrices = values.reshape(-1, *values.shape[-2:])
    layers = ranges[0] if len(shape) > 2 else [0]
    for matrix, layer in zip(matrices, layers, strict=True):
      if layer in updates:
        found = read(updates[layer], ranges[axis])
        matrix[: found.shape[0], : found.shape[1]] = found
    return values

  return published_tensors.placed(shape, sharding, part)


def _span(values: Sequence[float]) -> str:
  """'4', or '2 to 8'."""
  low, high = f'{min(values):g}', f'{max(values):g}'
  return low if low == high else f'{low} to {high}'


def merged(
  adapters: Sequence[Adapter], dtype: Any, name: str, leaf: jax.Array
) -> jax.Array:
  """A parameter with its adapters added; deletes or donates `leaf`.

  The sum is fp32 and rounded once, whatever the stored type. Stacked layers are
  updated one by one: in fp32, the kernels of a large critic would be twice its
  size.

  Args:
    adapters: of the network; many a parameter has none.
    dtype: of the result; None keeps the stored type, except that a kernel with
      adapters becomes fp32.
    name: of the parameter.
    leaf: as stored.
  """
  layer = name.removesuffix('/kernel')
  found = [one for one in adapters if layer != name and layer in one.updates]
  wanted = jnp.dtype(dtype or (jnp.float32 if found else leaf.dtype))
  if not found and leaf.dtype == wanted:
    return leaf
  factors = [
    (
      *one.factors(layer, leaf.shape, _halves(leaf)),
      one.scales(layer, leaf.shape),
    )
    for one in found
  ]
  add = jax.jit(
    _added,
    static_argnums=2,
    donate_argnums=0 if leaf.dtype == wanted else (),
    out_shardings=leaf.sharding,
  )
  result = add(leaf, factors, wanted)
  leaf.delete()
  return result


def _halves(
  kernel: jax.Array,
) -> tuple[jax.sharding.Sharding, jax.sharding.Sharding]:
  """Shardings of A and B that let each device compute its part of A B."""
  sharding = kernel.sharding
  if not isinstance(sharding, NamedSharding):
    return sharding, sharding
  axes = [*sharding.spec, *[None] * (kernel.ndim - len(sharding.spec))]
  *lead, inputs, outputs = axes
  return (
    NamedSharding(sharding.mesh, P(*lead, inputs, None)),
    NamedSharding(sharding.mesh, P(*lead, None, outputs)),
  )


def _added(leaf: jax.Array, factors: Sequence[Any], dtype: Any) -> jax.Array:
  """The computation of `merged`; `factors` are (A, B, scale)."""

  def add(kernel: jax.Array, *layer: jax.Array) -> jax.Array:
    total = kernel.astype(jnp.float32)
    for a, b, scale in factors:
      # The default precision of fp32 products on accelerators is lower.
      update = jnp.matmul(a[layer], b[layer], precision='highest')
      total += scale[layer] * update
    return total.astype(dtype)

  if not factors or leaf.ndim == 2:
    return add(leaf)
  is_in_place = leaf.dtype == dtype

  def add_layer(index, stacked):
    kernel = (stacked if is_in_place else leaf)[index]
    return stacked.at[index].set(add(kernel, index))

  start = leaf if is_in_place else jnp.zeros(leaf.shape, dtype)
  return jax.lax.fori_loop(0, leaf.shape[0], add_layer, start)


def merged_trained(params: Params, scale: float, dtype: Any) -> Params:
  """Parameters of a network without its trained adapters: W + scale A B.

  Args:
    params: of the network with adapters; they are kept.
    scale: `LoRAConfig.scale`.
    dtype: of the sums, which are fp32 and rounded once.
  """
  trained, base = param_paths.partition(params, lora.is_adapter)
  halves = param_paths.flatten(trained)

  def add(name: str, leaf: jax.Array) -> jax.Array:
    layer = name.removesuffix('/kernel')
    if layer == name or f'{layer}/lora_a' not in halves:
      return leaf
    scales = np.full(leaf.shape[:-2], scale, np.float32)
    factors = [(halves[f'{layer}/lora_a'], halves[f'{layer}/lora_b'], scales)]
    sum_of = jax.jit(_added, static_argnums=2, out_shardings=leaf.sharding)
    return sum_of(leaf, factors, jnp.dtype(dtype))

  return param_paths.map_named(add, base)


def write_peft(
  folder: pathlib.Path,
  adapters: Params,
  config: lora.LoRAConfig,
  table: conversion.Table,
  dtype: str,
) -> None:
  """Writes adapters in PEFT's format; every host must call it.

  Args:
    folder: created if it does not exist.
    adapters: of the network.
    config: their rank, scale and targets.
    table: `lora.adapter_table` of the network, with PEFT's prefix.
    dtype: of the written weights.
  """
  published_tensors.save(
    table, adapters, folder, 'adapter_model', dtype=jnp.dtype(dtype)
  )
  # Full names, as vision towers have a 'q_proj', too.
  modules = {
    name.removeprefix(adapter_names.PEFT_PREFIX).removesuffix('.lora_A.weight')
    for source in conversion.resolve(table, adapters).values()
    for name in source.names
    if name.endswith('.lora_A.weight')
  }
  if distributed.is_primary():
    write_json(
      folder / 'adapter_config.json',
      {
        'peft_type': 'LORA',
        'task_type': 'CAUSAL_LM',
        'r': config.rank,
        'lora_alpha': config.alpha,
        'lora_dropout': 0.0,
        'bias': 'none',
        'use_rslora': False,
        'use_dora': False,
        'target_modules': sorted(modules),
        'inference_mode': True,
      },
    )
