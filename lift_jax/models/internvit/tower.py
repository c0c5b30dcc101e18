"""InternViT-6B (arXiv 2312.14238), as VILA-1.5 uses it.

  x <- x + a * Attention(norm(x))
  x <- x + b * gelu(norm(x) W_up) W_down

with a and b learned for each channel. Queries and keys are normalised across
all heads before attention, and have no biases. A class token comes first, and
is dropped after the last layer.

Legend: B frames, N patches, M = N + 1 tokens with the class token, D width.
"""

import functools

from flax import nnx
import jax
import jax.numpy as jnp

from lift_jax.models import vision
from lift_jax.models.functional import stack
from lift_jax.models.internvit.config import InternViTConfig
from lift_jax.models.linear import Linear

# The usual statistics of ImageNet: build_transform of VILA's intern_encoder.py.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

# initializer_factor and initializer_range of the published configs.
INIT_LAYER_SCALE = 0.1
INIT_STDDEV = 0.02


def normalise(frames: jax.Array) -> jax.Array:
  """The tower's input, fp32, from uint8 frames [..., 3]."""
  return vision.normalise(frames, MEAN, STD)


class Attention(nnx.Module):
  """Every token attends to all tokens of its frame.

  Queries, keys and values have a joint kernel, as published.
  """

  def __init__(
    self,
    config: InternViTConfig,
    backend: str,
    dtype,
    param_dtype,
    rngs: nnx.Rngs,
  ):
    options = {'dtype': dtype, 'param_dtype': param_dtype, 'rngs': rngs}
    norm = functools.partial(
      nnx.RMSNorm, config.width, epsilon=config.norm_eps, **options
    )
    self.to_qkv = Linear(
      config.width, 3 * config.width, use_bias=False, **options
    )
    self.q_norm, self.k_norm = norm(), norm()
    self.to_out = Linear(config.width, config.width, **options)
    self.num_heads = config.num_heads
    self.backend = backend

  def __call__(self, x_bmd: jax.Array) -> jax.Array:
    q_bmd, k_bmd, v_bmd = jnp.split(self.to_qkv(x_bmd), 3, axis=-1)
    out_bmd = vision.multi_head(
      self.q_norm(q_bmd),
      self.k_norm(k_bmd),
      v_bmd,
      self.num_heads,
      self.backend,
    )
    return self.to_out(out_bmd)


class Block(nnx.Module):
  """Attention and feed-forward layer, each normalised, scaled and added."""

  def __init__(
    self,
    config: InternViTConfig,
    backend: str,
    dtype,
    param_dtype,
    rngs: nnx.Rngs,
  ):
    is_rms = config.norm_type == 'rms_norm'
    norm = functools.partial(
      nnx.RMSNorm if is_rms else nnx.LayerNorm,
      config.width,
      epsilon=config.norm_eps,
      use_fast_variance=False,  # of layer norms; RMS norms have no mean
      dtype=dtype,
      param_dtype=param_dtype,
      rngs=rngs,
    )
    gelu = functools.partial(jax.nn.gelu, approximate=False)
    scale = jnp.full((config.width,), INIT_LAYER_SCALE, param_dtype)
    self.attn_norm = norm()
    self.attn = Attention(config, backend, dtype, param_dtype, rngs)
    self.attn_scale = nnx.Param(scale)
    self.mlp_norm = norm()
    self.mlp = vision.MLP(
      config.width, config.mlp_width, gelu, dtype, param_dtype, rngs
    )
    self.mlp_scale = nnx.Param(scale)

  def __call__(self, x_bmd: jax.Array) -> jax.Array:
    attn_scale, mlp_scale = (
      scale[...].astype(x_bmd.dtype)[None, None]
      for scale in (self.attn_scale, self.mlp_scale)
    )
    x_bmd = x_bmd + attn_scale * self.attn(self.attn_norm(x_bmd))
    return x_bmd + mlp_scale * self.mlp(self.mlp_norm(x_bmd))


class Tower(nnx.Module):
  """Computes one feature per patch of a frame.

  Args:
    config: sizes.
    dtype: of the computation and the result; parameters have `param_dtype`.
      Norms and softmax are fp32.
    remat: a name of `REMAT_POLICIES`, for the backward pass.
    attention_backend: see `models.attention`.
    rngs: random streams for the initial parameters.
  """

  def __init__(
    self,
    config: InternViTConfig,
    *,
    dtype=jnp.float32,
    param_dtype=jnp.float32,
    remat: str = 'none',
    attention_backend: str = 'auto',
    rngs: nnx.Rngs,
  ):
    normal = nnx.initializers.normal(INIT_STDDEV)
    tokens = config.num_patches + 1
    self.patch_embedding = vision.PatchEmbedding(
      config, dtype, param_dtype, rngs
    )
    self.class_token = nnx.Param(
      normal(rngs.params(), (1, 1, config.width), param_dtype)
    )
    self.positions = nnx.Param(
      normal(rngs.params(), (1, tokens, config.width), param_dtype)
    )
    self.blocks = stack(
      lambda rngs: Block(config, attention_backend, dtype, param_dtype, rngs),
      config.num_run_layers,
      rngs,
    )
    self.config = config
    self.dtype = dtype
    self.remat = remat

  def __call__(self, pixels_bhw3: jax.Array) -> jax.Array:
    """Features [B, N, D] of frames [B, image_size, image_size, 3].

    Args:
      pixels_bhw3: from `normalise`.

    Returns:
      One token per patch, in row-major order.
    """
    x_bmd = vision.with_class_token(
      self.patch_embedding(pixels_bhw3), self.class_token[...]
    )
    x_bmd = x_bmd + self.positions[...].astype(self.dtype)
    return vision.run_blocks(self.blocks, x_bmd, self.remat)[:, 1:]
