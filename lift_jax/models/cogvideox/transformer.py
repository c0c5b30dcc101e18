"""CogVideoX transformer: full attention over text and video tokens.

B batch  F latent frames  N text and video tokens  D width  H heads  K head dim
T time embedding

Text and video tokens, in this order, are a single array in all blocks, so that
it can be sharded along the sequence: where the two differ, `jnp.where` selects
per token.
"""

import functools

from flax import nnx
import jax
import jax.numpy as jnp

from lift_jax.models.attention import attention
from lift_jax.models.cogvideox import positions
from lift_jax.models.cogvideox.config import TransformerConfig
from lift_jax.models.cogvideox.sharding import TOKENS
from lift_jax.models.functional import stack
from lift_jax.models.layer_norm import LayerNorm
from lift_jax.models.linear import Linear
from lift_jax.models.remat import scan_layers
from lift_jax.models.rows import where_rows
from lift_jax.partitioning import BATCH, constrain

QK_NORM_EPS = 1e-6  # not in the published config: fixed in the reference


def timestep_embedding(t_b: jax.Array, width: int) -> jax.Array:
  """[cos(t f_k), sin(t f_k)] with f_k = 10000^(-k / half), fp32 [B, width]."""
  half = width // 2
  rates = jnp.exp(-jnp.log(10_000.0) * jnp.arange(half) / half)
  angles = t_b.astype(jnp.float32)[:, None] * rates[None, :]
  return jnp.concatenate([jnp.cos(angles), jnp.sin(angles)], axis=-1)


class Layers:
  """Constructors of layers with fp32 statistics and otherwise `dtype`."""

  def __init__(self, dtype, param_dtype, rngs: nnx.Rngs):
    self.linear = functools.partial(
      Linear, dtype=dtype, param_dtype=param_dtype, rngs=rngs
    )
    self.norm = functools.partial(
      LayerNorm,
      dtype=dtype,
      param_dtype=param_dtype,
      use_fast_variance=False,
      rngs=rngs,
    )
    self.conv = functools.partial(
      nnx.Conv, dtype=dtype, param_dtype=param_dtype, rngs=rngs
    )


class AdaptiveNorm(nnx.Module):
  """LayerNorm whose shift, scale and gate come from the time embedding.

  The six parts of the projection are shift, scale and gate of the video, then
  the same of the text.
  """

  def __init__(self, config: TransformerConfig, layers: Layers):
    width = config.width
    self.linear = layers.linear(config.time_embed_dim, 6 * width)
    self.norm = layers.norm(width, epsilon=config.norm_eps)

  def __call__(self, x_bnd, time_bt, is_text_n):
    """Returns the modulated tokens and their gates, both [B, N, D]."""
    # Gathered here, as 'tensor' shards the output across all six parts: after
    # the split, each part would be resharded.
    modulation = constrain(self.linear(jax.nn.silu(time_bt)), BATCH)
    parts = jnp.split(modulation[:, None, :], 6, axis=-1)
    shift, scale, gate = (
      where_rows(is_text_n, text, video)
      for video, text in zip(parts[:3], parts[3:], strict=True)
    )
    return self.norm(x_bnd) * (1 + scale) + shift, gate


class Attention(nnx.Module):
  """Full attention over all tokens, with queries and keys normed per head."""

  def __init__(self, config: TransformerConfig, layers: Layers, backend: str):
    width = config.width
    self.to_q = layers.linear(width, width)
    self.to_k = layers.linear(width, width)
    self.to_v = layers.linear(width, width)
    self.to_out = layers.linear(width, width)
    self.norm_q = layers.norm(config.head_dim, epsilon=QK_NORM_EPS)
    self.norm_k = layers.norm(config.head_dim, epsilon=QK_NORM_EPS)
    self.num_heads = config.num_heads
    self.backend = backend

  def __call__(self, x_bnd, rotation):
    batch, tokens, _ = x_bnd.shape
    split = (batch, tokens, self.num_heads, -1)
    q_bnhk = self.norm_q(self.to_q(x_bnd).reshape(split))
    k_bnhk = self.norm_k(self.to_k(x_bnd).reshape(split))
    v_bnhk = self.to_v(x_bnd).reshape(split)
    if rotation is not None:
      q_bnhk, k_bnhk = rotate(q_bnhk, rotation), rotate(k_bnhk, rotation)
    out_bnhk = attention(q_bnhk, k_bnhk, v_bnhk, backend=self.backend)
    out_bnd = out_bnhk.reshape(batch, tokens, -1)
    return self.to_out(out_bnd)


def rotate(x_bnhk, rotation):
  """Rotates each pair (x0, x1) of neighbouring dimensions, in fp32.

  x cos + (-x1, x0) sin, with cosines and sines [N, K].
  """
  cos_nk, sin_nk = (table[None, :, None, :] for table in rotation)
  x = x_bnhk.astype(jnp.float32)
  pairs = x.reshape(*x.shape[:-1], -1, 2)
  rotated = jnp.stack([-pairs[..., 1], pairs[..., 0]], axis=-1)
  rotated = rotated.reshape(x.shape)
  return (x * cos_nk + rotated * sin_nk).astype(x_bnhk.dtype)


class FeedForward(nnx.Module):
  """Linear, GELU (tanh approximation), linear, with four times the width."""

  def __init__(self, config: TransformerConfig, layers: Layers):
    self.up = layers.linear(config.width, 4 * config.width)
    self.down = layers.linear(4 * config.width, config.width)

  def __call__(self, x_bnd):
    return self.down(jax.nn.gelu(self.up(x_bnd), approximate=True))


class Block(nnx.Module):
  """Attention and feed-forward, with norm and gate from the time embedding."""

  def __init__(self, config: TransformerConfig, layers: Layers, backend: str):
    self.norm1 = AdaptiveNorm(config, layers)
    self.attn = Attention(config, layers, backend)
    self.norm2 = AdaptiveNorm(config, layers)
    self.ff = FeedForward(config, layers)

  def __call__(self, x_bnd, time_bt, is_text_n, rotation):
    h_bnd, gate = self.norm1(x_bnd, time_bt, is_text_n)
    x_bnd = constrain(x_bnd + gate * self.attn(h_bnd, rotation), TOKENS)
    h_bnd, gate = self.norm2(x_bnd, time_bt, is_text_n)
    return x_bnd + gate * self.ff(h_bnd)


class TimeEmbedding(nnx.Module):
  """MLP over the sinusoids of a timestep."""

  def __init__(self, config: TransformerConfig, layers: Layers):
    self.linear_1 = layers.linear(config.width, config.time_embed_dim)
    self.linear_2 = layers.linear(config.time_embed_dim, config.time_embed_dim)

  def __call__(self, sinusoids_bd):
    return self.linear_2(jax.nn.silu(self.linear_1(sinusoids_bd)))


class OutputNorm(nnx.Module):
  """LayerNorm with shift and scale from the time embedding."""

  def __init__(self, config: TransformerConfig, layers: Layers):
    self.linear = layers.linear(config.time_embed_dim, 2 * config.width)
    self.norm = layers.norm(config.width, epsilon=config.norm_eps)

  def __call__(self, x_bnd, time_bt):
    modulation = self.linear(jax.nn.silu(time_bt))[:, None, :]
    shift, scale = jnp.split(modulation, 2, axis=-1)
    return self.norm(x_bnd) * (1 + scale) + shift


class Transformer(nnx.Module):
  """Predicts the velocity of noisy latents, given text and timesteps.

  Args:
    config: sizes.
    dtype: type of the computation; parameters keep `param_dtype`.
    remat: a name of `REMAT_POLICIES`.
    attention_backend: see `models.attention`.
  """

  def __init__(
    self,
    config: TransformerConfig,
    *,
    dtype=jnp.float32,
    param_dtype=jnp.float32,
    remat: str = 'none',
    attention_backend: str = 'auto',
    rngs: nnx.Rngs,
  ):
    layers = Layers(dtype, param_dtype, rngs)
    patch = (config.patch_size, config.patch_size)
    self.patch = layers.conv(
      config.in_channels, config.width, patch, strides=patch, padding='VALID'
    )
    self.text_proj = layers.linear(config.text_embed_dim, config.width)
    self.time = TimeEmbedding(config, layers)
    self.blocks = stack(
      lambda rngs: Block(
        config, Layers(dtype, param_dtype, rngs), attention_backend
      ),
      config.num_layers,
      rngs,
    )
    self.norm_final = layers.norm(config.width, epsilon=config.norm_eps)
    self.norm_out = OutputNorm(config, layers)
    self.proj_out = layers.linear(
      config.width, config.out_channels * config.patch_size**2
    )
    self.config = config
    self.dtype = dtype
    self.remat = remat

  def __call__(self, latents_bfhwc, text_bsd, t_b):
    """Velocity [B, F, h, w, C] in the compute type.

    Args:
      latents_bfhwc: noisy scaled latents [B, F, h, w, C]; h and w divisible by
        the patch size.
      text_bsd: text embeddings [B, max_text_length, text_embed_dim].
      t_b: timesteps in [0, 1000), integer or float [B].
    """
    velocity, _ = self._forward(
      latents_bfhwc, text_bsd, t_b, lambda blocks, x_bnd: (blocks(x_bnd), None)
    )
    return velocity

  def cached(self, latents_bfhwc, text_bsd, t_b, is_computed, residual_bnd):
    """The velocity, and what the blocks add to the tokens.

    Args:
      latents_bfhwc: as of `__call__`, like the next two.
      text_bsd: text embeddings.
      t_b: timesteps.
      is_computed: bool []; whether the blocks run. If not, `residual_bnd` is
        added in their place.
      residual_bnd: of an earlier step, or `no_residual`.
    """

    def apply(blocks, x_bnd):
      def compute():
        end_bnd = blocks(x_bnd)
        return end_bnd, constrain(end_bnd - x_bnd, TOKENS)

      def reuse():
        return constrain(x_bnd + residual_bnd, TOKENS), residual_bnd

      return jax.lax.cond(is_computed, compute, reuse)

    return self._forward(latents_bfhwc, text_bsd, t_b, apply)

  def no_residual(self, latents_shape):
    """Zeros [B, N, D] like the residual of latents [B, F, h, w, C]."""
    batch, *grid, _ = latents_shape
    shape = (batch, self.config.num_tokens(*grid), self.config.width)
    return constrain(jnp.zeros(shape, self.dtype), TOKENS)

  def embed_time(self, t_b):
    """Time embedding [B, T] of timesteps."""
    sinusoids = timestep_embedding(t_b, self.config.width)
    return self.time(sinusoids.astype(self.dtype))

  def _forward(self, latents_bfhwc, text_bsd, t_b, apply):
    """The velocity; `apply(blocks, x_bnd)` returns (tokens, anything else)."""
    config = self.config
    batch, frames, height, width, _ = latents_bfhwc.shape
    if text_bsd.shape[1] != config.max_text_length:
      raise ValueError(
        f'expected {config.max_text_length} text tokens, got '
        f'{text_bsd.shape[1]}'
      )
    rows, columns = height // config.patch_size, width // config.patch_size
    table, rotation, is_text_n = self._positions(frames, rows, columns)

    time_bt = self.embed_time(t_b)
    patches = self.patch(latents_bfhwc.reshape(-1, *latents_bfhwc.shape[2:]))
    video_bnd = patches.reshape(batch, -1, config.width)
    if table is not None:
      video_bnd = video_bnd + table.astype(self.dtype)[None]
    x_bnd = jnp.concatenate([self.text_proj(text_bsd), video_bnd], axis=1)

    def blocks(x_bnd):
      return self._run_blocks(x_bnd, time_bt, is_text_n, rotation)

    x_bnd, rest = apply(blocks, constrain(x_bnd, TOKENS))
    x_bnd = self.norm_final(x_bnd[:, config.max_text_length :])
    patches = self.proj_out(self.norm_out(x_bnd, time_bt))
    return self._unpatchify(patches, frames, rows, columns), rest

  def _positions(self, frames: int, rows: int, columns: int):
    """Sin-cos table or rotations, and which tokens are text."""
    config = self.config
    num_text = config.max_text_length
    is_text_n = jnp.arange(num_text + frames * rows * columns) < num_text
    if not config.use_rotary:
      table = positions.sincos_table(
        frames,
        rows,
        columns,
        config.width,
        config.spatial_scale,
        config.temporal_scale,
      )
      return table, None, is_text_n
    cos, sin = positions.rotary_tables(
      frames,
      rows,
      columns,
      config.head_dim,
      config.sample_height // config.patch_size,
      config.sample_width // config.patch_size,
    )
    # Text is not rotated: angle zero.
    pad = ((num_text, 0), (0, 0))
    rotation = (
      jnp.pad(cos, pad, constant_values=1.0),
      jnp.pad(sin, pad, constant_values=0.0),
    )
    return None, rotation, is_text_n

  def _run_blocks(self, x_bnd, time_bt, is_text_n, rotation):
    graphdef, layers = nnx.split(self.blocks)

    def body(x_bnd, layer):
      block = nnx.merge(graphdef, layer)
      x_bnd = block(x_bnd, time_bt, is_text_n, rotation)
      return constrain(x_bnd, TOKENS), None

    return scan_layers(body, x_bnd, layers, self.remat)

  def _unpatchify(self, patches_bnp, frames: int, rows: int, columns: int):
    """[B, N, C * p * p], channels outermost, to [B, F, h, w, C]."""
    p, channels = self.config.patch_size, self.config.out_channels
    x = patches_bnp.reshape(-1, frames, rows, columns, channels, p, p)
    x = x.transpose(0, 1, 2, 5, 3, 6, 4)
    return x.reshape(-1, frames, rows * p, columns * p, channels)
