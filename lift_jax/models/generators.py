"""Interface of text-to-video models, and the registry of model families.

A family is a subclass of `VideoModel` in a package of its own, registered under
the pipeline class that a folder's model_index.json names. Jobs, planning,
sampling, training and the toy world use models through this class alone.

B batch  F h w C latent frames, height, width and channels  T H W video frames,
height and width  S text tokens  D embedding width
"""

import abc
from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import importlib
import os
import pathlib
from typing import Any, ClassVar, NamedTuple, Self, get_type_hints

from flax import nnx
import jax
import numpy as np

from lift_jax import config_lib, partitioning
from lift_jax.diffusion.schedule import Schedule
from lift_jax.errors import UserError
from lift_jax.models import adapter_files, lora
from lift_jax.models.adapter_config import AdapterConfig
from lift_jax.models.adapters import Adapter, merged
from lift_jax.models.functional import FunctionalModel, Params, functional
from lift_jax.models.latents import LatentGrid, LatentScale
from lift_jax.runtime import hub, storage
from lift_jax.runtime.files import (
  check_complete,
  folder_sha256,
  json_sha256,
  read_json,
)
from lift_jax.weights import (
  checkpoints,
  conversion,
  published_tensors,
  safetensors_files,
)

# The networks of a model, and the config file of each part.
NETWORKS = ('transformer', 'vae', 'text_encoder')
CONFIG_FILES = {
  'transformer': 'transformer/config.json',
  'vae': 'vae/config.json',
  'text_encoder': 'text_encoder/config.json',
  'schedule': 'scheduler/scheduler_config.json',
}
INDEX = 'model_index.json'
TOKENIZER = 'tokenizer'

PARAMS = 'params'  # Orbax folder of a network in our checkpoint format
# Next to it: the fingerprint that the weights have as safetensors, so that
# caches treat both formats as the same model.
FINGERPRINT = 'fingerprint.txt'

# Modules that register a family when they are imported.
_MODULES = ('lift_jax.models.cogvideox.model',)


@dataclasses.dataclass(frozen=True)
class RandomModelConfig:
  """Sizes of a randomly initialised model, or of one to plan for.

  A family adds a config for each key of `CONFIG_FILES`, which `from_json`
  reads from its file and `to_json` writes.

  Attributes:
    family: `VideoModel.family` of the model.
    seed: of its parameters.
  """

  family: str
  seed: int

  @classmethod
  def choose_class(
    cls, section: Mapping[str, Any], where: str
  ) -> 'type[RandomModelConfig]':
    """The config class of the family that a config section names."""
    by_name = {family.family: family for family in families()}
    if 'family' not in section:
      raise UserError(f'{where} lacks family; name one of {list(by_name)}')
    config_lib.check_choice(f'{where}.family', section['family'], by_name)
    return by_name[section['family']].random_config


@dataclasses.dataclass(frozen=True)
class NetworkSpec:
  """A network of a model: constructor, published weights, sharding.

  Attributes:
    build: makes the module from `rngs` and the compute `dtype`; a transformer
      also takes `remat` and `attention_backend`.
    stem: name of its weight files.
    table: conversion table from its published weights.
    rules: sharding rules.
    aliases: (other name, name) of tensors that may be stored under both names.
    ignored: regular expressions of published tensors that it does not need.
    computed: published tensors that follow from the config.
    adapter_aliases: other names of linear layers in adapters; see
      `adapter_files.sites_of`.
  """

  build: Callable[..., nnx.Module]
  stem: str
  table: conversion.Table
  rules: partitioning.Rules
  aliases: tuple[tuple[str, str], ...] = ()
  ignored: tuple[str, ...] = ()
  computed: conversion.Computed = dataclasses.field(default_factory=dict)
  adapter_aliases: Mapping[str, tuple[str, ...]] = dataclasses.field(
    default_factory=dict
  )


class Flops(NamedTuple):
  """FLOPs of a transformer's matrix products, one forward pass of one video.

  Attributes:
    linear: products of tokens with parameters.
    attention: products of queries with keys, and of weights with values.
  """

  linear: float
  attention: float

  @property
  def forward(self) -> float:
    return self.linear + self.attention

  def training(self, trains_kernels: bool) -> float:
    """FLOPs of forward and backward pass, recomputation not counted.

    The backward pass costs as much as the forward pass for activations, and as
    much again for kernel gradients if kernels train (adapters not counted).
    """
    return (3 if trains_kernels else 2) * self.linear + 3 * self.attention


@dataclasses.dataclass(frozen=True)
class VideoModel(abc.ABC):
  """The configs of a model, and the folder that holds its weights.

  A family sets the class variables and implements the abstract methods. Its
  networks compute

    transformer(x_bfhwc, text_bsd, t_b) -> prediction [B, F, h, w, C]
    vae.encode(video_bthw3, tiling=) -> mean and log-variance [B, F, h, w, C]
    vae.decode(z_bfhwc, tiling=) -> video [B, T, H, W, 3]
    text_encoder(tokens_bs) -> embeddings [B, S, D]

  with videos in [-1, 1]. The transformer's parameters under 'blocks/' are
  stacked by layer; `train.trainable = blocks` trains these.

  Class variables:
    family: its name in configs.
    pipeline: `_class_name` of its model_index.json.
    random_config: subclass of `RandomModelConfig`.
    published: sizes of published models by name, for `lift plan`.
    random_index: model_index.json of a random model.
    can_cache: whether the transformer has the methods of a step cache:
      `cached`, `no_residual` and `embed_time`, as that of CogVideoX.

  Attributes:
    path: of the folder.
    index: content of model_index.json.
    transformer: config, with `num_heads`.
    vae: config.
    text_encoder: config.
    schedule: noise schedule, with prediction target and samplers.
    adapters: LoRA adapters to merge into the transformer.
  """

  family: ClassVar[str]
  pipeline: ClassVar[str]
  random_config: ClassVar[type[RandomModelConfig]]
  published: ClassVar[Mapping[str, RandomModelConfig]]
  random_index: ClassVar[Mapping[str, Any]]
  can_cache: ClassVar[bool] = False

  path: pathlib.Path
  index: Mapping[str, Any]
  transformer: Any
  vae: Any
  text_encoder: Any
  schedule: Schedule
  adapters: tuple[Adapter, ...] = ()

  @property
  @abc.abstractmethod
  def networks(self) -> Mapping[str, NetworkSpec]:
    """The networks by name, in the order of `NETWORKS`."""

  @property
  @abc.abstractmethod
  def latent_grid(self) -> LatentGrid:
    """Compression of the autoencoder, and sizes that the model takes."""

  @property
  @abc.abstractmethod
  def latent_scale(self) -> LatentScale:
    """Normalisation of latents for the transformer."""

  @property
  @abc.abstractmethod
  def text_shape(self) -> tuple[int, int]:
    """(S, D) of text embeddings, equal for all texts."""

  @abc.abstractmethod
  def load_tokenizer(
    self,
  ) -> Callable[[Sequence[str]], tuple[np.ndarray, list[bool]]]:
    """`tokenize(texts)`: ids int32 [B, S], and which texts were truncated."""

  @staticmethod
  @abc.abstractmethod
  def write_random_tokenizer(folder: pathlib.Path) -> None:
    """Writes the tokenizer of a random model to a new folder."""

  @abc.abstractmethod
  def num_tokens(self, frames: int, height: int, width: int) -> int:
    """Tokens of the transformer for latents [frames, height, width, C]."""

  @abc.abstractmethod
  def flops(self, num_tokens: int) -> Flops:
    """FLOPs of the transformer."""

  @abc.abstractmethod
  def text_flops(self) -> float:
    """FLOPs of the text encoder for one text."""

  @classmethod
  def from_sizes(
    cls,
    sizes: RandomModelConfig,
    path: pathlib.Path = pathlib.Path(),
    index: Mapping[str, Any] | None = None,
  ) -> Self:
    """A model of the given sizes, whose weights need not exist."""
    parts = {part: getattr(sizes, part) for part in CONFIG_FILES}
    return cls(path, cls.random_index if index is None else index, **parts)

  def check_mesh(self, mesh: jax.sharding.Mesh) -> None:
    """Raises UserError if the mesh would split an attention head."""
    shards = mesh.shape['tensor']
    if self.transformer.num_heads % shards:
      raise UserError(
        f'mesh.tensor is {shards}, which does not divide the '
        f'{self.transformer.num_heads} attention heads; choose another mesh'
      )

  def declare(self, network: str, **options) -> FunctionalModel:
    """The network `network`, not initialised; options go to its constructor."""
    build = self.networks[network].build
    return functional(lambda rngs: build(rngs=rngs, **options))

  def load(
    self, network: str, model: FunctionalModel, shardings, dtype=None
  ) -> Params:
    """Loads weights into sharded arrays and merges adapters.

    Args:
      network: one of `NETWORKS`.
      model: its declaration.
      shardings: nested dict like its parameters, or None for one device.
      dtype: of all parameters; None keeps the stored type, except that kernels
        with adapters become fp32.

    Raises:
      UserError: unexpected or missing tensors.
    """
    update = None
    if self.adapters and network == 'transformer':
      update = functools.partial(merged, self.adapters, dtype)
      dtype = None  # rounded after the sum
    folder = self.path / network
    if self.is_orbax(network):
      return checkpoints.load_params(
        folder / PARAMS, model.abstract_params, shardings, dtype, update
      )
    published = self.networks[network]
    return published_tensors.load(
      published.table,
      model.abstract_params,
      self.tensors(network),
      shardings=shardings,
      dtype=dtype,
      update=update,
      aliases=published.aliases,
      ignored=published.ignored,
      computed=published.computed,
      where=str(folder),
    )

  def is_orbax(self, network: str) -> bool:
    """Whether a network's weights are in our checkpoint format."""
    return (self.path / network / PARAMS).is_dir()

  def tensors(self, network: str) -> dict[str, safetensors_files.LazyTensor]:
    """Published weights by name; reads headers only."""
    return safetensors_files.open_tensors(
      self.path / network, self.networks[network].stem
    )

  def fingerprint(self, part: str) -> str:
    """Hash of a network's weights and config, or of the tokenizer.

    That of the transformer includes adapters.
    """
    folder = self.path / part
    if part == TOKENIZER:
      return folder_sha256(folder)
    config = dataclasses.asdict(getattr(self, part))
    parts = [config, self.weights_fingerprint(part)]
    if part == 'transformer':
      parts += [adapter.fingerprint for adapter in self.adapters]
    return json_sha256(parts, sort_keys=True)

  def weights_fingerprint(self, network: str, dtype=None) -> str:
    """Hash of a network's stored weights, the same in both formats.

    See `safetensors_files.fingerprint`; aliases are resolved first.

    Args:
      network: one of `NETWORKS`.
      dtype: type that floats will be cast to; only for published weights.
    """
    if self.is_orbax(network):
      path = self.path / network / FINGERPRINT
      try:
        return storage.read_text(path).strip()
      except OSError as error:
        raise UserError(
          f'{path} cannot be read ({error.strerror}); convert the model again'
        ) from None
    tensors = self.tensors(network)
    for other, name in self.networks[network].aliases:
      if other in tensors:
        tensors.setdefault(name, tensors.pop(other))
    return safetensors_files.fingerprint(tensors, dtype)


_FAMILIES: dict[str, type[VideoModel]] = {}


def register(family: type[VideoModel]) -> type[VideoModel]:
  """Registers a family; a class decorator."""
  _FAMILIES[family.pipeline] = family
  return family


def families() -> tuple[type[VideoModel], ...]:
  """All registered families, sorted by pipeline name."""
  for module in _MODULES:
    importlib.import_module(module)
  return tuple(_FAMILIES[pipeline] for pipeline in sorted(_FAMILIES))


def from_sizes(sizes: RandomModelConfig, **options) -> VideoModel:
  """`VideoModel.from_sizes` of the family that `sizes` names."""
  (family,) = (one for one in families() if one.family == sizes.family)
  return family.from_sizes(sizes, **options)


def published_sizes() -> dict[str, RandomModelConfig]:
  """Sizes of the published models of all families by name."""
  sizes = {}
  for family in families():
    sizes |= family.published
  return sizes


def fetch_model(text: str | os.PathLike[str], *, weights: bool = True) -> str:
  """The folder of a model that a user named; one on the hub is downloaded.

  Args:
    text: a path, or an id; see `runtime.hub`.
    weights: False downloads configs only.

  Raises:
    UserError: an id of no such model, or one that cannot be downloaded.
  """

  def find_folders(folder: pathlib.Path) -> list[str]:
    _family_of(folder, read_json(folder / INDEX))
    configs = [str(pathlib.Path(file).parent) for file in CONFIG_FILES.values()]
    return [*configs, TOKENIZER]

  return hub.model_folder(text, (INDEX,), find_folders, weights=weights)


def open_model(
  path: str | pathlib.Path, adapters: Sequence[AdapterConfig] = ()
) -> VideoModel:
  """Opens a model folder and its adapters; reads configs and headers only.

  Args:
    path: of the folder.
    adapters: to merge into the transformer.

  Raises:
    UserError: not a folder of a registered family, or adapters that do not fit.
  """
  path = storage.resolved(storage.to_path(path))
  check_complete(path)
  if not (path / INDEX).exists() and adapter_files.holds_adapters(path):
    raise UserError(
      f'{path}: contains LoRA adapters and no model; give it as model.adapter, '
      'and their base model as model.path'
    )
  index = read_json(path / INDEX)
  family = _family_of(path, index)
  kinds = get_type_hints(family.random_config)
  published = {
    part: read_json(path / file) for part, file in CONFIG_FILES.items()
  }
  try:
    configs = {
      part: kinds[part].from_json(value) for part, value in published.items()
    }
  except UserError as error:
    raise UserError(f'{path}: {error}') from None
  model = family(path, index, **configs)
  if not adapters:
    return model
  transformer = model.networks['transformer']
  sites = adapter_files.sites_of(
    lora.adapter_table(transformer.table),
    model.declare('transformer').abstract_params,
    transformer.adapter_aliases,
  )
  opened = tuple(adapter_files.open_adapter(one, sites) for one in adapters)
  return dataclasses.replace(model, adapters=opened)


def _family_of(
  path: pathlib.Path, index: Mapping[str, Any]
) -> type[VideoModel]:
  """The family of the model in a folder with this index."""
  name = index.get('_class_name')
  by_pipeline = {family.pipeline: family for family in families()}
  if not isinstance(name, str) or name not in by_pipeline:
    raise UserError(
      f'{path}/{INDEX}: _class_name is {name!r}; give the folder of a '
      f'text-to-video model, {" or ".join(by_pipeline)}'
    )
  return by_pipeline[name]
