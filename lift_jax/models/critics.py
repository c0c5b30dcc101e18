"""What a vision language model must offer to serve as a critic.

A critic reads frames of a clip, a caption and a question, and answers with a
label and a reason. Scoring, critic training and planning see a backbone only
through this file; `docs/extending.md` shows how to add one.

  Backbone        a family of models, registered under the `model_type` of its
                  config.json
  Critic          one model of it: sizes, weights, layout, adapters, FLOPs
  Network         what runs on the devices
  FrameProcessor  a clip to the arrays that the network takes
  Tokenizer       caption, question and answer to token ids, and back

Legend: B batch, N tokens of a prompt, R rows of a cache (clips x branches), M
new tokens of a row, D width, V vocabulary, T frames, H W height and width.
"""

import abc
from collections.abc import Callable, Mapping, Sequence
import dataclasses
import importlib
import pathlib
from typing import Any, ClassVar, Protocol

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from lift_jax import config_lib, partitioning
from lift_jax.errors import UserError
from lift_jax.models import adapters, lora
from lift_jax.models.functional import FunctionalModel, Params
from lift_jax.runtime import distributed
from lift_jax.runtime.files import atomic_folder, read_json
from lift_jax.weights import conversion

# An answer begins with one of these.
LABELS = ('Good', 'Normal', 'Bad')

# A pytree of arrays that the backbone defines: for one clip as a
# `FrameProcessor` returns it, for the network with a leading batch axis.
Frames = Any


class ClipInfo(Protocol):
  """What is known of a clip before it is decoded; see `data.video.ClipInfo`."""

  num_frames: int
  fps: float
  height: int
  width: int


@dataclasses.dataclass(frozen=True)
class FrameSelection:
  """Which frames of a clip a critic sees, and the room that they take.

  Backbones may subclass it with what their tokenizer and network need beside,
  such as the grid of patches or timestamps.

  Attributes:
    indices: of the frames, ascending.
    num_positions: token positions reserved for the frames, at least as many as
      they take. The arrays of clips with the same number have the same shapes,
      so that they share batches; each number is compiled on its own.
    is_short: whether the clip has fewer frames than the critic takes of others.
  """

  indices: tuple[int, ...]
  num_positions: int
  is_short: bool


class FrameProcessor(Protocol):
  """Chooses and prepares frames; no more than the configs are needed."""

  def select(self, clip: ClipInfo) -> FrameSelection:
    """The frames of a clip that has at least one."""

  def preprocess(
    self, frames_thw3: np.ndarray, selection: FrameSelection
  ) -> Frames:
    """Arrays of one clip, from its selected frames, uint8 [T, H, W, 3]."""

  def shapes(self, selection: FrameSelection) -> Frames:
    """`jax.ShapeDtypeStruct` in the place of the arrays of `preprocess`."""


class Tokenizer(Protocol):
  """Token ids of prompts and answers, as this critic was trained on them.

  Questions about a clip should differ as late in the prompt as possible: what
  they have in common is read once.

  Attributes:
    pad_id: fills up batches.
    stop_ids: any of these ends an answer; training teaches the first.
    max_length: tokens that a sequence may have, frames included.
  """

  pad_id: int
  stop_ids: tuple[int, ...]
  max_length: int

  def inference(
    self,
    caption: str,
    question: str,
    frames: FrameSelection,
    *,
    space_before_caption: bool = False,
    where: str = '',
  ) -> list[int]:
    """Ids of a prompt, up to where the answer begins.

    Args:
      caption: what the video should show.
      question: appended to it; begins with a space.
      frames: of the video.
      space_before_caption: whether the caption is preceded by a space.
      where: names the record in errors.

    Raises:
      UserError: a text that holds a special token, or too many tokens.
    """

  def training(
    self,
    caption: str,
    question: str,
    frames: FrameSelection,
    answer: str,
    *,
    space_before_caption: bool = True,
    where: str = '',
  ) -> tuple[list[int], list[bool]]:
    """Ids of a prompt, its answer and its end; True for what is learned.

    Raises:
      UserError: as `inference`, or an answer that cannot be learned.
    """

  def answer_ids(self, answer: str) -> list[int]:
    """Ids of an answer as they follow a prompt, without its end."""

  def decode(self, ids: Sequence[int]) -> str:
    """The text of an answer, up to the first of `stop_ids` if it has one."""


class Network(Protocol):
  """The module that `Critic.build` makes; inputs are padded on the right."""

  def encode_frames(self, frames: Frames) -> Any:
    """What the language model reads in the place of frames."""

  def __call__(self, frames: Frames, tokens_bn: jax.Array) -> jax.Array:
    """Hidden states [B, N, D] of whole sequences, for training."""

  def prefill(
    self,
    frames: Frames,
    tokens_bn: jax.Array,
    lengths_b: jax.Array,
    *,
    max_length: int,
    num_branches: int = 1,
  ) -> tuple[jax.Array, Any]:
    """Reads prefixes, each of which may go on in several branches.

    Args:
      frames: of the clips.
      tokens_bn: int [B, N].
      lengths_b: int [B], tokens of each prefix.
      max_length: of a prefix and one of its branches.
      num_branches: ways in which each prefix goes on.

    Returns:
      Hidden states [B, N, D], and the cache: a pytree with room for
      `max_length - N` tokens in each of the R = B x `num_branches` rows.
    """

  def extend(
    self, tokens_rm: jax.Array, lengths_r: jax.Array, cache: Any
  ) -> tuple[jax.Array, Any]:
    """Reads more text, int [R, M]: hidden states [R, M, D], and the cache.

    Rows of a prefix are adjacent. A row of length 0 stays as it is.
    """

  def logits(self, x: jax.Array) -> jax.Array:
    """Logits, fp32 [..., V], of hidden states [..., D]."""


@dataclasses.dataclass(frozen=True)
class Critic(abc.ABC):
  """A critic whose configs are read and whose weights are not.

  Attributes:
    path: of its folder; without meaning where only its sizes are known.
    config: sizes of its networks, a frozen dataclass of the backbone.
    adapter: LoRA adapters that are added into the weights; None for none.
    adapter_table: PEFT's names of all the adapters that can be published.
    lora_targets: `LoRAConfig.targets` that the family is usually trained with.
  """

  path: pathlib.Path
  config: Any
  adapter: adapters.AdapterFile | None

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
    """Layout of the parameters on a mesh, total."""

  @abc.abstractmethod
  def check_mesh(self, mesh: jax.sharding.Mesh) -> None:
    """Raises UserError where the mesh does not divide the network."""

  @property
  @abc.abstractmethod
  def frames(self) -> FrameProcessor:
    """Chooses and prepares frames."""

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
    """FLOPs of `encode_frames` on a batch, of which only shapes are read."""

  @abc.abstractmethod
  def decoder_flops(self, num_tokens: int, num_logits: int) -> float:
    """FLOPs of reading a sequence, and of the logits of some of its tokens."""

  @abc.abstractmethod
  def attention_flops(self, num_tokens: int) -> float:
    """The part of `decoder_flops` that is attention."""

  @property
  @abc.abstractmethod
  def fingerprint(self) -> str:
    """Hash of weights, configs, tokenizer and adapter: 16 hex digits."""

  @abc.abstractmethod
  def load_weights(
    self, model: FunctionalModel, shardings: Params, dtype: Any
  ) -> Params:
    """Parameters of the folder, without the adapter; arguments as `load`."""

  @abc.abstractmethod
  def save_weights(
    self, target: pathlib.Path, params: Params, dtype: str | None
  ) -> None:
    """Writes published weights, `dtype` None as they are; all hosts call it."""

  @abc.abstractmethod
  def copy_configs(self, target: pathlib.Path, dtype: str) -> None:
    """Copies all but the weights, whose type in `target` is `dtype`."""

  def load(
    self, model: FunctionalModel, shardings: Params, dtype: Any
  ) -> Params:
    """Weights straight into sharded arrays, the adapter added.

    Args:
      model: its declaration, without adapters.
      shardings: nested dict like its parameters.
      dtype: of all parameters.

    Raises:
      UserError: tensors that the config does not ask for, or lacks.
    """
    params = self.load_weights(model, shardings, dtype)
    if self.adapter is None:
      return params
    mesh = jax.tree.leaves(shardings)[0].mesh
    where = str(self.adapter.path)
    tensors, table = self.adapter.tensors, self.adapter_table
    config = adapters.config_of(tensors, table, self.adapter.alpha, where)
    added = adapters.load(self.build(), config, table, tensors, mesh, where)
    return adapters.merge(params, added, config.scale)

  def write(self, target: pathlib.Path, params: Params, dtype: str) -> None:
    """Writes a whole critic in the published layout; every host must call it.

    The folder is written beside and renamed; one that is there is replaced.

    Args:
      target: the folder to write; configs and tokenizer are copied from `path`.
      params: of the whole network.
      dtype: of what is written.
    """
    with atomic_folder(target) as partial:
      if distributed.is_primary():
        self.copy_configs(partial, dtype)
      distributed.barrier('configs are copied')
      self.save_weights(partial, params, dtype)

  def write_adapter(
    self,
    target: pathlib.Path,
    params: Params,
    config: lora.LoRAConfig,
    dtype: str,
  ) -> None:
    """Writes trained adapters alone, under PEFT's names.

    Every host must call it; the folder is written beside and renamed.
    """
    with atomic_folder(target) as partial:
      adapters.write_peft(partial, params, config, self.adapter_table, dtype)


@dataclasses.dataclass(frozen=True)
class Backbone:
  """A family of critics.

  Attributes:
    name: in configs, as `model.random.backbone`.
    model_types: of config.json in its folders.
    templates: forms of the prompt that `model.template` may name.
    random_config: dataclass of the section `model.random`, see
      `critic_config.RandomCriticConfig`.
    published: sizes of published models by name, for plans without a folder.
    open: reads the configs of a folder.
    declare: a critic of these sizes, of which there are no files.
    write_draft: `write_draft(folder, config, seed)` writes what a randomly
      initialised critic has beside its weights; config.json keeps the seed as
      `RANDOM_SEED`.
  """

  name: str
  model_types: tuple[str, ...]
  templates: tuple[str, ...]
  random_config: type
  published: Mapping[str, Any]
  open: Callable[[pathlib.Path, adapters.AdapterFile | None], Critic]
  declare: Callable[[Any], Critic]
  write_draft: Callable[[pathlib.Path, Any, int], None]


RANDOM_SEED = '_random_seed'

# Modules with a BACKBONE, imported when one is looked for.
_MODULES = ('lift_jax.models.vila.backbone',)

_registered: dict[str, Backbone] = {}


def register(backbone: Backbone) -> None:
  """Makes a backbone known that is not one of the package's own."""
  _registered[backbone.name] = backbone


def backbones() -> dict[str, Backbone]:
  """All that are known, by name."""
  own = [importlib.import_module(module).BACKBONE for module in _MODULES]
  return {backbone.name: backbone for backbone in own} | _registered


def find_backbone(name: str, where: str) -> Backbone:
  """The backbone of this name; `where` is the setting that names it."""
  known = backbones()
  config_lib.check_choice(where, name, known)
  return known[name]


def backbone_of_folder(path: pathlib.Path) -> Backbone:
  """The backbone that a folder's config.json names.

  Raises:
    UserError: there is no config.json, or it names another kind of model.
  """
  file = path / 'config.json'
  kind = read_json(file).get('model_type')
  known = {
    model_type: backbone
    for backbone in backbones().values()
    for model_type in backbone.model_types
  }
  if kind not in known:
    raise UserError(
      f'{file}: model_type is {kind!r}; give the folder of a critic, which '
      f'says one of {list(known)}'
    )
  return known[kind]


def open_critic(
  path: str | pathlib.Path, adapter: str | pathlib.Path = ''
) -> Critic:
  """Reads the configs of a critic's folder, and of adapters for it.

  Args:
    path: of the folder.
    adapter: of a PEFT folder; '' for none.

  Raises:
    UserError: not a folder of a known backbone, or not adapters.
  """
  path = pathlib.Path(path).expanduser().resolve()
  return backbone_of_folder(path).open(
    path, adapters.open_peft(adapter) if adapter else None
  )


def label_tokens(tokenizer: Tokenizer) -> dict[str, list[int]]:
  """The tokens of each label, at the start of an answer.

  Raises:
    UserError: the tokens of a label depend on the full stop after it.
  """
  tokens = {}
  for label in LABELS:
    alone, ended = map(tokenizer.answer_ids, (label, f'{label}.'))
    if ended[: len(alone)] != alone:
      raise UserError(
        f'the tokenizer reads the answer {label!r} and the start of '
        f'{label + "."!r} differently; use one that keeps words and full stops '
        'apart, as that of Llama'
      )
    tokens[label] = alone
  return tokens


def label_ids(tokenizer: Tokenizer) -> dict[str, int]:
  """The token that an answer with each label begins with.

  Raises:
    UserError: two labels begin with the same token, so that the first token of
      an answer does not tell them apart; or as `label_tokens`.
  """
  first = {
    label: tokens[0] for label, tokens in label_tokens(tokenizer).items()
  }
  if len(set(first.values())) < len(first):
    raise UserError(
      f'the labels begin with tokens {first}, of which some are equal; use a '
      'tokenizer that knows more words'
    )
  return first


def shared_prefix(prompts: Sequence[Sequence[int]]) -> int:
  """How many first tokens the prompts of one video have in common.

  What a decoder computes for these it computes once. At least the last token
  of each prompt is left, as it is the one that predicts an answer.

  Args:
    prompts: token ids of one or more prompts, none of them empty.
  """
  for index, column in enumerate(zip(*prompts, strict=False)):
    if len(set(column)) > 1:
      return index
  return min(map(len, prompts)) - 1


def last_token(x_bnd: jax.Array, lengths_b: jax.Array) -> jax.Array:
  """[B, D]: of each row the last of its `lengths_b` tokens, at least one."""
  return jnp.take_along_axis(x_bnd, lengths_b[:, None, None] - 1, axis=1)[:, 0]


def questions_path() -> pathlib.Path:
  """The questions that critics of our own are trained on, a prompt JSON.

  They are worded for this project. A released critic knows the questions it
  was trained on and no others: those come from a file of their own.
  """
  return pathlib.Path(__file__).with_name('questions.json')
