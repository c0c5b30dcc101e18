"""CLIP (arXiv 2103.00020): one space for images and texts.

  image: Projection(norm(class token after the blocks))
  text:  Projection(norm(last token after the blocks))

Blocks of `models.encoder_block` with x sigmoid(1.702 x) as activation; those of
texts are causal. The cosine of an image and a text, times exp(logit_scale),
says how well they match.

Legend: B images or texts, N tokens, D width, P width of the common space.
"""

from flax import nnx
import jax
import jax.numpy as jnp

from lift_jax.models import vision
from lift_jax.models.clip.config import (
  ClipConfig,
  ClipTextConfig,
  ClipVisionConfig,
)
from lift_jax.models.encoder_block import Block
from lift_jax.models.functional import stack
from lift_jax.models.linear import Linear

# clip/clip.py in https://github.com/openai/CLIP.
_MEAN = (0.48145466, 0.4578275, 0.40821073)
_STD = (0.26862954, 0.26130258, 0.27577711)

_INIT_LOGIT_SCALE = 2.6592  # ln(1 / 0.07)


def normalise(frames: jax.Array) -> jax.Array:
  """The image encoder's input, fp32, from frames [..., 3] of 0 to 255."""
  return vision.normalise(frames, _MEAN, _STD)


def quick_gelu(x: jax.Array) -> jax.Array:
  """An approximation of GELU, x sigmoid(1.702 x)."""
  return x * jax.nn.sigmoid(1.702 * x)


def _norm(sizes: ClipVisionConfig | ClipTextConfig, options) -> nnx.LayerNorm:
  return nnx.LayerNorm(
    sizes.width, epsilon=sizes.norm_eps, use_fast_variance=False, **options
  )


class ImageEncoder(nnx.Module):
  """Maps images to the common space."""

  def __init__(
    self,
    config: ClipVisionConfig,
    projection_dim: int,
    backend: str,
    dtype,
    param_dtype,
    rngs: nnx.Rngs,
  ):
    options = {'dtype': dtype, 'param_dtype': param_dtype, 'rngs': rngs}
    normal = nnx.initializers.normal(config.width**-0.5)
    tokens = config.num_patches + 1
    self.patch_embedding = vision.PatchEmbedding(
      config, **options, use_bias=False
    )
    self.class_token = nnx.Param(
      normal(rngs.params(), (config.width,), param_dtype)
    )
    self.positions = nnx.Param(
      normal(rngs.params(), (tokens, config.width), param_dtype)
    )
    self.first_norm = _norm(config, options)
    self.blocks = stack(
      lambda rngs: Block(config, quick_gelu, backend, dtype, param_dtype, rngs),
      config.num_layers,
      rngs,
    )
    self.last_norm = _norm(config, options)
    self.projection = Linear(
      config.width, projection_dim, use_bias=False, **options
    )
    self.dtype = dtype

  def __call__(self, pixels_bhw3: jax.Array) -> jax.Array:
    x_bnd = vision.with_class_token(
      self.patch_embedding(pixels_bhw3), self.class_token[...][None, None]
    )
    x_bnd = x_bnd + self.positions[...].astype(self.dtype)[None]
    x_bnd = vision.run_blocks(self.blocks, self.first_norm(x_bnd), 'none')
    return self.projection(self.last_norm(x_bnd[:, 0]))


class TextEncoder(nnx.Module):
  """Maps texts to the common space."""

  def __init__(
    self,
    config: ClipTextConfig,
    projection_dim: int,
    backend: str,
    dtype,
    param_dtype,
    rngs: nnx.Rngs,
  ):
    options = {'dtype': dtype, 'param_dtype': param_dtype, 'rngs': rngs}

    def table(size: int) -> nnx.Param:
      normal = nnx.initializers.normal(0.02)
      return nnx.Param(normal(rngs.params(), (size, config.width), param_dtype))

    self.tokens = table(config.vocab_size)
    self.positions = table(config.max_length)
    self.blocks = stack(
      lambda rngs: Block(
        config, quick_gelu, backend, dtype, param_dtype, rngs, is_causal=True
      ),
      config.num_layers,
      rngs,
    )
    self.last_norm = _norm(config, options)
    self.projection = Linear(
      config.width, projection_dim, use_bias=False, **options
    )
    self.dtype = dtype

  def __call__(self, ids_bn: jax.Array, length_b: jax.Array) -> jax.Array:
    num_tokens = ids_bn.shape[1]
    positions_1nd = self.positions[...][None, :num_tokens]
    x_bnd = (self.tokens[...][ids_bn] + positions_1nd).astype(self.dtype)
    x_bnd = self.last_norm(vision.run_blocks(self.blocks, x_bnd, 'none'))
    last_bd = jnp.take_along_axis(x_bnd, length_b[:, None, None] - 1, axis=1)
    return self.projection(last_bd[:, 0])


class Clip(nnx.Module):
  """Both encoders.

  Args:
    config: sizes.
    dtype: of the computation and the result; parameters have `param_dtype`.
      Norms and softmax are fp32.
    attention_backend: see `models.attention`.
    rngs: random streams for the initial parameters.
  """

  def __init__(
    self,
    config: ClipConfig,
    *,
    dtype=jnp.float32,
    param_dtype=jnp.float32,
    attention_backend: str = 'auto',
    rngs: nnx.Rngs,
  ):
    shared = (
      config.projection_dim,
      attention_backend,
      dtype,
      param_dtype,
      rngs,
    )
    self.vision = ImageEncoder(config.vision, *shared)
    self.text = TextEncoder(config.text, *shared)
    self.logit_scale = nnx.Param(jnp.asarray(_INIT_LOGIT_SCALE, param_dtype))

  def images(self, pixels_bhw3: jax.Array) -> jax.Array:
    """Features [B, P] of images [B, image_size, image_size, 3].

    Args:
      pixels_bhw3: from `normalise`.
    """
    return self.vision(pixels_bhw3)

  def texts(self, ids_bn: jax.Array, length_b: jax.Array) -> jax.Array:
    """Features [B, P] of texts.

    Args:
      ids_bn: token ids; those after a text's last token have no effect.
      length_b: number of tokens of each text.
    """
    return self.text(ids_bn, length_b)
