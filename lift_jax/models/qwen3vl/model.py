"""Qwen3-VL: vision tower and Qwen3 decoder.

The tokens of the frames take the place of those in the prompt, and features of
earlier layers of the tower are added to the hidden states at the same
positions. The first token that it predicts after the prompt is the label.

Legend: B clips, N prompt tokens, R sequences in a cache, M new tokens, X tokens
of a clip, D width, A layers that features are added after, K width of a head, V
vocabulary.
"""

from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from lift_jax.models.critic_tokens import last_token
from lift_jax.models.llama.cache import KVCache
from lift_jax.models.llama.decoder import Decoder
from lift_jax.models.qwen3vl.config import MERGE_SIZE, Qwen3VLConfig
from lift_jax.models.qwen3vl.positions import rotary_axes, token_positions
from lift_jax.models.qwen3vl.tower import Tower


class Qwen3VL(nnx.Module):
  """The network of a Qwen3-VL critic; see `critic_protocols.Network`.

  Args:
    config: sizes.
    dtype: type of the computation; parameters keep `param_dtype`.
    remat: a name of `REMAT_POLICIES`.
    attention_backend: see `models.attention`.
  """

  def __init__(
    self,
    config: Qwen3VLConfig,
    *,
    dtype=jnp.float32,
    param_dtype=jnp.float32,
    remat: str = 'none',
    attention_backend: str = 'auto',
    rngs: nnx.Rngs,
  ):
    options: dict[str, Any] = {
      'dtype': dtype,
      'param_dtype': param_dtype,
      'remat': remat,
      'attention_backend': attention_backend,
      'rngs': rngs,
    }
    self.vision_tower = Tower(config.vision_tower, **options)
    self.llm = Decoder(
      config.llm, qk_norm=True, tied_head=config.tied_head, **options
    )
    self.config = config

  def encode_frames(
    self, frames: dict[str, jax.Array]
  ) -> tuple[jax.Array, jax.Array]:
    """Tokens [B, X, D] of frames, and what is added to them [A, B, X, D]."""
    return self.vision_tower(frames['patches'], frames['grid'])

  def __call__(
    self, frames: dict[str, jax.Array], tokens_bn: jax.Array
  ) -> jax.Array:
    """Hidden states [B, N, D] of full sequences, padded on the right.

    Args:
      frames: of the clips, from `QwenFrames`.
      tokens_bn: ids int [B, N].
    """
    x_bnd, added_abnd = self._embed(frames, tokens_bn)
    rotary_bnk = self._rotary(self._positions(frames, tokens_bn))
    return self.llm(x_bnd, rotary_bnk, added_abnd=added_abnd)

  def prefill(
    self,
    frames: dict[str, jax.Array],
    tokens_bn: jax.Array,
    lengths_b: jax.Array,
    *,
    max_length: int,
    num_branches: int = 1,
  ) -> tuple[jax.Array, KVCache]:
    """Processes the shared prefix of the prompts of each clip.

    See `Decoder.prefill`; arguments as in `__call__`.
    """
    x_bnd, added_abnd = self._embed(frames, tokens_bn)
    positions_bn3 = self._positions(frames, tokens_bn)
    # Text continues after the largest position, which is not always the last.
    largest_bn1 = jax.lax.cummax(positions_bn3.max(-1, keepdims=True), axis=1)
    return self.llm.prefill(
      x_bnd,
      lengths_b,
      max_length=max_length,
      num_branches=num_branches,
      positions=self._rotary(positions_bn3),
      next_position_b=last_token(largest_bn1, lengths_b)[:, 0] + 1,
      added_abnd=added_abnd,
    )

  def extend(
    self, tokens_rm: jax.Array, lengths_r: jax.Array, cache: KVCache
  ) -> tuple[jax.Array, KVCache]:
    """Appends text, without tokens of frames; see `Decoder.extend`."""
    return self.llm.extend(self.llm.embed(tokens_rm), lengths_r, cache)

  def logits(self, x: jax.Array) -> jax.Array:
    """Logits, fp32 [..., V], of hidden states [..., D]."""
    return self.llm.logits(x)

  def _is_video(self, tokens_bn: jax.Array) -> jax.Array:
    return tokens_bn == self.config.video_token_id

  def _embed(
    self, frames: dict[str, jax.Array], tokens_bn: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """Embeddings [B, N, D], and what is added to hidden states [A, B, N, D].

    The k-th video token of a prompt is the k-th token of its clip.
    """
    video_bxd, added_abxd = self.encode_frames(frames)
    is_video_bn = self._is_video(tokens_bn)
    index_bn = jnp.cumsum(is_video_bn, axis=1) - 1
    index_bn1 = jnp.clip(index_bn, 0, video_bxd.shape[1] - 1)[:, :, None]

    def at_tokens(x_bxd, text_bnd):
      x_bnd = jnp.take_along_axis(x_bxd, index_bn1, axis=1)
      return jnp.where(is_video_bn[:, :, None], x_bnd, text_bnd)

    text_bnd = self.llm.embed(tokens_bn)
    added_abnd = jax.vmap(lambda x_bxd: at_tokens(x_bxd, 0))(added_abxd)
    return at_tokens(video_bxd, text_bnd), added_abnd

  def _positions(
    self, frames: dict[str, jax.Array], tokens_bn: jax.Array
  ) -> jax.Array:
    """Time, row and column, int32 [B, N, 3]."""
    num_pairs = frames['patches'].shape[1]
    grid_b12 = frames['grid'][:, None] // MERGE_SIZE
    grid_bp2 = jnp.repeat(grid_b12, num_pairs, axis=1)
    return token_positions(self._is_video(tokens_bn), grid_bp2)

  def _rotary(self, positions_bn3: jax.Array) -> jax.Array:
    """The position that turns each rotary pair of a head: [B, N, K / 2]."""
    return positions_bn3[:, :, rotary_axes(self.config.rope_sections)]
