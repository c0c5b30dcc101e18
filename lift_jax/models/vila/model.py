"""VILA-1.5: vision tower, projector and Llama decoder.

The vision tower encodes each frame as patches, the projector maps these to
fewer tokens, and the decoder takes them in place of the prompt's image tokens.
The first token that it predicts after the prompt is the label.

Legend: B batch, T frames of a clip, H W their height and width, N prompt
tokens, R sequences in a cache, M new tokens, X image tokens of a clip, D width,
V vocabulary.
"""

import types
from typing import Any

from flax import nnx
import jax
import jax.numpy as jnp

from lift_jax.models.internvit import tower as internvit
from lift_jax.models.internvit.config import InternViTConfig
from lift_jax.models.llama.cache import KVCache
from lift_jax.models.llama.decoder import Decoder
from lift_jax.models.siglip import tower as siglip
from lift_jax.models.siglip.config import SiglipConfig
from lift_jax.models.vila.config import VilaConfig
from lift_jax.models.vila.projector import Projector
from lift_jax.models.vila.tokenizer import IMAGE_TOKEN

_TOWERS: dict[type, types.ModuleType] = {
  SiglipConfig: siglip,
  InternViTConfig: internvit,
}


class Vila(nnx.Module):
  """The network of a VILA critic; see `critic_protocols.Network`.

  Args:
    config: sizes.
    dtype: type of the computation; parameters keep `param_dtype`.
    remat: a name of `REMAT_POLICIES`.
    attention_backend: see `models.attention`.
  """

  def __init__(
    self,
    config: VilaConfig,
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
      'rngs': rngs,
    }
    blocks = options | {'remat': remat, 'attention_backend': attention_backend}
    self.vision_tower = _TOWERS[type(config.vision_tower)].Tower(
      config.vision_tower, **blocks
    )
    self.projector = Projector(config.projector, **options)
    self.llm = Decoder(config.llm, **blocks)
    self.config = config

  def encode_frames(self, frames_bthw3: jax.Array) -> jax.Array:
    """Image tokens [B, X, D] of frames uint8 [B, T, H, W, 3], in frame order.

    H and W are the tower's `image_size`.
    """
    batch, num_frames = frames_bthw3.shape[:2]
    frames = frames_bthw3.reshape(-1, *frames_bthw3.shape[2:])
    normalise = _TOWERS[type(self.config.vision_tower)].normalise
    patches = self.vision_tower(normalise(frames))
    tokens = self.projector(patches)
    return tokens.reshape(batch, num_frames * tokens.shape[1], -1)

  def embed(self, tokens_bn: jax.Array, image_bxd: jax.Array) -> jax.Array:
    """Embeddings [B, N, D] of ids int [B, N].

    The k-th `IMAGE_TOKEN` of a prompt is replaced by the k-th image token of
    its clip; a prompt may have fewer of them than its clip.
    """
    is_image_bn = tokens_bn == IMAGE_TOKEN
    text_bnd = self.llm.embed(jnp.where(is_image_bn, 0, tokens_bn))
    index_bn = jnp.cumsum(is_image_bn, axis=1) - 1
    index_bn = jnp.clip(index_bn, 0, image_bxd.shape[1] - 1)
    image_bnd = jnp.take_along_axis(image_bxd, index_bn[:, :, None], axis=1)
    return jnp.where(is_image_bn[:, :, None], image_bnd, text_bnd)

  def __call__(
    self, frames_bthw3: jax.Array, tokens_bn: jax.Array
  ) -> jax.Array:
    """Hidden states [B, N, D] of full sequences, padded on the right.

    Args:
      frames_bthw3: uint8 [B, T, H, W, 3]; padding frames may have any content.
      tokens_bn: ids int [B, N].
    """
    x_bnd = self.embed(tokens_bn, self.encode_frames(frames_bthw3))
    positions_n = jnp.arange(tokens_bn.shape[1], dtype=jnp.int32)
    positions_bn = jnp.broadcast_to(positions_n[None], tokens_bn.shape)
    return self.llm(x_bnd, positions_bn)

  def prefill(
    self,
    frames_bthw3: jax.Array,
    tokens_bn: jax.Array,
    lengths_b: jax.Array,
    *,
    max_length: int,
    num_branches: int = 1,
  ) -> tuple[jax.Array, KVCache]:
    """Processes the shared prefix of the prompts of each clip.

    See `Decoder.prefill`; arguments as in `__call__`.
    """
    x_bnd = self.embed(tokens_bn, self.encode_frames(frames_bthw3))
    return self.llm.prefill(
      x_bnd, lengths_b, max_length=max_length, num_branches=num_branches
    )

  def extend(
    self, tokens_rm: jax.Array, lengths_r: jax.Array, cache: KVCache
  ) -> tuple[jax.Array, KVCache]:
    """Appends text, without image tokens; see `Decoder.extend`."""
    return self.llm.extend(self.llm.embed(tokens_rm), lengths_r, cache)

  def logits(self, x: jax.Array) -> jax.Array:
    """Logits, fp32 [..., V], of hidden states [..., D]."""
    return self.llm.logits(x)
