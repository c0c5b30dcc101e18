"""Interface of critics, and the registry of their backbones.

A critic is a vision language model that reads frames of a clip, a caption and a
question, and answers with a label and a rationale. Scoring, critic training and
planning use backbones only through this file and `critic_protocols`, which has
the interfaces of a critic's parts; `docs/extending.md` shows how to add one.

  Backbone        a family of models, registered under the `model_type` of its
                  config.json
  Critic          one model: sizes, weights, shardings, adapters, FLOPs
"""

import abc
from collections.abc import Callable, Mapping, Sequence
import dataclasses
import importlib
import os
import pathlib
from typing import Any, ClassVar, Self

from flax import nnx
import jax
import jax.numpy as jnp

from lift_jax import config_lib, partitioning
from lift_jax.errors import UserError
from lift_jax.models import adapter_files, lora
from lift_jax.models.adapter_config import AdapterConfig
from lift_jax.models.adapters import Adapter, merged, write_peft
from lift_jax.models.critic_protocols import FrameProcessor, Frames, Tokenizer
from lift_jax.models.functional import FunctionalModel, Params, functional
from lift_jax.runtime import distributed, hub, storage
from lift_jax.runtime.files import atomic_folder, check_complete, read_json
from lift_jax.weights import conversion


@dataclasses.dataclass(frozen=True)
class Critic(abc.ABC):
  """A critic: its configs, and the folder with its weights.

  Attributes:
    path: of its folder; unused for a critic without one.
    config: sizes of its networks, a frozen dataclass of the backbone.
    adapters: LoRA adapters to merge into the weights.
    lora_targets: the usual `LoRAConfig.targets` of the family, which are also
      the layers that can be int8.
    tower_targets: the same for its vision tower; empty if `adapter_table` does
      not cover it.
    projector: beginnings of the names of parameters that map features of the
      vision tower to tokens.
  """

  path: pathlib.Path
  config: Any
  adapters: tuple[Adapter, ...] = ()

  lora_targets: ClassVar[tuple[str, ...]]
  tower_targets: ClassVar[tuple[str, ...]] = ()
  projector: ClassVar[tuple[str, ...]] = ()

  @property
  @abc.abstractmethod
  def adapter_table(self) -> conversion.Table:
    """Conversion table of adapters with PEFT's names."""

  @abc.abstractmethod
  def build(self, **options: Any) -> Callable[[nnx.Rngs], nnx.Module]:
    """`build(rngs)` of the `Network`.

    Args:
      **options: `dtype` of the computation, `param_dtype`, `remat` (see
        `models.remat`), `attention_backend` (see `models.attention`).
    """

  def with_frames(self, **settings: Any) -> Self:
    """The critic with other settings of its frames.

    Args:
      **settings: those of `scoring.config.FramesConfig` that are given.

    Raises:
      UserError: the backbone does not have such a setting.
    """
    raise UserError(
      f'frames.{next(iter(settings))}: the frames of this critic cannot be set'
    )

  @property
  @abc.abstractmethod
  def rules(self) -> partitioning.Rules:
    """Sharding rules; every parameter must match one."""

  @abc.abstractmethod
  def check_mesh(self, mesh: jax.sharding.Mesh) -> None:
    """Raises UserError if the mesh does not divide the network."""

  @property
  @abc.abstractmethod
  def frames(self) -> FrameProcessor:
    """The frame processor."""

  @abc.abstractmethod
  def open_tokenizer(self, template: str) -> Tokenizer:
    """Reads the tokenizer of the folder.

    Args:
      template: one of `Backbone.templates`.

    Raises:
      UserError: it does not fit the network or the template.
    """

  @abc.abstractmethod
  def vision_flops(self, frames: Frames) -> float:
    """FLOPs of `encode_frames` on a batch; only its shapes are used."""

  @abc.abstractmethod
  def vision_attention_flops(self, frames: Frames) -> float:
    """The attention part of `vision_flops`."""

  @abc.abstractmethod
  def decoder_flops(self, num_tokens: int, num_logits: int) -> float:
    """FLOPs of a sequence, with logits for `num_logits` of its tokens."""

  @abc.abstractmethod
  def attention_flops(self, num_tokens: int) -> float:
    """The attention part of `decoder_flops`."""

  @property
  @abc.abstractmethod
  def fingerprint(self) -> str:
    """Hash of weights, configs, tokenizer and adapters: 16 hex digits."""

  @abc.abstractmethod
  def load_weights(
    self,
    model: FunctionalModel,
    shardings: Params,
    dtype: Any,
    update: Callable[[str, jax.Array], jax.Array] | None,
  ) -> Params:
    """Loads the weights without the adapters.

    Args:
      model: as in `load`.
      shardings: likewise.
      dtype: of all parameters; None keeps the stored types.
      update: `update(name, array)` is kept in place of each parameter, before
        the next one is read.
    """

  @abc.abstractmethod
  def save_weights(
    self, target: pathlib.Path, params: Params, dtype: str | None
  ) -> None:
    """Writes weights in the published format; every host must call it.

    Args:
      target: the folder of the critic.
      params: of the full network.
      dtype: of the written weights; None keeps that of the parameters.
    """

  @abc.abstractmethod
  def copy_configs(self, target: pathlib.Path, dtype: str) -> None:
    """Copies all files but the weights, whose type in `target` is `dtype`."""

  def load(
    self,
    model: FunctionalModel,
    shardings: Params,
    dtype: Any,
    convert: Callable[[str, jax.Array], Any] | None = None,
    is_fp32: Callable[[str], bool] | None = None,
  ) -> Params:
    """Loads weights into sharded arrays and merges the adapters.

    Args:
      model: the network, without adapters.
      shardings: nested dict like its parameters.
      dtype: of the parameters.
      convert: `convert(name, array)` is kept in place of each, before the next
        one is read; such as `quantization.quantizer`.
      is_fp32: of which parameters, by name, the dtype is float32 instead.

    Raises:
      UserError: unexpected or missing tensors.
    """
    if not self.adapters and is_fp32 is None:
      return self.load_weights(model, shardings, dtype, convert)

    def update(name: str, leaf: jax.Array) -> Any:
      wanted = jnp.float32 if is_fp32 is not None and is_fp32(name) else dtype
      leaf = merged(self.adapters, wanted, name, leaf)
      return leaf if convert is None else convert(name, leaf)

    return self.load_weights(model, shardings, None, update)

  def write(self, target: pathlib.Path, params: Params, dtype: str) -> None:
    """Writes a full critic in the published format; every host must call it.

    The folder is written under a temporary name and replaces `target`.

    Args:
      target: the folder to write; configs and tokenizer are copied from `path`.
      params: of the full network.
      dtype: of the written weights.
    """
    with atomic_folder(target) as partial:
      if distributed.is_primary():
        self.copy_configs(partial, dtype)
      distributed.barrier('configs copied')
      self.save_weights(partial, params, dtype)

  def write_adapter(
    self,
    target: pathlib.Path,
    params: Params,
    config: lora.LoRAConfig,
    dtype: str,
  ) -> None:
    """Writes trained adapters in PEFT's format; every host must call it.

    The folder is written under a temporary name and replaces `target`.
    """
    with atomic_folder(target) as partial:
      write_peft(partial, params, config, self.adapter_table, dtype)


@dataclasses.dataclass(frozen=True)
class Backbone:
  """A family of critics.

  Attributes:
    name: value of `model.random.backbone` in configs.
    model_types: values of `model_type` in config.json.
    templates: prompt templates, the choices of `model.template`.
    default_template: of a folder that names none; the first of `templates` if
      it is None.
    random_config: dataclass of the section `model.random`; a subclass of
      `critic_config.RandomCriticConfig`.
    published: sizes of published models by name, for plans without a folder.
    open: reads the configs of a folder.
    declare: a critic of the given sizes, without files.
    write_draft: `write_draft(folder, config, seed)` writes the files of a
      randomly initialised critic except its weights; config.json has the seed
      as `RANDOM_SEED`.
    folders: of a published model, with its configs, weights and tokenizer, to
      download from the hub; '' is all of it.
  """

  name: str
  model_types: tuple[str, ...]
  templates: tuple[str, ...]
  random_config: type
  published: Mapping[str, Any]
  open: Callable[[pathlib.Path], Critic]
  declare: Callable[[Any], Critic]
  write_draft: Callable[[pathlib.Path, Any, int], None]
  folders: tuple[str, ...] = ('',)
  default_template: Callable[[pathlib.Path], str] | None = None


RANDOM_SEED = '_random_seed'

# What is downloaded first of a critic on the hub.
HUB_FILES = ('config.json', 'prompts.json')

# Modules that define a BACKBONE, imported at the first lookup.
_MODULES = (
  'lift_jax.models.vila.backbone',
  'lift_jax.models.qwen3vl.backbone',
)

_registered: dict[str, Backbone] = {}


def register(backbone: Backbone) -> None:
  """Registers a backbone that is not part of this package."""
  _registered[backbone.name] = backbone


def backbones() -> dict[str, Backbone]:
  """All registered backbones by name."""
  own = [importlib.import_module(module).BACKBONE for module in _MODULES]
  return {backbone.name: backbone for backbone in own} | _registered


def find_backbone(name: str, where: str) -> Backbone:
  """The backbone called `name`; `where` is the config field with the name."""
  known = backbones()
  config_lib.check_choice(where, name, known)
  return known[name]


def backbone_of_folder(path: pathlib.Path) -> Backbone:
  """The backbone for the `model_type` of a folder's config.json.

  Raises:
    UserError: there is no config.json, or no backbone for it.
  """
  file = path / 'config.json'
  kind = read_json(file).get('model_type')
  known = {
    model_type: backbone
    for backbone in backbones().values()
    for model_type in backbone.model_types
  }
  if not isinstance(kind, str) or kind not in known:
    raise UserError(
      f'{file}: model_type is {kind!r}; give the folder of a critic, whose '
      f'model_type is one of {list(known)}'
    )
  return known[kind]


def fetch_critic(text: str | os.PathLike[str], *, weights: bool = True) -> str:
  """The folder of a critic that a user named; one on the hub is downloaded.

  Args:
    text: a path, or an id; see `runtime.hub`.
    weights: False downloads configs only.

  Raises:
    UserError: an id of no such model, or one that cannot be downloaded.
  """
  return hub.model_folder(
    text,
    HUB_FILES,
    lambda folder: backbone_of_folder(folder).folders,
    weights=weights,
  )


def open_critic(
  path: str | pathlib.Path, adapters: Sequence[AdapterConfig] = ()
) -> Critic:
  """Opens a critic's folder and adapters for it; reads no weights.

  Args:
    path: of the folder.
    adapters: to merge into its weights.

  Raises:
    UserError: not a folder of a registered backbone, or adapters that do not
      fit.
  """
  path = storage.resolved(storage.to_path(path))
  check_complete(path)
  critic = backbone_of_folder(path).open(path)
  if not adapters:
    return critic
  sites = adapter_files.sites_of(
    critic.adapter_table, functional(critic.build()).abstract_params, {}
  )
  opened = tuple(adapter_files.open_adapter(one, sites) for one in adapters)
  return dataclasses.replace(critic, adapters=opened)
