"""VILA's projector from vision patches to language model tokens.

This is `mlp_downsample`: blocks of 2 x 2 patches, concatenated along channels,
become one token each:

  y = gelu(norm(x) W_1 + b_1) W_2 + b_2

with the exact GELU. An odd grid, such as 27 x 27 of SigLIP, is first padded
with zeros at the bottom and on the right.

Legend: B frames, N patches, C patch width, M tokens, N / 4 after padding to an
even grid, D token width.
"""

from collections.abc import Mapping
import dataclasses
import functools
import math
from typing import Any, Self

from flax import nnx
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from lift_jax.models.linear import Linear
from lift_jax.weights import conversion
from lift_jax.weights.published_config import PublishedConfig

PROJECTOR_TABLE = (
  *conversion.norm('layers.1', 'norm'),
  *conversion.linear('layers.2', 'linear_in'),
  *conversion.linear('layers.4', 'linear_out'),
)

RULES = (
  (r'linear_in/kernel', P('fsdp', 'tensor')),
  (r'linear_out/kernel', P('tensor', 'fsdp')),
  (r'norm/scale|(norm|linear_in|linear_out)/bias', P()),
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class ProjectorConfig:
  """Sizes; the defaults are VILA-1.5 13b.

  Attributes:
    vision_width: of a patch.
    width: of a token.
  """

  vision_width: int = 1152
  width: int = 5120

  @classmethod
  def from_json(
    cls,
    values: Mapping[str, Any],
    source: str = 'mm_projector/config.json',
    *,
    vision_width: int,
    width: int,
  ) -> Self:
    """Checks the projector's config.json, which has its type but no sizes.

    Args:
      values: the parsed file.
      source: how errors name the file.
      vision_width: of the vision tower.
      width: of the language model.

    Raises:
      UserError: the file is of another type of projector.
    """
    return _PUBLISHED.read(
      cls, values, source, vision_width=vision_width, width=width
    )

  def to_json(self) -> dict[str, Any]:
    """The published mm_projector/config.json."""
    return {'architectures': ['MultimodalProjector'], **_PUBLISHED.write(self)}


_PUBLISHED = PublishedConfig(
  kind='a projector of VILA-1.5',
  fixed={'model_type': 'v2l_projector', 'mm_projector_type': 'mlp_downsample'},
  stated=('mm_projector_type',),
)


def num_tokens(num_patches: int) -> int:
  """Tokens M of a frame of `num_patches` patches N."""
  return ((math.isqrt(num_patches) + 1) // 2) ** 2


def merge_patches(x_bnc: jax.Array) -> jax.Array:
  """Concatenates blocks of 2 x 2 patches, [B, N, C] to [B, M, 4C].

  Within a block the order is row-major: top left, top right, bottom left,
  bottom right. Blocks are in column-major order: token 1 is below token 0. This
  is the code that VILA-1.5 and LiFT-Critic were trained with; later versions of
  VILA, with other weights, are row-major.
  """
  batch, num_patches, width = x_bnc.shape
  grid = math.isqrt(num_patches)
  if grid**2 != num_patches:
    raise ValueError(
      f'{num_patches} patches are not a square grid; drop the class token'
    )
  odd, half = grid % 2, (grid + 1) // 2
  x_brsc = x_bnc.reshape(batch, grid, grid, width)
  x_brsc = jnp.pad(x_brsc, ((0, 0), (0, odd), (0, odd), (0, 0)))
  blocks = x_brsc.reshape(batch, half, 2, half, 2, width)
  return blocks.transpose(0, 3, 1, 2, 4, 5).reshape(batch, half**2, 4 * width)


class Projector(nnx.Module):
  """Maps patches of frames to tokens of the language model.

  Args:
    config: sizes.
    dtype: type of the computation and of the result; parameters keep
      `param_dtype`. The norm is fp32.
    rngs: random streams for the initial parameters.
  """

  def __init__(
    self,
    config: ProjectorConfig,
    *,
    dtype=jnp.float32,
    param_dtype=jnp.float32,
    rngs: nnx.Rngs,
  ):
    options = {'dtype': dtype, 'param_dtype': param_dtype, 'rngs': rngs}
    width_in, width = 4 * config.vision_width, config.width
    # The epsilon of torch's LayerNorm.
    self.norm = nnx.LayerNorm(
      width_in, epsilon=1e-5, use_fast_variance=False, **options
    )
    self.linear_in = Linear(width_in, width, **options)
    self.linear_out = Linear(width, width, **options)
    self.config = config

  def __call__(self, x_bnc: jax.Array) -> jax.Array:
    """Tokens [B, M, D] of patches [B, N, C], where N is a square."""
    gelu = functools.partial(jax.nn.gelu, approximate=False)
    x_bmc = self.norm(merge_patches(x_bnc))
    return self.linear_out(gelu(self.linear_in(x_bmc)))
