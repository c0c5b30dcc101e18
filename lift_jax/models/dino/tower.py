"""DINO's vision transformer (arXiv 2104.14294).

Blocks of `models.encoder_block` with the exact GELU, and a class token, whose
last state after a norm is the feature of the image. Images may have any size:
the learned positions are interpolated.

Legend: B images, N tokens, D width; R, C patches per column and per row.
"""

import functools
import math

from flax import nnx
import jax
import jax.numpy as jnp

from lift_jax.models import vision
from lift_jax.models.dino.config import DinoConfig
from lift_jax.models.encoder_block import Block
from lift_jax.models.functional import stack
from lift_jax.models.interpolation import CUBIC, resize_matrix

# Of ImageNet, as in eval_knn.py of https://github.com/facebookresearch/dino.
_MEAN = (0.485, 0.456, 0.406)
_STD = (0.229, 0.224, 0.225)

# DINO interpolates to slightly more patches than there are, and so scales
# positions slightly less: `interpolate_pos_encoding` in vision_transformer.py.
_MORE_PATCHES = 0.1


def normalise(frames: jax.Array) -> jax.Array:
  """The tower's input, fp32, from frames [..., 3] of 0 to 255."""
  return vision.normalise(frames, _MEAN, _STD)


class Tower(nnx.Module):
  """Computes one feature per image.

  Args:
    config: sizes.
    dtype: of the computation and the result; parameters have `param_dtype`.
      Norms and softmax are fp32.
    attention_backend: see `models.attention`.
    rngs: random streams for the initial parameters.
  """

  def __init__(
    self,
    config: DinoConfig,
    *,
    dtype=jnp.float32,
    param_dtype=jnp.float32,
    attention_backend: str = 'auto',
    rngs: nnx.Rngs,
  ):
    options = {'dtype': dtype, 'param_dtype': param_dtype, 'rngs': rngs}
    normal = nnx.initializers.normal(0.02)
    tokens = config.num_patches + 1
    self.patch_embedding = vision.PatchEmbedding(
      config, **options, any_size=True
    )
    self.class_token = nnx.Param(
      normal(rngs.params(), (1, 1, config.width), param_dtype)
    )
    self.positions = nnx.Param(
      normal(rngs.params(), (1, tokens, config.width), param_dtype)
    )
    gelu = functools.partial(jax.nn.gelu, approximate=False)
    self.blocks = stack(
      lambda rngs: Block(
        config, gelu, attention_backend, dtype, param_dtype, rngs
      ),
      config.num_layers,
      rngs,
    )
    self.last_norm = nnx.LayerNorm(
      config.width, epsilon=config.norm_eps, use_fast_variance=False, **options
    )
    self.config = config
    self.dtype = dtype

  def __call__(self, pixels_bhw3: jax.Array) -> jax.Array:
    """Features [B, D] of images [B, height, width, 3].

    Args:
      pixels_bhw3: from `normalise`; what is left of a patch at the bottom and
        on the right is cropped.
    """
    x_bnd = vision.with_class_token(
      self.patch_embedding(pixels_bhw3), self.class_token[...]
    )
    positions_1nd = self._positions(*pixels_bhw3.shape[1:3])
    x_bnd = x_bnd + positions_1nd.astype(self.dtype)
    x_bnd = vision.run_blocks(self.blocks, x_bnd, 'none')
    return self.last_norm(x_bnd[:, 0])

  def _positions(self, height: int, width: int) -> jax.Array:
    """Positions of the class token and of the patches of an image."""
    positions_1nd = self.positions[...]
    patch = self.config.patch_size
    new = (height // patch, width // patch)
    old = math.isqrt(self.config.num_patches)
    if height == width and new == (old, old):
      return positions_1nd
    class_11d, patches_1nd = positions_1nd[:, :1], positions_1nd[:, 1:]
    rows, columns = (
      resize_matrix(old, size, CUBIC, (size + _MORE_PATCHES) / old)
      for size in new
    )
    patches_rcd = jnp.einsum(
      'ri,cj,ijd->rcd',
      rows,
      columns,
      patches_1nd.reshape(old, old, -1),
      precision='highest',
    )
    patches_1nd = patches_rcd.reshape(1, -1, patches_1nd.shape[-1])
    return jnp.concatenate([class_11d, patches_1nd], axis=1)
