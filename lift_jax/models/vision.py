"""Parts shared by the vision towers, which encode a frame as patch tokens.

A tower is a stack of

  x <- x + Attention(norm(x))
  x <- x + MLP(norm(x))

Its output is a hidden state before the last layer; the layers after it are
neither loaded nor run.

Legend: B frames, N tokens, D width, H heads, K width of a head, F width of
the feed-forward layer.
"""

from collections.abc import Callable, Sequence
import dataclasses

from flax import nnx
import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from lift_jax import errors
from lift_jax.models.attention import attention
from lift_jax.models.linear import Linear
from lift_jax.models.remat import scan_layers
from lift_jax.models.rotary import rotate
from lift_jax.partitioning import BATCH_AXES, constrain

# Activations between blocks [B, N, D].
TOKENS = P(BATCH_AXES, 'context', None)


@dataclasses.dataclass(frozen=True, kw_only=True)
class TowerConfig:
  """Sizes of a vision tower.

  Attributes:
    image_size: height and width of a frame, in pixels.
    patch_size: height and width of a patch; the remainder at the bottom and on
      the right is cropped.
    width: of a token.
    num_layers: layers of the published network.
    num_heads: attention heads.
    mlp_width: hidden width of the MLP.
    norm_eps: of every norm.
    feature_layer: the hidden state that is the output, counted from the end: -1
      is that after the last layer, -2 after the second to last. This is
      `mm_vision_select_layer` of VILA.
  """

  image_size: int
  patch_size: int
  width: int
  num_layers: int
  num_heads: int
  mlp_width: int
  norm_eps: float
  feature_layer: int

  def __post_init__(self):
    if self.width % self.num_heads:
      raise errors.UserError(
        f'hidden_size {self.width} of the vision tower is not divisible by'
        f' num_attention_heads {self.num_heads}; use a divisor'
      )
    if self.image_size < self.patch_size:
      raise errors.UserError(
        f'image_size {self.image_size} of the vision tower is less than'
        f' patch_size {self.patch_size}; copy the config from the published'
        ' model again'
      )
    if not -self.num_layers <= self.feature_layer <= -1:
      raise errors.UserError(
        f'mm_vision_select_layer {self.feature_layer} is not one of the'
        f' {self.num_layers} layers of the vision tower; give a number from'
        f' {-self.num_layers} to -1'
      )

  @property
  def num_run_layers(self) -> int:
    """Layers up to the output."""
    return self.num_layers + 1 + self.feature_layer

  @property
  def num_patches(self) -> int:
    """Output tokens of a frame."""
    return (self.image_size // self.patch_size) ** 2


def normalise(
  frames: jax.Array, mean: Sequence[float], std: Sequence[float]
) -> jax.Array:
  """(x / 255 - mean) / std per channel, uint8 [..., 3] to fp32 [..., 3]."""
  shape = (1,) * (frames.ndim - 1) + (3,)

  def of_colours(values: Sequence[float]) -> jax.Array:
    return jnp.asarray(values, jnp.float32).reshape(shape)

  fractions = frames.astype(jnp.float32) / 255
  return (fractions - of_colours(mean)) / of_colours(std)


class PatchEmbedding(nnx.Conv):
  """Patch tokens in row-major order: [B, height, width, 3] to [B, N, D].

  Args:
    config: sizes.
    use_bias: whether there is a bias.
    any_size: whether frames may have another size than the config states, for
      towers that interpolate their positions.
  """

  def __init__(
    self,
    config: TowerConfig,
    dtype,
    param_dtype,
    rngs: nnx.Rngs,
    *,
    use_bias: bool = True,
    any_size: bool = False,
  ):
    super().__init__(
      3,
      config.width,
      kernel_size=(config.patch_size,) * 2,
      strides=config.patch_size,
      padding='VALID',
      use_bias=use_bias,
      dtype=dtype,
      param_dtype=param_dtype,
      rngs=rngs,
    )
    self.image_size = config.image_size
    self.any_size = any_size

  def __call__(self, pixels_bhw3: jax.Array) -> jax.Array:
    size = self.image_size
    is_expected = pixels_bhw3.ndim == 4 and (
      self.any_size or pixels_bhw3.shape[1:] == (size, size, 3)
    )
    if not is_expected:
      # Position embeddings are learned for this size.
      raise ValueError(
        f'expected frames [B, {size}, {size}, 3], got {list(pixels_bhw3.shape)}'
      )
    x_bhwd = super().__call__(pixels_bhw3)
    return x_bhwd.reshape(x_bhwd.shape[0], -1, x_bhwd.shape[-1])


def with_class_token(x_bnd: jax.Array, class_token: jax.Array) -> jax.Array:
  """Prepends a class token, [1, 1, D], to the tokens of each frame."""
  batch, _, width = x_bnd.shape
  class_b1d = jnp.broadcast_to(
    class_token.astype(x_bnd.dtype), (batch, 1, width)
  )
  return jnp.concatenate([class_b1d, x_bnd], axis=1)


class MLP(nnx.Module):
  """activation(x W_up) W_down, with biases."""

  def __init__(
    self,
    width: int,
    mlp_width: int,
    activation: Callable[[jax.Array], jax.Array],
    dtype,
    param_dtype,
    rngs: nnx.Rngs,
  ):
    options = {'dtype': dtype, 'param_dtype': param_dtype, 'rngs': rngs}
    self.up = Linear(width, mlp_width, **options)
    self.down = Linear(mlp_width, width, **options)
    self.activation = activation

  def __call__(self, x_bnd: jax.Array) -> jax.Array:
    return self.down(self.activation(self.up(x_bnd)))


def multi_head(
  q_bnd: jax.Array,
  k_bnd: jax.Array,
  v_bnd: jax.Array,
  num_heads: int,
  backend: str,
  rotation: tuple[jax.Array, jax.Array] | None = None,
  *,
  is_causal: bool = False,
) -> jax.Array:
  """Attention among the tokens of a frame, [B, N, D], full unless causal.

  `rotation` turns queries and keys; see `rotary.rotary_tables`.

  On a mesh, heads are sharded over 'tensor'. If it does not divide their
  number, as with the 25 heads of InternViT-6B, they are padded with zeros: any
  mesh works, and attention alone costs 26, 28 or 32 heads instead of 25 on 2, 4
  or 8 shards.
  """
  batch, tokens, width = q_bnd.shape
  mesh = jax.sharding.get_abstract_mesh()
  num_padding = 0 if mesh.empty else -num_heads % mesh.shape['tensor']

  def heads(x_bnd, rotation=None):
    x_bnhk = x_bnd.reshape(batch, tokens, num_heads, -1)
    if rotation is not None:
      x_bnhk = rotate(x_bnhk, rotation)
    return jnp.pad(x_bnhk, ((0, 0), (0, 0), (0, num_padding), (0, 0)))

  out_bnhk = attention(
    heads(q_bnd, rotation),
    heads(k_bnd, rotation),
    heads(v_bnd),
    is_causal=is_causal,
    backend=backend,
  )
  return out_bnhk[:, :, :num_heads].reshape(batch, tokens, width)


def run_blocks(blocks: nnx.Module, x_bnd: jax.Array, remat: str) -> jax.Array:
  """Runs stacked blocks; `remat` is a name of `REMAT_POLICIES`."""
  graphdef, layers = nnx.split(blocks)

  def body(x_bnd, layer):
    return constrain(nnx.merge(graphdef, layer)(x_bnd), TOKENS), None

  return scan_layers(body, constrain(x_bnd, TOKENS), layers, remat)
