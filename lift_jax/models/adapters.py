"""Published LoRA adapters (PEFT, diffusers): loading, merging, saving.

W <- W + scale A B
"""

from collections.abc import Callable, Mapping
import dataclasses
import pathlib
import re
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from lift_jax import errors, partitioning
from lift_jax.models import lora
from lift_jax.models.functional import Params, functional
from lift_jax.runtime import distributed
from lift_jax.runtime.files import read_json, write_json
from lift_jax.weights import (
  conversion,
  param_paths,
  safetensors_files,
)
from lift_jax.weights.safetensors_files import LazyTensor


def config_of(
  tensors: Mapping[str, LazyTensor],
  table: conversion.Table,
  alpha: float | None,
  where: str,
) -> lora.LoRAConfig:
  """The config of adapters, derived from the names and shapes of their tensors.

  The targets in adapter_config.json may be a regex or module names of another
  library and are not used.

  Args:
    tensors: of the file.
    table: `lora.adapter_table` of the network.
    alpha: of the file; None for a scale of 1.
    where: how errors name the file.

  Raises:
    UserError: no tensor is of an adapter of this network, or ranks differ.
  """
  targets, ranks = [], {}
  for rule in table:
    if not rule.ours.endswith('/lora_a'):
      continue
    regex = re.compile(
      re.sub(r'\\{\w+\\}', r'[0-9]+', re.escape(rule.published))
    )
    names = [name for name in tensors if regex.fullmatch(name)]
    for name in names:
      if len(tensors[name].shape) != 2:
        raise errors.UserError(
          f'{where}: {name} has shape {list(tensors[name].shape)} and is not a '
          'matrix; download the file again'
        )
    if names:
      targets.append(re.escape(rule.ours.removesuffix('/lora_a')))
      ranks |= {name: tensors[name].shape[0] for name in names}
  if not targets:
    raise errors.UserError(
      f'{where}: none of its tensors ({errors.listing(tensors, 2)}) is an '
      'adapter of this network; give the adapters of this model'
    )
  if len(set(ranks.values())) > 1:
    raise errors.UserError(
      f'{where}: its adapters have ranks {sorted(set(ranks.values()))}; only '
      'one rank for all layers is supported'
    )
  rank = next(iter(ranks.values()))
  return lora.LoRAConfig(rank, rank if alpha is None else alpha, tuple(targets))


def load(
  build: Callable[[nnx.Rngs], nnx.Module],
  config: lora.LoRAConfig,
  table: conversion.Table,
  tensors: Mapping[str, LazyTensor],
  mesh: jax.sharding.Mesh,
  where: str,
) -> Params:
  """Loads the adapters of a file onto a mesh, fp32.

  Args:
    build: makes the network without adapters.
    config: from `config_of`.
    table: `lora.adapter_table` of the network.
    tensors: of the file.
    mesh: all devices.
    where: how errors name the file.

  Raises:
    UserError: missing, unexpected or wrongly shaped tensors.
  """
  model = functional(lora.adapted(build, config))
  abstract, _ = param_paths.partition(model.abstract_params, lora.is_adapter)
  names = param_paths.flatten(abstract)
  rules = [
    rule
    for rule in lora.LORA_RULES
    if any(re.fullmatch(rule[0], name) for name in names)
  ]
  return conversion.load(
    tuple(rule for rule in table if rule.ours in names),
    abstract,
    tensors,
    shardings=partitioning.param_shardings(rules, abstract, mesh),
    dtype=jnp.float32,
    where=where,
  )


def merge(params: Params, adapters: Params, scale: float) -> Params:
  """Adds every adapter to its kernel; donates `params`, keeps their shardings.

  Stacked kernels are updated layer by layer: the products of all adapters of a
  language model, in fp32, would be twice its size.

  Args:
    params: of the network.
    adapters: 'X/lora_a' and 'X/lora_b' for kernels 'X/kernel'.
    scale: alpha / rank.
  """
  shardings = jax.tree.map(lambda leaf: leaf.sharding, params)
  add = jax.jit(
    _merged, static_argnums=2, donate_argnums=0, out_shardings=shardings
  )
  return add(params, param_paths.flatten(adapters), scale)


def _merged(params: Params, flat: Mapping[str, jax.Array], scale: float):
  """The computation of `merge`, with adapters by name."""

  def add(kernel, a, b):
    # The default precision of fp32 products on accelerators is lower.
    update = jnp.matmul(a, b, precision='highest')
    return (kernel.astype(jnp.float32) + scale * update).astype(kernel.dtype)

  def one(name: str, leaf: jax.Array) -> jax.Array:
    layer = name.removesuffix('/kernel')
    if layer == name or f'{layer}/lora_a' not in flat:
      return leaf
    a, b = flat[f'{layer}/lora_a'], flat[f'{layer}/lora_b']
    if leaf.ndim == 2:
      return add(leaf, a, b)

    def add_layer(index, stacked):
      return stacked.at[index].set(add(stacked[index], a[index], b[index]))

    return jax.lax.fori_loop(0, leaf.shape[0], add_layer, leaf)

  return param_paths.map_named(one, params)


@dataclasses.dataclass(frozen=True)
class AdapterFile:
  """Adapters on disk, not loaded yet.

  Attributes:
    path: of the folder or file.
    tensors: of its file.
    alpha: the scale is alpha / rank; None for a scale of 1.
  """

  path: pathlib.Path
  tensors: Mapping[str, LazyTensor]
  alpha: float | None


PEFT_PREFIX = 'base_model.model.'  # of every name in a file

# What is downloaded of adapters on the hub, of any network.
HUB_FILES = (
  'adapter_config.json',
  'adapter_model*.safetensors',
  'adapter_model.safetensors.index.json',
  'pytorch_lora_weights.safetensors',
  'prompts.json',
)

# Fields of a PEFT config and the values that `merge` supports. Other ways of
# initialisation change the weights that the adapter is added to.
_SUPPORTED = {
  'peft_type': ('LORA',),
  'use_rslora': (False,),
  'use_dora': (False,),
  'bias': ('none',),
  'rank_pattern': ({},),
  'alpha_pattern': ({},),
  'modules_to_save': (None, []),
  'init_lora_weights': (True, False, 'gaussian', 'eva', 'orthogonal'),
  'layer_replication': (None,),
  'alora_invocation_tokens': (None,),
  'use_qalora': (False,),
  'use_bdlora': (None,),
  'arrow_config': (None,),
  'kasa_config': (None,),
  'monteclora_config': (None,),
}


def open_peft(folder: str | pathlib.Path) -> AdapterFile:
  """Opens a folder with adapter_config.json and adapter_model.safetensors.

  Other files in it, such as `non_lora_trainables.bin`, are ignored.

  Raises:
    UserError: no such folder, or adapters of an unsupported type.
  """
  path = pathlib.Path(folder).expanduser().resolve()
  file = path / 'adapter_config.json'
  alpha = alpha_of(read_json(file), str(file))
  return AdapterFile(
    path, safetensors_files.open_tensors(path, 'adapter_model'), alpha
  )


def alpha_of(config: Mapping[str, Any], where: str) -> float:
  """The alpha of a PEFT config; checks that `merge` supports the other fields.

  Args:
    config: PEFT config.
    where: how errors name it.

  Raises:
    UserError: adapters of an unsupported type.
  """
  for key, values in _SUPPORTED.items():
    if config.get(key, values[0]) not in values:
      raise errors.UserError(
        f'{where}: {key} = {config[key]!r} is not supported; only {values[0]!r}'
      )
  alpha = config.get('lora_alpha')
  if isinstance(alpha, bool) or not isinstance(alpha, int | float):
    raise errors.UserError(f'{where}: lora_alpha is {alpha!r}, not a number')
  return float(alpha)


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
    table: `lora.adapter_table` of the network, with `PEFT_PREFIX`.
    dtype: of the written weights.
  """
  conversion.save(
    table, adapters, folder, 'adapter_model', dtype=jnp.dtype(dtype)
  )
  # Full names, as vision towers have a 'q_proj', too.
  modules = {
    name.removeprefix(PEFT_PREFIX).removesuffix('.lora_A.weight')
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
