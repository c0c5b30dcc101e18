"""Export of trained parameters for diffusers.

An export needs only the model at `model.path`: adapters that the run started
from are included.
"""

import functools
import pathlib

import jax
import jax.numpy as jnp

from lift_jax.models import adapter_files, generator_folder
from lift_jax.models.adapter_names import DIFFUSERS_PREFIX
from lift_jax.models.adapters import Adapter
from lift_jax.models.functional import Params
from lift_jax.models.generators import VideoModel
from lift_jax.models.lora import LoRAConfig, adapter_table, shardings
from lift_jax.runtime import distributed
from lift_jax.runtime.files import atomic_folder
from lift_jax.weights import param_paths, published_tensors


def write(
  model: VideoModel,
  target: pathlib.Path,
  trainable: Params,
  frozen: Params,
  lora: LoRAConfig | None,
  dtype: str,
) -> None:
  """Writes a full pipeline, or adapters alone; every host must call it.

  The folder is written under a temporary name and replaces `target`.

  Args:
    model: the model that was fine-tuned; its VAE, text encoder and tokenizer
      are copied, its adapters are combined with the trained ones.
    target: the folder to write.
    trainable: trained parameters of the transformer.
    frozen: its other parameters.
    lora: config of trained adapters, which are then written as a single file;
      or None.
    dtype: of the written weights.
  """
  with atomic_folder(target) as partial:
    if lora is not None:
      _write_adapters(partial, trainable, lora, model, dtype)
    else:
      copy_rest(model, partial)
      params = param_paths.merge(trainable, frozen)
      generator_folder.save_network(
        model, 'transformer', params, partial, dtype
      )


def _write_adapters(
  target: pathlib.Path,
  adapters: Params,
  lora: LoRAConfig,
  model: VideoModel,
  dtype: str,
) -> None:
  """Writes a file for `pipeline.load_lora_weights`.

  The scale alpha / rank is multiplied into B, as diffusers uses a scale of 1
  for files without an alpha.
  """
  trained = param_paths.map_named(
    lambda name, leaf: lora.scale * leaf if name.endswith('/lora_b') else leaf,
    adapters,
  )
  mesh = jax.tree.leaves(adapters)[0].sharding.mesh
  earlier = (_scaled(model, adapter, mesh) for adapter in model.adapters)
  published_tensors.save(
    adapter_table(model.networks['transformer'].table, DIFFUSERS_PREFIX),
    functools.reduce(_concatenated, (*earlier, trained)),
    target,
    adapter_files.STEM,
    dtype=jnp.dtype(dtype),
  )


def _scaled(
  model: VideoModel, adapter: Adapter, mesh: jax.sharding.Mesh
) -> Params:
  """The matrices of earlier adapters by name, with their scales in B."""
  params = param_paths.flatten(model.declare('transformer').abstract_params)
  result = {}
  for layer in adapter.updates:
    *lead, inputs, outputs = shape = params[f'{layer}/kernel'].shape
    a_name, b_name = f'{layer}/lora_a', f'{layer}/lora_b'
    abstract = {
      a_name: jax.ShapeDtypeStruct((*lead, inputs, adapter.rank), jnp.float32),
      b_name: jax.ShapeDtypeStruct((*lead, adapter.rank, outputs), jnp.float32),
    }
    places = shardings(abstract, mesh)
    a, b = adapter.factors(layer, shape, (places[a_name], places[b_name]))
    scale = adapter.scales(layer, shape)[..., None, None]
    result |= {a_name: a, b_name: scale * b}
  return result


def _concatenated(first: Params, second: Params) -> Params:
  """The sum of two adapters as one: [A1 A2] and [B1; B2], by name.

  All layers have the sum of the ranks; a layer that only one of the two adapts
  is padded with zeros.
  """
  both = param_paths.flatten(first), param_paths.flatten(second)
  ranks = [
    next(x.shape[-1] for name, x in flat.items() if name.endswith('/lora_a'))
    for flat in both
  ]
  like = both[0] | both[1]

  def concatenate(both):
    def one(name):
      axis = -1 if name.endswith('/lora_a') else -2
      parts = []
      for flat, rank in zip(both, ranks, strict=True):
        shape = list(like[name].shape)
        shape[axis] = rank
        parts.append(flat.get(name, jnp.zeros(shape, like[name].dtype)))
      return jnp.concatenate(parts, axis)

    return {name: one(name) for name in like}

  # The rank axis is not sharded.
  places = {name: leaf.sharding for name, leaf in like.items()}
  return jax.jit(concatenate, out_shardings=places)(both)


def copy_rest(model: VideoModel, target: pathlib.Path) -> None:
  """Copies all but the transformer's weights, in the published format."""
  if distributed.is_primary():
    generator_folder.copy_configs(model, target)
  for network in ('vae', 'text_encoder'):
    generator_folder.write_published(model, network, target)
  distributed.barrier('unchanged parts copied')
