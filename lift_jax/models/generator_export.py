"""Export of trained parameters for diffusers.

An export needs only the model at `model.path`: adapters that the run started
from are included.
"""

import pathlib

import jax
import jax.numpy as jnp

from lift_jax.models import generator_adapter, generator_folder
from lift_jax.models.functional import Params
from lift_jax.models.generators import VideoModel
from lift_jax.models.lora import LoRAConfig, adapter_table
from lift_jax.runtime import distributed
from lift_jax.runtime.files import atomic_folder
from lift_jax.weights import conversion, param_paths


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
  scaled = _scaled(adapters, lora.scale)
  earlier = model.adapter
  if earlier is not None:
    mesh = jax.tree.leaves(adapters)[0].sharding.mesh
    scaled = _concatenated(
      _scaled(earlier.load(mesh), earlier.config.scale), scaled
    )
  conversion.save(
    adapter_table(
      model.networks['transformer'].table, generator_adapter.PREFIX
    ),
    scaled,
    target,
    generator_adapter.STEM,
    dtype=jnp.dtype(dtype),
  )


def _scaled(adapters: Params, scale: float) -> Params:
  return param_paths.map_named(
    lambda name, leaf: scale * leaf if name.endswith('/lora_b') else leaf,
    adapters,
  )


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
  shardings = {name: leaf.sharding for name, leaf in like.items()}
  return jax.jit(concatenate, out_shardings=shardings)(both)


def copy_rest(model: VideoModel, target: pathlib.Path) -> None:
  """Copies all but the transformer's weights, in the published format."""
  if distributed.is_primary():
    generator_folder.copy_configs(model, target)
  for network in ('vae', 'text_encoder'):
    generator_folder.write_published(model, network, target)
  distributed.barrier('unchanged parts copied')
