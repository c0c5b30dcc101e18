"""A CogVideoX model on disk: the diffusers folder, or our form of it.

  model_index.json
  transformer/   config.json + weights
  vae/           config.json + weights
  text_encoder/  config.json + weights
  tokenizer/     files of a transformers tokenizer
  scheduler/     scheduler_config.json

Weights are safetensors, as published, or in our form an Orbax folder `params`
that all hosts of a pod read and write at once; the rest is the same.
"""

from collections.abc import Mapping
import dataclasses
import functools
import hashlib
import json
import pathlib
import shutil
from typing import Any

import jax
import jax.numpy as jnp

from lift_jax import checkpoints, conversion, distributed, safetensors_files
from lift_jax.diffusion.schedule import ScheduleConfig
from lift_jax.errors import UserError
from lift_jax.models.cogvideox.config import TransformerConfig
from lift_jax.models.cogvideox.convert import TRANSFORMER_TABLE
from lift_jax.models.cogvideox.sharding import TRANSFORMER_RULES, VAE_RULES
from lift_jax.models.cogvideox.transformer import Transformer
from lift_jax.models.cogvideox.vae import VAE
from lift_jax.models.cogvideox.vae_config import VAEConfig
from lift_jax.models.cogvideox.vae_convert import VAE_TABLE
from lift_jax.models.functional import FunctionalModel, Params, functional
from lift_jax.models.t5.config import T5Config
from lift_jax.models.t5.convert import T5_ALIASES, T5_TABLE
from lift_jax.models.t5.encoder import Encoder
from lift_jax.models.t5.sharding import RULES as T5_RULES

PARAMS = 'params'  # the Orbax folder of a component in our form
# Beside it: the fingerprint of the weights it was made from, so that a cache
# knows both forms as one model.
FINGERPRINT = 'fingerprint.txt'
TOKENIZER = 'tokenizer'

_INDEX = {
  '_class_name': 'CogVideoXPipeline',
  '_diffusers_version': '0.30.0',
  'scheduler': ['diffusers', 'CogVideoXDDIMScheduler'],
  'text_encoder': ['transformers', 'T5EncoderModel'],
  'tokenizer': ['transformers', 'T5Tokenizer'],
  'transformer': ['diffusers', 'CogVideoXTransformer3DModel'],
  'vae': ['diffusers', 'AutoencoderKLCogVideoX'],
}


@dataclasses.dataclass(frozen=True)
class Component:
  """What is the same for every network of the folder.

  Attributes:
    stem: name of its weight files.
    table: its published names.
    rules: its layout on a mesh.
    aliases: (other name, name) of tensors that may be stored twice.
  """

  stem: str
  table: conversion.Table
  rules: Any
  aliases: tuple[tuple[str, str], ...] = ()


COMPONENTS = {
  'transformer': Component(
    'diffusion_pytorch_model', TRANSFORMER_TABLE, TRANSFORMER_RULES
  ),
  'vae': Component('diffusion_pytorch_model', VAE_TABLE, VAE_RULES),
  'text_encoder': Component('model', T5_TABLE, T5_RULES, T5_ALIASES),
}


@dataclasses.dataclass(frozen=True)
class ModelFolder:
  """The configs of a model, and the folder that holds its weights."""

  path: pathlib.Path
  index: Mapping[str, Any]
  transformer: TransformerConfig
  vae: VAEConfig
  text_encoder: T5Config
  schedule: ScheduleConfig

  def declare(self, component: str, **options) -> FunctionalModel:
    """The network of a component; options go to its constructor."""
    network = {
      'transformer': functools.partial(Transformer, self.transformer),
      'vae': functools.partial(VAE, self.vae),
      'text_encoder': functools.partial(Encoder, self.text_encoder),
    }[component]
    return functional(lambda rngs: network(rngs=rngs, **options))

  def load(
    self, component: str, model: FunctionalModel, shardings, dtype=None
  ) -> Params:
    """Weights straight into sharded arrays.

    Args:
      component: 'transformer', 'vae' or 'text_encoder'.
      model: its declaration.
      shardings: nested dict like its parameters, or None for one device.
      dtype: of all parameters; None keeps the stored type.

    Raises:
      UserError: tensors that the config does not ask for, or lacks.
    """
    folder = self.path / component
    if (folder / PARAMS).is_dir():
      return checkpoints.load_params(
        folder / PARAMS, model.abstract_params, shardings, dtype
      )
    part = COMPONENTS[component]
    return conversion.load(
      part.table,
      model.abstract_params,
      safetensors_files.open_tensors(folder, part.stem),
      shardings=shardings,
      dtype=dtype,
      aliases=part.aliases,
      where=str(folder),
    )

  def fingerprint(self, component: str) -> str:
    """Hash of a component's weights and config, or of the tokenizer."""
    folder = self.path / component
    if component == TOKENIZER:
      return _files_hash(folder)
    config = dataclasses.asdict(getattr(self, component))
    if (folder / PARAMS).is_dir():
      weights = (folder / FINGERPRINT).read_text().strip()
    else:
      weights = safetensors_files.fingerprint(
        folder, COMPONENTS[component].stem
      )
    identity = json.dumps([config, weights], sort_keys=True)
    return hashlib.sha256(identity.encode()).hexdigest()


def open_model(path: str | pathlib.Path) -> ModelFolder:
  """Reads the configs of a CogVideoX folder.

  Raises:
    UserError: not a CogVideoX 1.0 text-to-video folder.
  """
  path = pathlib.Path(path).expanduser().resolve()
  index = read_json(path / 'model_index.json')
  name = index.get('_class_name')
  if name != 'CogVideoXPipeline':
    raise UserError(
      f'{path}/model_index.json is of a {name}, not a CogVideoXPipeline; give '
      'the folder of a CogVideoX text-to-video model'
    )
  return ModelFolder(
    path,
    index,
    TransformerConfig.from_json(read_json(path / 'transformer/config.json')),
    VAEConfig.from_json(read_json(path / 'vae/config.json')),
    T5Config.from_json(read_json(path / 'text_encoder/config.json')),
    ScheduleConfig.from_json(
      read_json(path / 'scheduler/scheduler_config.json')
    ),
  )


def write_configs(folder: pathlib.Path, model: ModelFolder) -> None:
  """Writes every JSON file of `model`, and its tokenizer, to `folder`."""
  files = {
    'model_index.json': dict(model.index),
    'transformer/config.json': model.transformer.to_json(),
    'vae/config.json': model.vae.to_json(),
    'text_encoder/config.json': model.text_encoder.to_json(),
    'scheduler/scheduler_config.json': {
      **model.schedule.to_json(),
      '_class_name': model.index['scheduler'][1],
    },
  }
  for name, value in files.items():
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_text(json.dumps(value, indent=2) + '\n', encoding='utf-8')
  source, target = model.path / TOKENIZER, folder / TOKENIZER
  if source.is_dir() and source != target:
    shutil.copytree(source, target, dirs_exist_ok=True)


def make_random_model(
  folder: pathlib.Path,
  transformer: TransformerConfig,
  vae: VAEConfig,
  text_encoder: T5Config,
  schedule: ScheduleConfig,
  seed: int,
) -> None:
  """Writes a randomly initialised model in the published layout.

  Its tokenizer is ByT5's, whose tokens are bytes: it needs no vocabulary file.
  Nothing is done where the folder already holds the model.
  """
  if (folder / 'model_index.json').is_file():
    return
  partial = folder.with_name(f'.{folder.name}.partial')
  index = {**_INDEX, 'tokenizer': ['transformers', 'ByT5Tokenizer']}
  model = ModelFolder(partial, index, transformer, vae, text_encoder, schedule)
  if distributed.is_primary():
    from transformers import ByT5Tokenizer

    shutil.rmtree(partial, ignore_errors=True)
    write_configs(partial, model)
    ByT5Tokenizer().save_pretrained(partial / TOKENIZER)
  for number, component in enumerate(COMPONENTS):
    key = jax.random.fold_in(jax.random.key(seed), number)
    # Each host makes the same weights for itself; the first one writes them.
    with jax.default_device(jax.local_devices()[0]):
      params = jax.jit(model.declare(component).init)(key)
    save_component(partial, component, params)
  if distributed.is_primary():
    partial.rename(folder)
  distributed.barrier('random model is written')


def save_component(
  folder: pathlib.Path, component: str, params: Params, dtype=None
) -> None:
  """Writes weights as published; every host must call it."""
  part = COMPONENTS[component]
  dtype = None if dtype is None else jnp.dtype(dtype)
  conversion.save(
    part.table, params, folder / component, part.stem, dtype=dtype
  )


def read_json(path: pathlib.Path) -> dict[str, Any]:
  """A JSON object, or UserError naming the file."""
  try:
    value = json.loads(path.read_text(encoding='utf-8'))
  except FileNotFoundError:
    raise UserError(
      f'{path}: no such file; give the folder of a CogVideoX model'
    ) from None
  except (OSError, ValueError) as error:
    raise UserError(f'{path}: not readable as JSON ({error})') from None
  if not isinstance(value, dict):
    raise UserError(f'{path}: not a JSON object')
  return value


def _files_hash(folder: pathlib.Path) -> str:
  digest = hashlib.sha256()
  for path in sorted(folder.iterdir()):
    if path.is_file():
      digest.update(path.name.encode() + b'\0')
      digest.update(hashlib.sha256(path.read_bytes()).digest())
  return digest.hexdigest()
