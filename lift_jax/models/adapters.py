"""Published adapters (PEFT, diffusers): read, and added into the weights.

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
  """Which layers a file adapts, told from the names of its tensors.

  What the file beside it says of its targets may be a pattern of another
  library, or a list of modules with other names.

  Args:
    tensors: of the file.
    table: `lora.adapter_table` of the network.
    alpha: of the file; None where its scale is 1.
    where: what errors call the file.

  Raises:
    UserError: no tensor is of an adapter of this network, or ranks differ.
  """
  targets, ranks = [], {}
  for row in table:
    if not row.ours.endswith('/lora_a'):
      continue
    regex = re.compile(
      re.sub(r'\\{\w+\\}', r'[0-9]+', re.escape(row.published))
    )
    names = [name for name in tensors if regex.fullmatch(name)]
    for name in names:
      if len(tensors[name].shape) != 2:
        raise errors.UserError(
          f'{where}: {name} has shape {list(tensors[name].shape)}, and is no '
          'matrix; fetch the file again'
        )
    if names:
      targets.append(re.escape(row.ours.removesuffix('/lora_a')))
      ranks |= {name: tensors[name].shape[0] for name in names}
  if not targets:
    raise errors.UserError(
      f'{where}: none of its tensors ({errors.listing(tensors, 2)}) is an '
      'adapter of this network; give the adapters of this model'
    )
  if len(set(ranks.values())) > 1:
    raise errors.UserError(
      f'{where}: its adapters have ranks {sorted(set(ranks.values()))}; only '
      'one rank for all is supported'
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
  """The adapters of a file, laid out on a mesh, fp32.

  Args:
    build: makes the network without adapters.
    config: from `config_of`.
    table: the same.
    tensors: of the file.
    mesh: all devices.
    where: what errors call the file.

  Raises:
    UserError: tensors that are missing, unknown or of another shape.
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
    tuple(row for row in table if row.ours in names),
    abstract,
    tensors,
    shardings=partitioning.param_shardings(rules, abstract, mesh),
    dtype=jnp.float32,
    where=where,
  )


def merge(params: Params, adapters: Params, scale: float) -> Params:
  """`params` with every adapter added to its kernel; donates `params`.

  Stacked kernels change one layer after the other: the products of all the
  adapters of a language model, in fp32, would be twice its size.

  Args:
    params: of the network, each where it stays.
    adapters: 'X/lora_a' and 'X/lora_b' for kernels 'X/kernel'.
    scale: alpha / rank.
  """
  places = jax.tree.map(lambda leaf: leaf.sharding, params)
  add = jax.jit(
    _merged, static_argnums=2, donate_argnums=0, out_shardings=places
  )
  return add(params, param_paths.flatten(adapters), scale)


def _merged(params: Params, flat: Mapping[str, jax.Array], scale: float):
  """What `merge` computes; adapters by name."""

  def add(kernel, a, b):
    # Accelerators multiply fp32 in fewer bits unless told.
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
  """Adapters of a folder, not read yet.

  Attributes:
    path: of the folder.
    tensors: of its file.
    alpha: the scale is alpha / rank; None where it is 1.
  """

  path: pathlib.Path
  tensors: Mapping[str, LazyTensor]
  alpha: float | None


PEFT_PREFIX = 'base_model.model.'  # of every name in a file

# Settings of a PEFT adapter: the values that `merge` computes. Other initial
# values than these change the weights that the adapter is added to.
_FIXED = {
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
  """A folder with adapter_config.json and adapter_model.safetensors.

  Whatever else lies there, such as `non_lora_trainables.bin`, is not read.

  Raises:
    UserError: no such folder, or adapters of another kind.
  """
  path = pathlib.Path(folder).expanduser().resolve()
  file = path / 'adapter_config.json'
  alpha = alpha_of(read_json(file), str(file))
  return AdapterFile(
    path, safetensors_files.open_tensors(path, 'adapter_model'), alpha
  )


def alpha_of(config: Mapping[str, Any], where: str) -> float:
  """The alpha of PEFT's settings, once the others are what `merge` computes.

  Args:
    config: the settings.
    where: what errors call them.

  Raises:
    UserError: adapters of another kind.
  """
  for key, values in _FIXED.items():
    if config.get(key, values[0]) not in values:
      raise errors.UserError(
        f'{where}: {key} = {config[key]!r} is not supported; only {values[0]!r}'
      )
  alpha = config.get('lora_alpha')
  if type(alpha) not in (int, float):
    raise errors.UserError(f'{where}: lora_alpha is {alpha!r}, not a number')
  return float(alpha)


def write_peft(
  folder: pathlib.Path,
  adapters: Params,
  config: lora.LoRAConfig,
  table: conversion.Table,
  dtype: str,
) -> None:
  """Writes adapters as PEFT loads them; every host must call it.

  Args:
    folder: made if it does not exist.
    adapters: of the network.
    config: their rank, scale and targets.
    table: `lora.adapter_table` of the network, with `PEFT_PREFIX`.
    dtype: of what is written.
  """
  conversion.save(
    table, adapters, folder, 'adapter_model', dtype=jnp.dtype(dtype)
  )
  # Whole names: a 'q_proj' alone is in vision towers, too.
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
