"""Vision tower of Qwen3-VL, for frames of any size.

  x <- x + Attention(norm(x))
  x <- x + gelu(norm(x) W_up) W_down

A patch covers two frames; patches attend to those of the same two frames.
Learned positions of a square grid are interpolated to the grid of the frames,
and queries and keys turn by row and column. Blocks of 2 x 2 patches become a
token of the language model, and so do their hidden states after some of the
layers (DeepStack, arXiv 2406.04334).

Legend: B clips, P pairs of frames, N patches of a pair, X pixel values of a
patch, D width, M tokens of a pair, N / 4, F token width, L layers, A layers
after which features are taken, K width of a head.
"""

import functools
import math

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from lift_jax.models import vision
from lift_jax.models.functional import stack
from lift_jax.models.linear import Linear
from lift_jax.models.qwen3vl.config import (
  MERGE_SIZE,
  PATCH_FRAMES,
  PATCH_SIZE,
  QwenTowerConfig,
)
from lift_jax.models.qwen3vl.positions import patch_positions
from lift_jax.models.remat import scan_layers
from lift_jax.models.rotary import rotary_rates, rotary_tables
from lift_jax.partitioning import constrain

NORM_EPS = 1e-6
ROPE_THETA = 10_000.0
# Of learned positions: initializer_range of the published configs.
INIT_STDDEV = 0.02

# Block of 2 x 2 patches.
_BLOCK = MERGE_SIZE**2


def _norm(width: int, dtype, param_dtype, rngs: nnx.Rngs) -> nnx.LayerNorm:
  return nnx.LayerNorm(
    width,
    epsilon=NORM_EPS,
    use_fast_variance=False,
    dtype=dtype,
    param_dtype=param_dtype,
    rngs=rngs,
  )


class PatchEmbedding(nnx.Module):
  """A convolution whose stride is its size, as one matrix product."""

  def __init__(self, width: int, dtype, param_dtype, rngs: nnx.Rngs):
    shape = (PATCH_FRAMES, PATCH_SIZE, PATCH_SIZE, 3, width)
    init = nnx.initializers.lecun_normal()
    self.kernel = nnx.Param(init(rngs.params(), shape, param_dtype))
    self.bias = nnx.Param(jnp.zeros(width, param_dtype))
    self.dtype = dtype

  def __call__(self, pixels_bpnx: jax.Array) -> jax.Array:
    kernel_xd = self.kernel[...].reshape(-1, self.kernel.shape[-1])
    bias_111d = self.bias[...].reshape(1, 1, 1, -1)
    x_bpnd = pixels_bpnx.astype(self.dtype) @ kernel_xd.astype(self.dtype)
    return x_bpnd + bias_111d.astype(self.dtype)


class Attention(nnx.Module):
  """Every patch attends to all patches of its pair of frames."""

  def __init__(
    self,
    config: QwenTowerConfig,
    backend: str,
    dtype,
    param_dtype,
    rngs: nnx.Rngs,
  ):
    linear = functools.partial(
      Linear, config.width, dtype=dtype, param_dtype=param_dtype, rngs=rngs
    )
    self.to_qkv = linear(3 * config.width)
    self.to_out = linear(config.width)
    self.num_heads = config.num_heads
    self.backend = backend

  def __call__(self, x_bnd: jax.Array, rotation) -> jax.Array:
    q_bnd, k_bnd, v_bnd = jnp.split(self.to_qkv(x_bnd), 3, axis=-1)
    out_bnd = vision.multi_head(
      q_bnd, k_bnd, v_bnd, self.num_heads, self.backend, rotation
    )
    return self.to_out(out_bnd)


class Block(nnx.Module):
  """Attention and feed-forward layer, each after a norm, each added."""

  def __init__(
    self,
    config: QwenTowerConfig,
    backend: str,
    dtype,
    param_dtype,
    rngs: nnx.Rngs,
  ):
    gelu = functools.partial(jax.nn.gelu, approximate=True)
    self.attn_norm = _norm(config.width, dtype, param_dtype, rngs)
    self.attn = Attention(config, backend, dtype, param_dtype, rngs)
    self.mlp_norm = _norm(config.width, dtype, param_dtype, rngs)
    self.mlp = vision.MLP(
      config.width, config.mlp_width, gelu, dtype, param_dtype, rngs
    )

  def __call__(self, x_bnd: jax.Array, rotation) -> jax.Array:
    x_bnd = x_bnd + self.attn(self.attn_norm(x_bnd), rotation)
    return x_bnd + self.mlp(self.mlp_norm(x_bnd))


class Merger(nnx.Module):
  """gelu(norm(x) W_in) W_out on each block of patches: [..., M, F].

  The norm is of each patch, or of the block.
  """

  def __init__(
    self,
    config: QwenTowerConfig,
    *,
    norm_of_block: bool,
    dtype,
    param_dtype,
    rngs: nnx.Rngs,
  ):
    options = {'dtype': dtype, 'param_dtype': param_dtype, 'rngs': rngs}
    width = _BLOCK * config.width
    self.norm = _norm(width if norm_of_block else config.width, **options)
    self.linear_in = Linear(width, width, **options)
    self.linear_out = Linear(width, config.out_width, **options)
    self.norm_of_block = norm_of_block

  def __call__(self, x_bnd: jax.Array) -> jax.Array:
    batch, patches, width = x_bnd.shape
    shape = batch, patches // _BLOCK, _BLOCK * width
    if self.norm_of_block:
      x_bmc = self.norm(x_bnd.reshape(shape))
    else:
      x_bmc = self.norm(x_bnd).reshape(shape)
    x_bmc = jax.nn.gelu(self.linear_in(x_bmc), approximate=False)
    return self.linear_out(x_bmc)


class Tower(nnx.Module):
  """Computes tokens of frames, and those of earlier layers.

  Args:
    config: sizes.
    dtype: of the computation and the result; parameters have `param_dtype`.
      Norms, rotations and softmax are fp32.
    remat: a name of `REMAT_POLICIES`, for the backward pass.
    attention_backend: see `models.attention`.
    rngs: random streams for the initial parameters.
  """

  def __init__(
    self,
    config: QwenTowerConfig,
    *,
    dtype=jnp.float32,
    param_dtype=jnp.float32,
    remat: str = 'none',
    attention_backend: str = 'auto',
    rngs: nnx.Rngs,
  ):
    types = {'dtype': dtype, 'param_dtype': param_dtype}
    self.patch_embedding = PatchEmbedding(config.width, rngs=rngs, **types)
    positions = nnx.initializers.normal(INIT_STDDEV)
    self.positions = nnx.Param(
      positions(
        rngs.params(), (config.num_positions, config.width), param_dtype
      )
    )
    self.blocks = stack(
      lambda rngs: Block(config, attention_backend, rngs=rngs, **types),
      config.num_layers,
      rngs,
    )
    self.merger = Merger(config, norm_of_block=False, rngs=rngs, **types)
    self.deepstack_mergers = stack(
      lambda rngs: Merger(config, norm_of_block=True, rngs=rngs, **types),
      len(config.deepstack_layers),
      rngs,
    )
    self.config = config
    self.dtype = dtype
    self.remat = remat

  def __call__(
    self, patches_bpnx: jax.Array, grid_b2: jax.Array
  ) -> tuple[jax.Array, jax.Array]:
    """Tokens of clips, and features of the same tokens.

    Args:
      patches_bpnx: uint8 [B, P, N, X]; see `video.to_patches`.
      grid_b2: int32 [B, 2], rows and columns of patches in a frame.

    Returns:
      Tokens [B, P M, F] and features [A, B, P M, F].
    """
    batch, num_pairs, num_patches, _ = patches_bpnx.shape
    place_bn2 = patch_positions(grid_b2, num_patches)
    # From -1 to 1.
    pixels_bpnx = patches_bpnx.astype(jnp.float32) / 127.5 - 1
    learned_bnd = self._learned_positions(place_bn2, grid_b2)
    x_bpnd = self.patch_embedding(pixels_bpnx)
    x_bpnd = x_bpnd + learned_bnd.astype(self.dtype)[:, None]

    def per_pair(x_bn):
      return jnp.repeat(x_bn, num_pairs, axis=0)

    rotation = jax.tree.map(per_pair, self._rotation(place_bn2))
    x_cnd, features_acnd = self._run_blocks(
      x_bpnd.reshape(batch * num_pairs, num_patches, -1), rotation
    )
    tokens_cmf = self.merger(x_cnd)
    graphdef, mergers = nnx.split(self.deepstack_mergers)
    features_acmf = jax.vmap(lambda m, x: nnx.merge(graphdef, m)(x))(
      mergers, features_acnd
    )
    num_tokens = num_pairs * num_patches // _BLOCK
    return (
      tokens_cmf.reshape(batch, num_tokens, -1),
      features_acmf.reshape(len(features_acmf), batch, num_tokens, -1),
    )

  def _learned_positions(self, place_bn2, grid_b2) -> jax.Array:
    """Learned positions of a square, interpolated bilinearly: [B, N, D]."""
    side = math.isqrt(self.config.num_positions)
    table_ssd = self.positions[...].astype(jnp.float32).reshape(side, side, -1)
    steps_b12 = jnp.maximum(grid_b2 - 1, 1)[:, None]
    # The corners of both grids coincide.
    exact_bn2 = place_bn2 * ((side - 1) / steps_b12)
    low_bn2 = jnp.clip(exact_bn2.astype(jnp.int32), 0, side - 1)
    high_bn2 = jnp.minimum(low_bn2 + 1, side - 1)
    weight_bn2 = exact_bn2 - low_bn2
    corners = ((low_bn2, 1 - weight_bn2), (high_bn2, weight_bn2))
    parts = [
      (row_share[..., 0] * column_share[..., 1])[..., None]
      * table_ssd[row[..., 0], column[..., 1]]
      for row, row_share in corners
      for column, column_share in corners
    ]
    return functools.reduce(jnp.add, parts)

  def _rotation(self, place_bn2) -> tuple[jax.Array, jax.Array]:
    """Pairs of the first half of a head turn by row, the others by column."""
    head_dim = self.config.width // self.config.num_heads
    rates = rotary_rates(head_dim // 2, ROPE_THETA)
    positions_bnk = jnp.repeat(place_bn2, len(rates), axis=-1)
    return rotary_tables(positions_bnk, np.tile(rates, 2))

  def _run_blocks(self, x_cnd, rotation):
    """Hidden states after all blocks, and after those of DeepStack."""
    config = self.config
    graphdef, blocks = nnx.split(self.blocks)
    num_features = len(config.deepstack_layers)
    # Features of other layers are dropped, as their slot is out of range.
    slots = np.full(config.num_layers, num_features, np.int32)
    slots[list(config.deepstack_layers)] = range(num_features)

    def body(carry, layer):
      x_cnd, features_acnd = carry
      slot, params = layer
      x_cnd = nnx.merge(graphdef, params)(x_cnd, rotation)
      x_cnd = constrain(x_cnd, vision.TOKENS)
      return (x_cnd, features_acnd.at[slot].set(x_cnd, mode='drop')), None

    x_cnd = constrain(x_cnd, vision.TOKENS)
    empty = jnp.zeros((num_features, *x_cnd.shape), x_cnd.dtype)
    return scan_layers(
      body, (x_cnd, empty), (jnp.asarray(slots), blocks), self.remat
    )
