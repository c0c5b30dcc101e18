"""What a family of text-to-video models offers, and which families there are.

A family is a subclass of `VideoModel` in a room of its own, registered under
the pipeline class that a folder's model_index.json names. Jobs, planning,
sampling, training and the toy world see models through this class alone.

B videos  F h w C frames, height, width and channels of latents  T H W frames,
height and width of videos  S text tokens  D width of their embeddings
"""

import abc
from collections.abc import Callable, Mapping, Sequence
import dataclasses
import importlib
import pathlib
from typing import Any, ClassVar, NamedTuple, Self, get_type_hints

from flax import nnx
import jax
import numpy as np

from lift_jax import config_lib, partitioning
from lift_jax.diffusion.schedule import Schedule
from lift_jax.errors import UserError
from lift_jax.models import generator_adapter
from lift_jax.models.functional import FunctionalModel, Params, functional
from lift_jax.models.generator_adapter import TransformerAdapter
from lift_jax.runtime.files import folder_sha256, json_sha256, read_json
from lift_jax.weights import checkpoints, conversion, safetensors_files

# The networks of a model, and where the config of each part lies.
NETWORKS = ('transformer', 'vae', 'text_encoder')
CONFIG_FILES = {
  'transformer': 'transformer/config.json',
  'vae': 'vae/config.json',
  'text_encoder': 'text_encoder/config.json',
  'schedule': 'scheduler/scheduler_config.json',
}
INDEX = 'model_index.json'
TOKENIZER = 'tokenizer'

PARAMS = 'params'  # the Orbax folder of a network in our form
# Beside it: the fingerprint that the weights have as safetensors, so that a
# cache knows both forms as one model.
FINGERPRINT = 'fingerprint.txt'

# Modules that register a family when they are imported.
_MODULES = ('lift_jax.models.cogvideox.model',)


@dataclasses.dataclass(frozen=True)
class RandomModelConfig:
  """Sizes of a model, to initialise one at random or to plan for one.

  A family adds a config for each key of `CONFIG_FILES`, which `from_json`
  reads from its file and `to_json` writes.

  Attributes:
    family: `VideoModel.family` of the model.
    seed: of its parameters.
  """

  family: str
  seed: int

  @classmethod
  def choose_class(cls, section: Mapping[str, Any], where: str) -> type[Self]:
    """The class of the family that a config section names."""
    if 'family' not in section:
      raise UserError(f'{where} lacks family')
    by_name = {family.family: family for family in families()}
    config_lib.check_choice(f'{where}.family', section['family'], by_name)
    return by_name[section['family']].random_config


@dataclasses.dataclass(frozen=True)
class Network:
  """A network of a model, as it is published and as it lies on a mesh.

  Attributes:
    build: makes the module from `rngs` and `dtype`, that of the computation; a
      transformer also takes `remat` and `attention_backend`.
    stem: name of its weight files.
    table: its published names.
    rules: its layout on a mesh.
    aliases: (other name, name) of tensors that may be stored twice.
  """

  build: Callable[..., nnx.Module]
  stem: str
  table: conversion.Table
  rules: partitioning.Rules
  aliases: tuple[tuple[str, str], ...] = ()


@dataclasses.dataclass(frozen=True)
class LatentGrid:
  """How latents lie in a video; one of r k + 1 frames has k + 1 of latents.

  Attributes:
    frames: r, frames of the video per latent frame.
    pixels: height and width of a latent in pixels.
    multiple: heights and widths that the model takes are multiples of it.
    channels: of a latent.
  """

  frames: int
  pixels: int
  multiple: int
  channels: int


@dataclasses.dataclass(frozen=True)
class LatentScale:
  """From latents z of the autoencoder to x, what the transformer sees.

  x = factor (z - mean)

  Attributes:
    factor: one number, or one of each channel.
    mean: of each channel; empty where none is subtracted.
  """

  factor: float | tuple[float, ...]
  mean: tuple[float, ...] = ()

  def normalize(self, z: jax.Array) -> jax.Array:
    """x of z, both [..., C]."""
    if self.mean:
      z = z - _per_channel(self.mean, z.ndim)
    return _per_channel(self.factor, z.ndim) * z

  def denormalize(self, x: jax.Array) -> jax.Array:
    """z of x, both [..., C]."""
    z = x / _per_channel(self.factor, x.ndim)
    if self.mean:
      z = z + _per_channel(self.mean, x.ndim)
    return z


def _per_channel(
  values: float | tuple[float, ...], rank: int
) -> float | np.ndarray:
  """What goes with [..., C] of a rank: one number as it is, or [1, ..., C]."""
  if not isinstance(values, tuple):
    return values
  return np.array(values, np.float32).reshape((1,) * (rank - 1) + (-1,))


class Flops(NamedTuple):
  """Of a transformer's matrix products in one forward pass of one video.

  Attributes:
    linear: of tokens with parameters.
    attention: of queries with keys and of weights with values.
  """

  linear: float
  attention: float

  @property
  def forward(self) -> float:
    return self.linear + self.attention

  def training(self, trains_kernels: bool) -> float:
    """Of forward and backward pass, recomputation not counted.

    The backward pass costs once the forward for activations, and once more for
    the gradient of the kernels where those train (adapters are not counted).
    """
    return (3 if trains_kernels else 2) * self.linear + 3 * self.attention


@dataclasses.dataclass(frozen=True)
class VideoModel(abc.ABC):
  """The configs of a model, and the folder that holds its weights.

  A family sets the class variables and implements what is abstract. Its
  networks compute

    transformer(x_bfhwc, text_bsd, t_b) -> prediction [B, F, h, w, C]
    vae.encode(video_bthw3, tiling=) -> mean and log-variance [B, F, h, w, C]
    vae.decode(z_bfhwc, tiling=) -> video [B, T, H, W, 3]
    text_encoder(tokens_bs) -> embeddings [B, S, D]

  with videos in [-1, 1]. Parameters of the transformer below 'blocks/' are
  stacked by layer: they are what `train.trainable = blocks` trains.

  Class variables:
    family: its name in configs.
    pipeline: `_class_name` of its model_index.json.
    random_config: subclass of `RandomModelConfig`.
    published: sizes of published models by name, for `lift plan`.
    random_index: model_index.json of a random model.

  Attributes:
    path: of the folder.
    index: what model_index.json says.
    transformer: config, with `num_heads`.
    vae: config.
    text_encoder: config.
    schedule: of the noise, with the target of the prediction and the samplers.
    adapter: what is added into the weights of the transformer; or None.
  """

  family: ClassVar[str]
  pipeline: ClassVar[str]
  random_config: ClassVar[type[RandomModelConfig]]
  published: ClassVar[Mapping[str, RandomModelConfig]]
  random_index: ClassVar[Mapping[str, Any]]

  path: pathlib.Path
  index: Mapping[str, Any]
  transformer: Any
  vae: Any
  text_encoder: Any
  schedule: Schedule
  adapter: TransformerAdapter | None = None

  @property
  @abc.abstractmethod
  def networks(self) -> Mapping[str, Network]:
    """What each of `NETWORKS` is, in this order."""

  @property
  @abc.abstractmethod
  def latent_grid(self) -> LatentGrid:
    """Which sizes the model takes."""

  @property
  @abc.abstractmethod
  def latent_scale(self) -> LatentScale:
    """Between autoencoder and transformer."""

  @property
  @abc.abstractmethod
  def text_shape(self) -> tuple[int, int]:
    """(S, D) of the embeddings of every text."""

  @abc.abstractmethod
  def load_tokenizer(
    self,
  ) -> Callable[[Sequence[str]], tuple[np.ndarray, list[bool]]]:
    """`tokenize(texts)`: ids int32 [B, S], and which texts were cut."""

  @staticmethod
  @abc.abstractmethod
  def write_random_tokenizer(folder: pathlib.Path) -> None:
    """Writes the tokenizer of a random model to a new folder."""

  @abc.abstractmethod
  def num_tokens(self, frames: int, height: int, width: int) -> int:
    """Tokens of the transformer for latents [frames, height, width, C]."""

  @abc.abstractmethod
  def flops(self, num_tokens: int) -> Flops:
    """Of the transformer."""

  @abc.abstractmethod
  def text_flops(self) -> float:
    """Of the text encoder for one text."""

  @classmethod
  def of_sizes(
    cls,
    sizes: RandomModelConfig,
    path: pathlib.Path = pathlib.Path(),
    index: Mapping[str, Any] | None = None,
  ) -> Self:
    """A model of some sizes, whose weights need not be there."""
    parts = {part: getattr(sizes, part) for part in CONFIG_FILES}
    return cls(path, cls.random_index if index is None else index, **parts)

  def check_mesh(self, mesh: jax.sharding.Mesh) -> None:
    """Raises UserError where the mesh would cut an attention head in parts."""
    parts = mesh.shape['tensor']
    if self.transformer.num_heads % parts:
      raise UserError(
        f'mesh.tensor is {parts}, which does not divide the '
        f'{self.transformer.num_heads} attention heads; choose another mesh'
      )

  def declare(self, network: str, **options) -> FunctionalModel:
    """One of `NETWORKS`; options go to its constructor."""
    build = self.networks[network].build
    return functional(lambda rngs: build(rngs=rngs, **options))

  def load(
    self, network: str, model: FunctionalModel, shardings, dtype=None
  ) -> Params:
    """Weights straight into sharded arrays, adapters added.

    Args:
      network: one of `NETWORKS`.
      model: its declaration.
      shardings: nested dict like its parameters, or None for one device.
      dtype: of all parameters; None keeps the stored type, but for kernels
        with adapters, which are fp32 then.

    Raises:
      UserError: tensors that the config does not ask for, or lacks.
    """
    if self.adapter is None or network != 'transformer':
      return self._load_stored(network, model, shardings, dtype)
    params = self._load_stored(network, model, shardings, None)
    return self.adapter.merged(params, dtype)

  def _load_stored(
    self, network: str, model: FunctionalModel, shardings, dtype
  ) -> Params:
    folder = self.path / network
    if (folder / PARAMS).is_dir():
      return checkpoints.load_params(
        folder / PARAMS, model.abstract_params, shardings, dtype
      )
    published = self.networks[network]
    return conversion.load(
      published.table,
      model.abstract_params,
      self.tensors(network),
      shardings=shardings,
      dtype=dtype,
      aliases=published.aliases,
      where=str(folder),
    )

  def is_ours(self, network: str) -> bool:
    """Whether its weights are in our form."""
    return (self.path / network / PARAMS).is_dir()

  def tensors(self, network: str) -> dict[str, safetensors_files.LazyTensor]:
    """Published weights by name; nothing but headers is read."""
    return safetensors_files.open_tensors(
      self.path / network, self.networks[network].stem
    )

  def fingerprint(self, part: str) -> str:
    """Hash of a network's weights and config, or of the tokenizer.

    Adapters are part of that of the transformer.
    """
    folder = self.path / part
    if part == TOKENIZER:
      return folder_sha256(folder)
    config = dataclasses.asdict(getattr(self, part))
    parts = [config, self.weights_fingerprint(part)]
    if part == 'transformer' and self.adapter is not None:
      parts.append(self.adapter.fingerprint())
    return json_sha256(parts, sort_keys=True)

  def weights_fingerprint(self, network: str, dtype=None) -> str:
    """Hash of a network's stored weights, the same in both forms.

    That of `safetensors_files.fingerprint`, once tensors that may be stored
    under two names are stored under one.

    Args:
      network: one of `NETWORKS`.
      dtype: that floats are about to be cast to; only for published weights.
    """
    if self.is_ours(network):
      path = self.path / network / FINGERPRINT
      try:
        return path.read_text().strip()
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
  """Makes a family known; a class decorator."""
  _FAMILIES[family.pipeline] = family
  return family


def families() -> tuple[type[VideoModel], ...]:
  """All families, by the name of their pipeline."""
  for module in _MODULES:
    importlib.import_module(module)
  return tuple(_FAMILIES[pipeline] for pipeline in sorted(_FAMILIES))


def of_sizes(sizes: RandomModelConfig, **options) -> VideoModel:
  """`VideoModel.of_sizes` of the family that the sizes belong to."""
  (family,) = (one for one in families() if one.family == sizes.family)
  return family.of_sizes(sizes, **options)


def published_sizes() -> dict[str, RandomModelConfig]:
  """Sizes of the published models of all families by name."""
  known = {}
  for family in families():
    known |= family.published
  return known


def open_model(
  path: str | pathlib.Path, adapter: str | pathlib.Path = ''
) -> VideoModel:
  """Reads the configs of a model's folder, and checks adapters for it.

  Args:
    path: of the folder.
    adapter: see `generator_adapter.open_adapter`; '' for none.

  Raises:
    UserError: not a text-to-video folder of a known family, or not its
      adapters.
  """
  path = pathlib.Path(path).expanduser().resolve()
  if not (path / INDEX).exists() and generator_adapter.holds_adapters(path):
    raise UserError(
      f'{path}: holds LoRA adapters and no model; give it as model.adapter, '
      'and as model.path the model that they are for'
    )
  index = read_json(path / INDEX)
  name = index.get('_class_name')
  by_pipeline = {family.pipeline: family for family in families()}
  if name not in by_pipeline:
    raise UserError(
      f'{path}/{INDEX} is of a {name}, not a {" or ".join(by_pipeline)}; give '
      'the folder of a text-to-video model that is one'
    )
  family = by_pipeline[name]
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
  if not adapter:
    return model
  transformer = model.networks['transformer']
  return dataclasses.replace(
    model,
    adapter=generator_adapter.open_adapter(
      adapter, lambda rngs: transformer.build(rngs=rngs), transformer.table
    ),
  )
