"""LoRA adapters of a transformer on disk, in diffusers' or PEFT's format.

  pytorch_lora_weights.safetensors    diffusers: 'transformer.LAYER.lora_A...'
or
  adapter_config.json                 PEFT: its scale
  adapter_model.safetensors           'base_model.model.LAYER.lora_A...'

A diffusers file may have an alpha, in its header or as scalars
'transformer.LAYER.alpha'; without one, the scale alpha / rank is 1.
"""

from collections.abc import Callable, Mapping
import dataclasses
import json
import math
import pathlib
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding

from lift_jax import partitioning
from lift_jax.errors import UserError, listing
from lift_jax.models import adapters, lora
from lift_jax.models.adapters import AdapterFile
from lift_jax.models.functional import Params, functional
from lift_jax.runtime.files import json_sha256
from lift_jax.weights import conversion, param_paths, safetensors_files
from lift_jax.weights.safetensors_files import LazyTensor

STEM = 'pytorch_lora_weights'  # the name that diffusers looks for
PREFIX = 'transformer.'  # of every name in a diffusers file

_PEFT_CONFIG = 'adapter_config.json'

# In the header of a diffusers file: the PEFT config, as JSON, of each network
# (`LORA_ADAPTER_METADATA_KEY` in diffusers/loaders/lora_base.py).
_METADATA_KEY = 'lora_adapter_metadata'


@dataclasses.dataclass(frozen=True)
class TransformerAdapter:
  """Adapters that fit a transformer, not loaded yet.

  Attributes:
    build: makes the network without adapters.
    file: the opened file.
    table: conversion table of the adapters.
    config: rank, scale and adapted layers.
  """

  build: Callable[[nnx.Rngs], nnx.Module]
  file: AdapterFile
  table: conversion.Table
  config: lora.LoRAConfig

  def load(self, mesh: jax.sharding.Mesh) -> Params:
    """The adapters on a mesh, fp32."""
    return adapters.load(
      self.build,
      self.config,
      self.table,
      self.file.tensors,
      mesh,
      str(self.file.path),
    )

  def fingerprint(self) -> str:
    """Hash of weights and scale; see `safetensors_files.fingerprint`."""
    weights = safetensors_files.fingerprint(self.file.tensors)
    return json_sha256([self.config.scale, weights])

  def merged(self, params: Params, dtype: Any = None) -> Params:
    """`params` with the adapters merged, sharded as before; donates `params`.

    The sum W + scale A B is computed in fp32 and rounded once, whatever the
    type of W. Kernels are cast to fp32 one at a time.

    Args:
      params: of the network, as stored.
      dtype: of the result; None keeps the stored type, except that merged
        kernels become fp32.
    """
    added = param_paths.flatten(self.load(_mesh_of(params)))

    def one(name: str, leaf: jax.Array) -> jax.Array:
      layer = name.removesuffix('/kernel')
      factors = {
        factor: added[factor]
        for factor in (f'{layer}/lora_a', f'{layer}/lora_b')
        if factor in added
      }
      result = leaf
      if layer != name and factors:
        kernel = {name: _cast(leaf, jnp.float32)}
        result = adapters.merge(kernel, factors, self.config.scale)[name]
      if dtype is not None:
        result = _cast(result, dtype)
      if result is not leaf:
        leaf.delete()
      return result

    return param_paths.map_named(one, params)


def _mesh_of(params: Params) -> jax.sharding.Mesh:
  sharding = jax.tree.leaves(params)[0].sharding
  if isinstance(sharding, NamedSharding):
    assert isinstance(sharding.mesh, jax.sharding.Mesh)  # as of every array
    return sharding.mesh
  return partitioning.make_mesh(
    partitioning.MeshConfig(), list(sharding.device_set)
  )


def _cast(leaf: jax.Array, dtype: Any) -> jax.Array:
  """Casts `leaf`, keeping its sharding."""
  if leaf.dtype == dtype:
    return leaf
  cast = jax.jit(jnp.astype, static_argnums=1, out_shardings=leaf.sharding)
  return cast(leaf, jnp.dtype(dtype))


def holds_adapters(path: pathlib.Path) -> bool:
  """Whether `open_adapter` would accept this folder, by its file names."""
  return any(
    (path / name).is_file() for name in (f'{STEM}.safetensors', _PEFT_CONFIG)
  )


def open_adapter(
  path: str | pathlib.Path,
  build: Callable[[nnx.Rngs], nnx.Module],
  table: conversion.Table,
) -> TransformerAdapter:
  """Opens adapters and checks them against a transformer; reads headers only.

  Args:
    path: a folder, or a diffusers file of any name.
    build: makes the transformer without adapters.
    table: conversion table of the transformer.

  Raises:
    UserError: no adapters, or adapters of another network or type.
  """
  path = pathlib.Path(path).expanduser().resolve()
  if path.is_dir() and not holds_adapters(path):
    raise UserError(
      f'{path}: contains neither {STEM}.safetensors nor {_PEFT_CONFIG}; give a '
      'folder of LoRA adapters, or their file if it has another name'
    )
  if (path / _PEFT_CONFIG).is_file():
    if (path / f'{STEM}.safetensors').is_file():
      raise UserError(
        f'{path}: contains both {STEM}.safetensors and {_PEFT_CONFIG}; remove '
        'one, or give the file'
      )
    file, prefix = adapters.open_peft(path), adapters.PEFT_PREFIX
  else:
    file, prefix = _open_diffusers(path), PREFIX
  table = lora.adapter_table(table, prefix)
  where = str(file.path)
  config = adapters.config_of(file.tensors, table, file.alpha, where)
  abstract, _ = param_paths.partition(
    functional(lora.adapted(build, config)).abstract_params, lora.is_adapter
  )
  names = param_paths.flatten(abstract)
  rules = tuple(rule for rule in table if rule.ours in names)
  conversion.check(rules, abstract, file.tensors, where=where)
  return TransformerAdapter(build, file, table, config)


def _open_diffusers(path: pathlib.Path) -> AdapterFile:
  """Opens a diffusers file, or the folder with it."""
  tensors = safetensors_files.open_tensors(path, STEM)
  scalars = {
    name: tensor
    for name, tensor in tensors.items()
    if name.endswith('.alpha') and math.prod(tensor.shape) == 1
  }
  rest = {name: t for name, t in tensors.items() if name not in scalars}
  layers = {
    name.removesuffix('.lora_A.weight')
    for name in rest
    if name.endswith('.lora_A.weight')
  }
  with_alpha = {name.removesuffix('.alpha') for name in scalars}
  if scalars and with_alpha != layers:
    raise UserError(
      f'{path}: {listing(with_alpha ^ layers, 2)} has an alpha or an adapter, '
      'but not both; download the file again'
    )
  # The alpha in the header is that of all layers.
  alphas = {float(tensor[...].reshape(())) for tensor in scalars.values()}
  alphas |= _header_alpha(path, rest)
  if len(alphas) > 1:
    raise UserError(
      f'{path}: has the alphas {sorted(alphas)}; only one alpha for all layers '
      'is supported'
    )
  return AdapterFile(path, rest, next(iter(alphas), None))


def _header_alpha(
  path: pathlib.Path, tensors: Mapping[str, LazyTensor]
) -> set[float]:
  """The alphas in the headers of the files: none or one per file."""
  files = {tensor.file for tensor in tensors.values()}
  alphas = set()
  for file in files:
    text = safetensors_files.read_metadata(file).get(_METADATA_KEY)
    if not text:
      continue
    where = f'{file}: {_METADATA_KEY} in its header'
    try:
      metadata = dict(json.loads(text))
    except (TypeError, ValueError):
      raise UserError(
        f'{where} cannot be parsed; download the file again'
      ) from None
    config = {
      key.removeprefix(PREFIX): value
      for key, value in metadata.items()
      if key.startswith(PREFIX)
    }
    if config:
      alphas.add(adapters.alpha_of(config, where))
  return alphas
