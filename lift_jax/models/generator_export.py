"""Trained parameters, in the form that diffusers loads.

What is written needs nothing but the model of `model.path`: adapters that the
model of the run had are in it.
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
  """Writes a whole pipeline, or the adapters alone; every host must call it.

  The folder is written beside and renamed; one that is there is replaced.

  Args:
    model: what was fine-tuned; VAE, text encoder and tokenizer are taken over,
      and so are adapters, into the new ones.
    target: the folder to write.
    trainable: parameters of the transformer that have been trained.
    frozen: the others.
    lora: of adapters, in which case `target` gets one file of them; or None.
    dtype: of what is written.
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
  """A file for `pipeline.load_lora_weights`.

  The scale alpha / rank goes into B: where a file states no alpha, diffusers
  takes 1.
  """
  scaled = _scaled(adapters, lora.scale)
  earlier = model.adapter
  if earlier is not None:
    mesh = jax.tree.leaves(adapters)[0].sharding.mesh
    scaled = _joined(_scaled(earlier.load(mesh), earlier.config.scale), scaled)
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


def _joined(first: Params, second: Params) -> Params:
  """Adapters that add what both add: [A1 A2] and [B1; B2], by name.

  All have the sum of the ranks: zeros stand for what one of the two has not.
  """
  both = param_paths.flatten(first), param_paths.flatten(second)
  ranks = [
    next(x.shape[-1] for name, x in flat.items() if name.endswith('/lora_a'))
    for flat in both
  ]
  like = both[0] | both[1]

  def join(both):
    def one(name):
      axis = -1 if name.endswith('/lora_a') else -2
      parts = []
      for flat, rank in zip(both, ranks, strict=True):
        shape = list(like[name].shape)
        shape[axis] = rank
        parts.append(flat.get(name, jnp.zeros(shape, like[name].dtype)))
      return jnp.concatenate(parts, axis)

    return {name: one(name) for name in like}

  # No mesh axis cuts the ranks.
  places = {name: leaf.sharding for name, leaf in like.items()}
  return jax.jit(join, out_shardings=places)(both)


def copy_rest(model: VideoModel, target: pathlib.Path) -> None:
  """Configs, tokenizer, VAE and text encoder of `model`, as published."""
  if distributed.is_primary():
    generator_folder.copy_configs(model, target)
  for network in ('vae', 'text_encoder'):
    generator_folder.write_published(model, network, target)
  distributed.barrier('the rest is copied')
