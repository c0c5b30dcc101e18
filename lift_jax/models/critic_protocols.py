"""What a critic's parts do, whatever its backbone.

  FrameProcessor  from a clip to the arrays that the network takes
  Tokenizer       caption, question and answer to token ids, and back
  Network         the NNX module

Legend: B batch, N prompt tokens, R sequences in a cache (clips x branches), M
new tokens of a sequence, D width, V vocabulary, T frames, H W height and width.
"""

from collections.abc import Sequence
import dataclasses
from typing import Any, Protocol

import jax
import numpy as np

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
