"""Interface of critics, and the registry of their backbones.

A critic is a vision language model that reads frames of a clip, a caption and a
question, and answers with a label and a rationale. Scoring, critic training and
planning use backbones only through this file; `docs/extending.md` shows how to
add one.

  Backbone        a family of models, registered under the `model_type` of its
                  config.json
  Critic          one model: sizes, weights, shardings, adapters, FLOPs
  Network         its NNX module
  FrameProcessor  from a clip to the arrays that the network takes
  Tokenizer       caption, question and answer to token ids, and back

Legend: B batch, N prompt tokens, R sequences in a cache (clips x branches), M
new tokens of a sequence, D width, V vocabulary, T frames, H W height and width.
"""

import abc
from collections.abc import Callable, Mapping, Sequence
import dataclasses
import functools
import importlib
import os
import pathlib
from typing import Any, ClassVar, Protocol

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from lift_jax import config_lib, partitioning
from lift_jax.errors import UserError
from lift_jax.models import adapter_files, lora
from lift_jax.models.adapter_config import AdapterConfig
from lift_jax.models.adapters import Adapter, merged, write_peft
from lift_jax.models.functional import FunctionalModel, Params, functional
from lift_jax.runtime import distributed, hub, storage
from lift_jax.runtime.files import atomic_folder, check_complete, read_json
from lift_jax.weights import conversion

# An answer begins with one of these, unless the critic was trained with others.
LABELS = ('Good', 'Normal', 'Bad')

# A pytree of arrays that the backbone defines: for one clip as a
# `FrameProcessor` returns it, for the network with a leading batch axis.
Frames = Any


class ClipMetadata(Protocol):
  """A clip without its pixels: `data.video.ClipInfo`."""

  @property
  def num_frames(self) -> int: ...

  @property
  def fps(self) -> float: ...

  @property
  def height(self) -> int: ...

  @property
  def width(self) -> int: ...


@dataclasses.dataclass(frozen=True)
class FrameSelection:
  """The frames of a clip that a critic reads.

  Backbones may subclass it with what else their tokenizer and network need,
  such as a patch grid or timestamps.

  Attributes:
    indices: frame indices, ascending.
    num_positions: token positions reserved for the frames, at least as many as
      they take.
    is_short: whether the clip has fewer frames than the critic usually takes.
  """

  indices: tuple[int, ...]
  num_positions: int
  is_short: bool

  @property
  def shape(self) -> tuple[int, ...]:
    """What decides the shapes of a clip's arrays, and `num_positions`.

    Clips of the same shape share batches; each distinct one compiles another
    program.
    """
    return (self.num_positions,)


class FrameProcessor(Protocol):
  """Selects and preprocesses frames; needs configs only, no weights."""

  def select(self, clip: ClipMetadata) -> FrameSelection:
    """Selects frames of a clip, which has at least one."""

  def preprocess(self, frames_thw3: np.ndarray, selection: Any) -> Frames:
    """Arrays of one clip from its selected frames, uint8 [T, H, W, 3].

    `selection` is from `select`, and so are those that the tokenizer takes.
    """

  def shapes(self, selection: Any) -> Frames:
    """The result of `preprocess` as `jax.ShapeDtypeStruct`s."""


class Tokenizer(Protocol):
  """Tokenizes prompts and answers in the format the critic was trained on.

  Prompts about the same clip should differ as late as possible, as their shared
  prefix is computed once.

  Attributes:
    pad_id: padding token.
    stop_ids: tokens that end an answer; training uses the first.
    max_length: tokens in a sequence at most, frames included.
  """

  pad_id: int
  stop_ids: tuple[int, ...]
  max_length: int

  def inference(
    self,
    caption: str,
    question: str,
    frames: Any,
    *,
    space_before_caption: bool = False,
    where: str = '',
  ) -> list[int]:
    """Token ids of a prompt, up to the start of the answer.

    Args:
      caption: prompt of the video.
      question: appended to the caption; begins with a space.
      frames: selected frames of the video.
      space_before_caption: whether to put a space before the caption.
      where: name of the record in errors.

    Raises:
      UserError: a text contains a special token, or the prompt is too long.
    """

  def training(
    self,
    caption: str,
    question: str,
    frames: Any,
    answer: str,
    *,
    space_before_caption: bool = True,
    where: str = '',
  ) -> tuple[list[int], list[bool]]:
    """Token ids of a prompt with its answer and stop token, and loss mask.

    Raises:
      UserError: as `inference`, or an answer that cannot be trained on.
    """

  def answer_ids(self, answer: str) -> list[int]:
    """Token ids of an answer as they follow a prompt, without stop token."""

  def decode(self, ids: Sequence[int]) -> str:
    """The text of an answer, up to the first stop token if there is one."""


class Network(Protocol):
  """The module that `Critic.build` makes; inputs are padded on the right."""

  def encode_frames(self, frames: Frames) -> Any:
    """Embeddings of the frames for the language model."""

  def __call__(self, frames: Frames, tokens_bn: jax.Array) -> jax.Array:
    """Hidden states [B, N, D] of full sequences, for training."""

  def prefill(
    self,
    frames: Frames,
    tokens_bn: jax.Array,
    lengths_b: jax.Array,
    *,
    max_length: int,
    num_branches: int = 1,
  ) -> tuple[jax.Array, Any]:
    """Processes prefixes and makes a cache with branches for each of them.

    Args:
      frames: of the clips.
      tokens_bn: int [B, N].
      lengths_b: int [B], tokens of each prefix.
      max_length: tokens of a prefix and one branch at most.
      num_branches: continuations of each prefix.

    Returns:
      Hidden states [B, N, D], and the cache: a pytree with room for
      `max_length - N` more tokens in each of the R = B x `num_branches`
      sequences.
    """

  def extend(
    self, tokens_rm: jax.Array, lengths_r: jax.Array, cache: Any
  ) -> tuple[jax.Array, Any]:
    """Appends tokens, int [R, M]: hidden states [R, M, D] and the new cache.

    Branches of a prefix are adjacent. A sequence with length 0 is unchanged.
    """

  def logits(self, x: jax.Array) -> jax.Array:
    """Logits, fp32 [..., V], of hidden states [..., D]."""


@dataclasses.dataclass(frozen=True)
class Critic(abc.ABC):
  """A critic: its configs, and the folder with its weights.

  Attributes:
    path: of its folder; unused for a critic without one.
    config: sizes of its networks, a frozen dataclass of the backbone.
    adapters: LoRA adapters to merge into the weights.
    adapter_table: conversion table of adapters with PEFT's names.
    lora_targets: the usual `LoRAConfig.targets` of the family.
  """

  path: pathlib.Path
  config: Any
  adapters: tuple[Adapter, ...] = ()

  adapter_table: ClassVar[conversion.Table]
  lora_targets: ClassVar[tuple[str, ...]]

  @abc.abstractmethod
  def build(self, **options: Any) -> Callable[[nnx.Rngs], nnx.Module]:
    """`build(rngs)` of the `Network`.

    Args:
      **options: `dtype` of the computation, `param_dtype`, `remat` (see
        `models.remat`), `attention_backend` (see `models.attention`).
    """

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
    self, model: FunctionalModel, shardings: Params, dtype: Any
  ) -> Params:
    """Loads weights into sharded arrays and merges the adapters.

    Args:
      model: the network, without adapters.
      shardings: nested dict like its parameters.
      dtype: of all parameters.

    Raises:
      UserError: unexpected or missing tensors.
    """
    if not self.adapters:
      return self.load_weights(model, shardings, dtype, None)
    update = functools.partial(merged, self.adapters, dtype)
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


def label_tokens(
  tokenizer: Tokenizer, labels: Sequence[str] = LABELS
) -> dict[str, list[int]]:
  """Token ids of each label at the start of an answer.

  Raises:
    UserError: the tokens of a label depend on the full stop after it.
  """
  tokens = {}
  for label in labels:
    alone, ended = map(tokenizer.answer_ids, (label, f'{label}.'))
    if ended[: len(alone)] != alone:
      raise UserError(
        f'the tokenizer encodes the answer {label!r} and the start of '
        f'{label + "."!r} differently; use one that separates words from full '
        'stops, such as that of Llama'
      )
    tokens[label] = alone
  return tokens


def label_ids(
  tokenizer: Tokenizer, labels: Sequence[str] = LABELS
) -> dict[str, int]:
  """The first token of an answer with each label.

  Raises:
    UserError: two labels have the same first token, so that the first token of
      an answer does not determine its label; or as in `label_tokens`.
  """
  first = {
    label: tokens[0]
    for label, tokens in label_tokens(tokenizer, labels).items()
  }
  if len(set(first.values())) < len(first):
    raise UserError(
      f'the first tokens of the labels, {first}, are not distinct; use a '
      'tokenizer with a larger vocabulary, or other labels'
    )
  return first


def shared_prefix(prompts: Sequence[Sequence[int]]) -> int:
  """Length of the longest common prefix of the prompts of one video.

  The decoder computes it once. It excludes at least the last token of each
  prompt, which predicts the answer.

  Args:
    prompts: token ids of one or more prompts, none of them empty.
  """
  for index, column in enumerate(zip(*prompts, strict=False)):
    if len(set(column)) > 1:
      return index
  return min(map(len, prompts)) - 1


def last_token(
  x_bnd: jax.Array, lengths_b: jax.Array | np.ndarray
) -> jax.Array:
  """[B, D]: the last of the first `lengths_b` >= 1 tokens of each sequence."""
  return jnp.take_along_axis(x_bnd, lengths_b[:, None, None] - 1, axis=1)[:, 0]


def questions_path() -> pathlib.Path:
  """Path of the questions that critics of this project are trained on.

  Released critics know only the questions that they were trained on, which are
  in a file of their own.
  """
  return pathlib.Path(__file__).with_name('questions.json')
