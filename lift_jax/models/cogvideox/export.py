"""Trained parameters, in the form that diffusers loads."""

import pathlib

import jax.numpy as jnp

from lift_jax import conversion, distributed, model_files, param_paths
from lift_jax.models.cogvideox import folder as folder_lib
from lift_jax.models.cogvideox.convert import TRANSFORMER_TABLE
from lift_jax.models.cogvideox.folder import ModelFolder
from lift_jax.models.functional import Params
from lift_jax.models.lora import LoRAConfig, adapter_table

LORA_STEM = 'pytorch_lora_weights'  # the name that diffusers looks for


def write(
  model: ModelFolder,
  target: pathlib.Path,
  trainable: Params,
  frozen: Params,
  lora: LoRAConfig | None,
  dtype: str,
) -> None:
  """Writes a whole pipeline, or the adapters alone; every host must call it.

  The folder is written beside and renamed; one that is there is replaced.

  Args:
    model: what was fine-tuned; VAE, text encoder and tokenizer are taken over.
    target: the folder to write.
    trainable: parameters of the transformer that have been trained.
    frozen: the others.
    lora: of adapters, in which case `target` gets one file of them; or None.
    dtype: of what is written.
  """
  with model_files.writing_beside(target) as partial:
    if lora is not None:
      _write_adapters(partial, trainable, lora, dtype)
    else:
      copy_rest(model, partial)
      params = param_paths.merge(trainable, frozen)
      folder_lib.save_component(partial, 'transformer', params, dtype)


def _write_adapters(
  target: pathlib.Path, adapters: Params, lora: LoRAConfig, dtype: str
) -> None:
  """A file for `pipeline.load_lora_weights`.

  The scale alpha / rank goes into B: diffusers reads no alpha for CogVideoX,
  and takes 1.
  """
  scaled = param_paths.map_named(
    lambda name, leaf: lora.scale * leaf if name.endswith('/lora_b') else leaf,
    adapters,
  )
  conversion.save(
    adapter_table(TRANSFORMER_TABLE, prefix='transformer.'),
    scaled,
    target,
    LORA_STEM,
    dtype=jnp.dtype(dtype),
  )


def copy_rest(model: ModelFolder, target: pathlib.Path) -> None:
  """Configs, tokenizer, VAE and text encoder of `model`, as published."""
  if distributed.is_primary():
    folder_lib.copy_configs(model, target)
  for component in ('vae', 'text_encoder'):
    folder_lib.write_published(model, component, target)
  distributed.barrier('the rest is copied')
