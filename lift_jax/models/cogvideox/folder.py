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

from collections.abc import Callable, Mapping
import dataclasses
import functools
import pathlib
import shutil
from typing import Any, TypeVar

import jax
import jax.numpy as jnp

from lift_jax import partitioning
from lift_jax.diffusion.schedule import ScheduleConfig
from lift_jax.errors import UserError
from lift_jax.models.cogvideox import adapter as adapter_lib
from lift_jax.models.cogvideox.adapter import TransformerAdapter
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
from lift_jax.runtime import distributed
from lift_jax.runtime.files import (
  atomic_folder,
  folder_sha256,
  json_sha256,
  read_json,
  write_json,
)
from lift_jax.weights import (
  checkpoints,
  conversion,
  safetensors_files,
)

PARAMS = 'params'  # the Orbax folder of a component in our form
# Beside it: the fingerprint that the weights have as safetensors, so that a
# cache knows both forms as one model.
FINGERPRINT = 'fingerprint.txt'
TOKENIZER = 'tokenizer'

T = TypeVar('T')


# In the index of a random model; diffusers passes over such keys.
RANDOM_SEED = '_random_seed'

INDEX = {
  '_class_name': 'CogVideoXPipeline',
  '_diffusers_version': '0.30.0',
  'scheduler': ['diffusers', 'CogVideoXDDIMScheduler'],
  'text_encoder': ['transformers', 'T5EncoderModel'],
  'tokenizer': ['transformers', 'T5Tokenizer'],
  'transformer': ['diffusers', 'CogVideoXTransformer3DModel'],
  'vae': ['diffusers', 'AutoencoderKLCogVideoX'],
}


_CONFIGS = {
  'transformer': 'transformer/config.json',
  'vae': 'vae/config.json',
  'text_encoder': 'text_encoder/config.json',
  'scheduler': 'scheduler/scheduler_config.json',
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
  """The configs of a model, and the folder that holds its weights.

  Attributes:
    path: of the folder.
    index: what model_index.json says.
    adapter: what is added into the weights of the transformer; or None.
  """

  path: pathlib.Path
  index: Mapping[str, Any]
  transformer: TransformerConfig
  vae: VAEConfig
  text_encoder: T5Config
  schedule: ScheduleConfig
  adapter: TransformerAdapter | None = None

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
    """Weights straight into sharded arrays, adapters added.

    Args:
      component: 'transformer', 'vae' or 'text_encoder'.
      model: its declaration.
      shardings: nested dict like its parameters, or None for one device.
      dtype: of all parameters; None keeps the stored type, but for kernels
        with adapters, which are fp32 then.

    Raises:
      UserError: tensors that the config does not ask for, or lacks.
    """
    if self.adapter is None or component != 'transformer':
      return self._load_stored(component, model, shardings, dtype)
    params = self._load_stored(component, model, shardings, None)
    return self.adapter.merged(params, dtype)

  def _load_stored(
    self, component: str, model: FunctionalModel, shardings, dtype
  ) -> Params:
    folder = self.path / component
    if (folder / PARAMS).is_dir():
      return checkpoints.load_params(
        folder / PARAMS, model.abstract_params, shardings, dtype
      )
    part = COMPONENTS[component]
    return conversion.load(
      part.table,
      model.abstract_params,
      self.tensors(component),
      shardings=shardings,
      dtype=dtype,
      aliases=part.aliases,
      where=str(folder),
    )

  def is_ours(self, component: str) -> bool:
    """Whether its weights are in our form."""
    return (self.path / component / PARAMS).is_dir()

  def tensors(self, component: str) -> dict[str, safetensors_files.LazyTensor]:
    """Published weights by name; nothing but headers is read."""
    return safetensors_files.open_tensors(
      self.path / component, COMPONENTS[component].stem
    )

  def fingerprint(self, component: str) -> str:
    """Hash of a component's weights and config, or of the tokenizer.

    Adapters are part of that of the transformer.
    """
    folder = self.path / component
    if component == TOKENIZER:
      return folder_sha256(folder)
    config = dataclasses.asdict(getattr(self, component))
    parts = [config, self.weights_fingerprint(component)]
    if component == 'transformer' and self.adapter is not None:
      parts.append(self.adapter.fingerprint())
    return json_sha256(parts, sort_keys=True)

  def weights_fingerprint(self, component: str, dtype=None) -> str:
    """Hash of a component's stored weights, the same in both forms.

    That of `safetensors_files.fingerprint`, once tensors that may be stored
    under two names are stored under one.

    Args:
      component: 'transformer', 'vae' or 'text_encoder'.
      dtype: that floats are about to be cast to; only for published weights.
    """
    if self.is_ours(component):
      path = self.path / component / FINGERPRINT
      try:
        return path.read_text().strip()
      except OSError as error:
        raise UserError(
          f'{path} cannot be read ({error.strerror}); convert the model again'
        ) from None
    tensors = self.tensors(component)
    for other, name in COMPONENTS[component].aliases:
      if other in tensors:
        tensors.setdefault(name, tensors.pop(other))
    return safetensors_files.fingerprint(tensors, dtype)


def open_model(
  path: str | pathlib.Path, adapter: str | pathlib.Path = ''
) -> ModelFolder:
  """Reads the configs of a CogVideoX folder, and checks adapters for it.

  Args:
    path: of the folder.
    adapter: see `adapter.open_adapter`; '' for none.

  Raises:
    UserError: not a CogVideoX 1.0 text-to-video folder, or not its adapters.
  """
  path = pathlib.Path(path).expanduser().resolve()
  index_file = path / 'model_index.json'
  if not index_file.exists() and adapter_lib.holds_adapters(path):
    raise UserError(
      f'{path}: holds LoRA adapters and no model; give it as model.adapter, '
      'and as model.path the model that they are for'
    )
  index = read_json(index_file)
  name = index.get('_class_name')
  if name != 'CogVideoXPipeline':
    raise UserError(
      f'{path}/model_index.json is of a {name}, not a CogVideoXPipeline; give '
      'the folder of a CogVideoX text-to-video model'
    )
  configs = {
    component: read_json(path / name) for component, name in _CONFIGS.items()
  }
  try:
    model = ModelFolder(
      path,
      index,
      TransformerConfig.from_json(configs['transformer']),
      VAEConfig.from_json(configs['vae']),
      T5Config.from_json(configs['text_encoder']),
      ScheduleConfig.from_json(configs['scheduler']),
    )
  except UserError as error:
    raise UserError(f'{path}: {error}') from None
  if not adapter:
    return model
  return dataclasses.replace(
    model, adapter=adapter_lib.open_adapter(adapter, model.transformer)
  )


def write_configs(folder: pathlib.Path, model: ModelFolder) -> None:
  """Writes every JSON file of `model` to `folder`."""
  values = {
    'model_index.json': dict(model.index),
    _CONFIGS['transformer']: model.transformer.to_json(),
    _CONFIGS['vae']: model.vae.to_json(),
    _CONFIGS['text_encoder']: model.text_encoder.to_json(),
    _CONFIGS['scheduler']: {
      **model.schedule.to_json(),
      '_class_name': model.index['scheduler'][1],
    },
  }
  for name, value in values.items():
    write_json(folder / name, value)


def copy_configs(
  model: ModelFolder, target: pathlib.Path, dtype: str | None = None
) -> None:
  """Copies the JSON files and the tokenizer, as they are published.

  Keys that this project does not read stay, such as those of sampling. Only
  the type of the text encoder's weights is kept true, as transformers loads
  them in the type that its config names.

  Args:
    model: the folder to copy from.
    target: the folder to copy to.
    dtype: of the text encoder's weights there; None: as they were.

  Raises:
    UserError: a file is missing.
  """
  if not (model.path / TOKENIZER).is_dir():
    raise UserError(
      f'{model.path / TOKENIZER}: no such folder; fetch the tokenizer of the '
      'model too'
    )
  for name in ('model_index.json', *_CONFIGS.values()):
    value = read_json(model.path / name)
    if name == _CONFIGS['text_encoder'] and dtype is not None:
      value |= {key: dtype for key in ('dtype', 'torch_dtype') if key in value}
    write_json(target / name, value)
  shutil.copytree(
    model.path / TOKENIZER, target / TOKENIZER, dirs_exist_ok=True
  )


def spread(place: Callable[[jax.sharding.Mesh], T]) -> T:
  """`place(mesh)` on a mesh of all devices, cut into as many parts as fit.

  For work that computes nothing and so has no mesh of the user's choice: 2B
  cannot be cut into 256 parts, but a slice of 256 chips can still convert it.

  Args:
    place: raises UserError for a mesh that does not divide the parameters.
  """
  count = jax.device_count()
  for fsdp in range(count, 0, -1):
    if count % fsdp:
      continue
    config = partitioning.MeshConfig(data=count // fsdp, fsdp=fsdp)
    try:
      return place(partitioning.make_mesh(config))
    except UserError:
      if fsdp == 1:
        raise
  raise AssertionError('one part always fits')


def _load_spread(model: ModelFolder, component: str, dtype=None) -> Params:
  network = model.declare(component)
  shardings = spread(
    functools.partial(
      partitioning.param_shardings,
      COMPONENTS[component].rules,
      network.abstract_params,
    )
  )
  return model.load(component, network, shardings, dtype)


def write_ours(
  model: ModelFolder,
  component: str,
  target: pathlib.Path,
  dtype: str | None = None,
) -> None:
  """Writes the weights of a published component in our form.

  Every host must call it; the weights lie spread over all devices.

  Args:
    model: a diffusers folder, without adapters.
    component: 'transformer', 'vae' or 'text_encoder'.
    target: the folder of a model.
    dtype: of all parameters; None keeps the stored type.

  Raises:
    UserError: see `ModelFolder.load`.
  """
  assert model.adapter is None, 'the fingerprint would be of other weights'
  kept = None if dtype is None else jnp.dtype(dtype)
  params = _load_spread(model, component, kept)
  checkpoints.save_params(target / component / PARAMS, params)
  if distributed.is_primary():
    fingerprint = model.weights_fingerprint(component, kept)
    (target / component / FINGERPRINT).write_text(fingerprint + '\n')


def write_published(
  model: ModelFolder,
  component: str,
  target: pathlib.Path,
  dtype: str | None = None,
) -> None:
  """Writes the weights of a component as diffusers loads them.

  Every host must call it. Files are copied where nothing about them changes.

  Args:
    model: a folder in either form; of one with adapters not the transformer.
    component: 'transformer', 'vae' or 'text_encoder'.
    target: the folder of a model.
    dtype: of all tensors; None keeps the stored type.

  Raises:
    UserError: see `ModelFolder.load`.
  """
  assert component != 'transformer' or model.adapter is None
  if model.is_ours(component) or dtype is not None:
    params = _load_spread(model, component)
    save_component(target, component, params, dtype)
  elif distributed.is_primary():
    source = model.path / component
    files = {tensor.file for tensor in model.tensors(component).values()}
    index = f'{COMPONENTS[component].stem}.safetensors.index.json'
    if (source / index).is_file():
      files.add(source / index)
    for file in files:
      copy = target / component / file.relative_to(source)
      copy.parent.mkdir(parents=True, exist_ok=True)
      shutil.copy2(file, copy)


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
  index = {
    **INDEX,
    'tokenizer': ['transformers', 'ByT5Tokenizer'],
    RANDOM_SEED: seed,
  }
  model = ModelFolder(folder, index, transformer, vae, text_encoder, schedule)
  with atomic_folder(folder) as partial:
    if distributed.is_primary():
      from transformers import ByT5Tokenizer

      write_configs(partial, model)
      ByT5Tokenizer().save_pretrained(partial / TOKENIZER)
    for number, component in enumerate(COMPONENTS):
      key = jax.random.fold_in(jax.random.key(seed), number)
      # Each host makes the same weights for itself; the first one writes them.
      with jax.default_device(jax.local_devices()[0]):
        # Runs once, on hundreds of small draws: XLA takes minutes to optimise
        # it with jax 0.12 and seconds to compile it as it is.
        init = jax.jit(
          model.declare(component).init,
          compiler_options={'xla_backend_optimization_level': 0},
        )
        params = init(key)
      save_component(partial, component, params)


def save_component(
  folder: pathlib.Path, component: str, params: Params, dtype=None
) -> None:
  """Writes weights as published; every host must call it."""
  part = COMPONENTS[component]
  dtype = None if dtype is None else jnp.dtype(dtype)
  conversion.save(
    part.table, params, folder / component, part.stem, dtype=dtype
  )
