"""Transformer block of the encoders SigLIP, CLIP and DINO.

  x <- x + Attention(norm(x))
  x <- x + activation(norm(x) W_up) W_down

with layer norms, and biases everywhere.

Legend: B items, N tokens, D width.
"""

from collections.abc import Callable
import functools
from typing import Protocol

from flax import nnx
import jax

from lift_jax.models import vision
from lift_jax.models.layer_norm import LayerNorm
from lift_jax.models.linear import Linear


class BlockSizes(Protocol):
  """What the config of a text encoder shares with `vision.TowerConfig`."""

  @property
  def width(self) -> int: ...
  @property
  def num_heads(self) -> int: ...
  @property
  def mlp_width(self) -> int: ...
  @property
  def norm_eps(self) -> float: ...


class Attention(nnx.Module):
  """Every token attends to all tokens of its item, or to those up to itself."""

  def __init__(
    self,
    sizes: vision.TowerConfig | BlockSizes,
    backend: str,
    is_causal: bool,
    dtype,
    param_dtype,
    rngs: nnx.Rngs,
  ):
    linear = functools.partial(
      Linear,
      sizes.width,
      sizes.width,
      dtype=dtype,
      param_dtype=param_dtype,
      rngs=rngs,
    )
    self.to_q, self.to_k, self.to_v = linear(), linear(), linear()
    self.to_out = linear()
    self.num_heads = sizes.num_heads
    self.backend = backend
    self.is_causal = is_causal

  def __call__(self, x_bnd: jax.Array) -> jax.Array:
    out_bnd = vision.multi_head(
      self.to_q(x_bnd),
      self.to_k(x_bnd),
      self.to_v(x_bnd),
      self.num_heads,
      self.backend,
      is_causal=self.is_causal,
    )
    return self.to_out(out_bnd)


class Block(nnx.Module):
  """Attention and feed-forward layer, each after a norm, each added."""

  def __init__(
    self,
    sizes: vision.TowerConfig | BlockSizes,
    activation: Callable[[jax.Array], jax.Array],
    backend: str,
    dtype,
    param_dtype,
    rngs: nnx.Rngs,
    *,
    is_causal: bool = False,
  ):
    norm = functools.partial(
      LayerNorm,
      sizes.width,
      epsilon=sizes.norm_eps,
      use_fast_variance=False,
      dtype=dtype,
      param_dtype=param_dtype,
      rngs=rngs,
    )
    self.attn_norm = norm()
    self.attn = Attention(sizes, backend, is_causal, dtype, param_dtype, rngs)
    self.mlp_norm = norm()
    self.mlp = vision.MLP(
      sizes.width, sizes.mlp_width, activation, dtype, param_dtype, rngs
    )

  def __call__(self, x_bnd: jax.Array) -> jax.Array:
    x_bnd = x_bnd + self.attn(self.attn_norm(x_bnd))
    return x_bnd + self.mlp(self.mlp_norm(x_bnd))
