"""T5 v1.1 encoder (arXiv 1910.10683; v1.1: gated GELU, no biases).

  x <- x + Attention(rms(x))
  x <- x + (gelu(rms(x) W_gate) * rms(x) W_up) W_down

Attention has no 1/sqrt(K) and no mask: the video model was trained on
embeddings whose text attends to its padding. Positions are encoded by one bias
per head and distance, added to the scores of every layer.

Legend: B batch, N tokens, M tokens attended to (= N), D width, H heads,
K width of a head, F width of the feed-forward layer.
"""

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from lift_jax.models import functional
from lift_jax.models.linear import Linear
from lift_jax.models.remat import scan_layers
from lift_jax.models.t5 import config as config_lib


def position_buckets(
  length: int, num_buckets: int, max_distance: int
) -> np.ndarray:
  """The bucket of the position bias for each query and key.

  Half of the buckets are for keys up to the query, half for those after it.
  Of the n buckets of one sign the first e = n / 2 hold one distance r each,
  the others grow by a constant factor and the last is open:

    bucket(r) = min(e + floor(e ln(r / e) / ln(max_distance / e)), n - 1)

  Args:
    length: number of tokens.
    num_buckets: a multiple of 4.
    max_distance: the last bucket is open from about here.

  Returns:
    int32 [length of queries, length of keys].
  """
  per_sign = num_buckets // 2
  num_exact = per_sign // 2
  # A bucket is the number of edges at or below the distance. The powers of
  # integer edges are inexact, hence the rounding.
  factor = max_distance / num_exact
  powers = num_exact * factor ** (np.arange(num_exact) / num_exact)
  edges = np.concatenate([
    np.arange(1, num_exact), np.ceil(np.round(powers, 6))
  ])  # fmt: skip
  positions = np.arange(length)
  offsets_nm = positions[None, :] - positions[:, None]
  buckets_nm = np.searchsorted(edges, np.abs(offsets_nm), side='right')
  return (buckets_nm + per_sign * (offsets_nm > 0)).astype(np.int32)


class Attention(nnx.Module):
  """Bidirectional attention whose scores are not divided by sqrt(K)."""

  def __init__(
    self, config: config_lib.T5Config, *, dtype=jnp.float32, rngs: nnx.Rngs
  ):
    width, heads, head = config.d_model, config.num_heads, config.d_kv
    # The missing 1/sqrt(K) is in the initial kernel of the queries.
    self.to_q = _linear(
      width, heads * head, dtype, rngs, stddev=(width * head) ** -0.5
    )
    self.to_k = _linear(width, heads * head, dtype, rngs)
    self.to_v = _linear(width, heads * head, dtype, rngs)
    self.to_out = _linear(heads * head, width, dtype, rngs)
    self.num_heads = heads

  def __call__(self, x_bnd: jax.Array, bias_1hnm: jax.Array) -> jax.Array:
    batch, length, _ = x_bnd.shape

    def heads(x_bnc):
      return x_bnc.reshape(batch, length, self.num_heads, -1)

    # Scores, bias and softmax are fp32 whatever the compute dtype.
    out_bnhk = jax.nn.dot_product_attention(
      heads(self.to_q(x_bnd)),
      heads(self.to_k(x_bnd)),
      heads(self.to_v(x_bnd)),
      bias=bias_1hnm,
      scale=1.0,
      implementation='xla',
    )
    return self.to_out(out_bnhk.reshape(batch, length, -1))


class GatedMLP(nnx.Module):
  """(gelu(x W_gate) * x W_up) W_down, with the tanh form of GELU."""

  def __init__(
    self, config: config_lib.T5Config, *, dtype=jnp.float32, rngs: nnx.Rngs
  ):
    self.gate = _linear(config.d_model, config.d_ff, dtype, rngs)
    self.up = _linear(config.d_model, config.d_ff, dtype, rngs)
    self.down = _linear(config.d_ff, config.d_model, dtype, rngs)

  def __call__(self, x_bnd: jax.Array) -> jax.Array:
    gate_bnf = jax.nn.gelu(self.gate(x_bnd), approximate=True)
    return self.down(gate_bnf * self.up(x_bnd))


class Block(nnx.Module):
  """Attention and feed-forward layer, each after a norm, each added."""

  def __init__(
    self, config: config_lib.T5Config, *, dtype=jnp.float32, rngs: nnx.Rngs
  ):
    self.attn_norm = _norm(config, dtype, rngs)
    self.attn = Attention(config, dtype=dtype, rngs=rngs)
    self.mlp_norm = _norm(config, dtype, rngs)
    self.mlp = GatedMLP(config, dtype=dtype, rngs=rngs)

  def __call__(self, x_bnd: jax.Array, bias_1hnm: jax.Array) -> jax.Array:
    x_bnd = x_bnd + self.attn(self.attn_norm(x_bnd), bias_1hnm)
    return x_bnd + self.mlp(self.mlp_norm(x_bnd))


class Encoder(nnx.Module):
  """Computes the text embeddings that condition the video model.

  Parameters are fp32. In published checkpoints the position biases belong to
  the first block; here they are next to the stacked blocks, which share them.

  Args:
    config: sizes.
    dtype: of the computation and the result. Norms, position biases and softmax
      are fp32.
    rngs: random streams for the initial parameters.
  """

  def __init__(
    self, config: config_lib.T5Config, *, dtype=jnp.float32, rngs: nnx.Rngs
  ):
    self.config = config
    # Initial scales are those of T5's own code.
    self.token_embedding = nnx.Embed(
      config.vocab_size,
      config.d_model,
      dtype=dtype,
      embedding_init=nnx.initializers.normal(1.0),
      rngs=rngs,
    )
    self.relative_bias = nnx.Embed(
      config.relative_attention_num_buckets,
      config.num_heads,
      embedding_init=nnx.initializers.normal(config.d_model**-0.5),
      rngs=rngs,
    )
    self.blocks = functional.stack(
      lambda rngs: Block(config, dtype=dtype, rngs=rngs),
      config.num_layers,
      rngs,
    )
    self.final_norm = _norm(config, dtype, rngs)

  def __call__(self, tokens_bn: jax.Array) -> jax.Array:
    """Embeds tokens.

    Args:
      tokens_bn: int [B, N]; padding is not masked.

    Returns:
      [B, N, D] in the compute dtype.
    """
    buckets_nm = position_buckets(
      tokens_bn.shape[1],
      self.config.relative_attention_num_buckets,
      self.config.relative_attention_max_distance,
    )
    bias_nmh = self.relative_bias(jnp.asarray(buckets_nm))
    bias_1hnm = bias_nmh.transpose(2, 0, 1)[None]

    def run_block(x_bnd, block):
      return block(x_bnd, bias_1hnm), None

    x_bnd = self.token_embedding(tokens_bn)
    return self.final_norm(scan_layers(run_block, x_bnd, self.blocks))


def _linear(
  num_in: int, num_out: int, dtype, rngs: nnx.Rngs, stddev: float | None = None
) -> nnx.Linear:
  init = nnx.initializers.normal(stddev or num_in**-0.5)
  return Linear(
    num_in, num_out, use_bias=False, dtype=dtype, kernel_init=init, rngs=rngs
  )


def _norm(config: config_lib.T5Config, dtype, rngs: nnx.Rngs) -> nnx.RMSNorm:
  return nnx.RMSNorm(
    config.d_model, epsilon=config.layer_norm_epsilon, dtype=dtype, rngs=rngs
  )
