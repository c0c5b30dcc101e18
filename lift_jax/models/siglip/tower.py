"""SigLIP vision transformer (arXiv 2303.15343), as VILA-1.5 uses it.

Blocks of `models.encoder_block` with the tanh form of GELU, learned positions
and no class token. VILA takes the hidden state after the second-to-last layer:
the last layer, the final norm and the pooling head are neither loaded nor run.

Legend: B frames, N tokens, D width.
"""

import functools

from flax import nnx
import jax
import jax.numpy as jnp

from lift_jax.models import vision
from lift_jax.models.encoder_block import Block
from lift_jax.models.functional import stack
from lift_jax.models.siglip.config import SiglipConfig


def normalise(frames: jax.Array) -> jax.Array:
  """The tower's input, fp32 in [-1, 1], from uint8 frames [..., 3]."""
  return vision.normalise(frames, mean=(0.5,) * 3, std=(0.5,) * 3)


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
    config: SiglipConfig,
    *,
    dtype=jnp.float32,
    param_dtype=jnp.float32,
    remat: str = 'none',
    attention_backend: str = 'auto',
    rngs: nnx.Rngs,
  ):
    self.patch_embedding = vision.PatchEmbedding(
      config, dtype, param_dtype, rngs
    )
    positions = nnx.initializers.normal(config.width**-0.5)
    self.positions = nnx.Param(
      positions(rngs.params(), (config.num_patches, config.width), param_dtype)
    )
    gelu = functools.partial(jax.nn.gelu, approximate=True)
    self.blocks = stack(
      lambda rngs: Block(
        config, gelu, attention_backend, dtype, param_dtype, rngs
      ),
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
    x_bnd = self.patch_embedding(pixels_bhw3)
    x_bnd = x_bnd + self.positions[...].astype(self.dtype)[None]
    return vision.run_blocks(self.blocks, x_bnd, self.remat)
