"""Llama decoder (arXiv 2302.13971; shared key heads: arXiv 2305.13245).

  x <- x + Attention(rms(x))
  x <- x + (silu(rms(x) W_gate) * rms(x) W_up) W_down

A token sees itself and the tokens before it. What it has of position is a
rotation of queries and keys: pair k of a head turns by position * theta^(-2k/K)
radians, where a pair is dimension k of the first half and k of the second.

There are two ways to run it. `__call__` takes whole sequences: training.
`prefill` and `extend` keep the keys and values of what has been read, so that
new tokens cost only themselves: several questions about one video, or an
answer token by token. Neither knows where embeddings come from; `embed` makes
those of text.

Legend: B batch, N tokens, M new tokens, S places of a cache, L layers,
D width, H query heads, G key heads, K width of a head, F width of the
feed-forward layer, V vocabulary.
"""

import functools
from typing import NamedTuple, Self

from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np

from lift_jax.models.attention import attention
from lift_jax.models.functional import stack
from lift_jax.models.llama.config import LlamaConfig
from lift_jax.models.llama.sharding import CACHE, LOOKUP, TOKENS
from lift_jax.models.remat import scan_layers
from lift_jax.partitioning import constrain

# Of embeddings: initializer_range of the published configs. Kernels begin with
# 1 / sqrt(inputs), which is about as much at the width of published models, and
# does not let what passes a narrow one vanish.
INIT_STDDEV = 0.02


class Cache(NamedTuple):
  """Keys and values of the tokens that have been read.

  Token n of a row stands at place n. What lies at a row's length and beyond
  means nothing, and is overwritten.

  Attributes:
    keys_lbsgk: rotated keys [L, B, S, G, K], in the compute type.
    values_lbsgk: values [L, B, S, G, K].
    lengths_b: int32 [B], tokens of each row.
  """

  keys_lbsgk: jax.Array
  values_lbsgk: jax.Array
  lengths_b: jax.Array

  def repeat(self, times: int) -> Self:
    """Each row `times` times: rows 0, 0, 0, 1, 1, 1, ... for 3."""
    keys, values = (
      constrain(jnp.repeat(x_lbsgk, times, axis=1), CACHE)
      for x_lbsgk in (self.keys_lbsgk, self.values_lbsgk)
    )
    return type(self)(keys, values, jnp.repeat(self.lengths_b, times))


def last_token(x_bnd: jax.Array, lengths_b: jax.Array) -> jax.Array:
  """[B, D]: of each row the last of its `lengths_b` tokens, at least one."""
  return jnp.take_along_axis(x_bnd, lengths_b[:, None, None] - 1, axis=1)[:, 0]


def rotary_tables(
  positions_bn: jax.Array, head_dim: int, theta: float
) -> tuple[jax.Array, jax.Array]:
  """Cosines and sines, fp32 [B, N, K / 2], of whole positions."""
  rates = theta ** (-np.arange(0, head_dim, 2) / head_dim)
  angles = positions_bn.astype(jnp.float32)[..., None] * jnp.asarray(
    rates, jnp.float32
  ).reshape(1, 1, -1)
  return jnp.cos(angles), jnp.sin(angles)


def rotate(x_bnhk: jax.Array, tables: tuple[jax.Array, jax.Array]) -> jax.Array:
  """Turns the pairs (x[k], x[K/2 + k]) of every head, in fp32."""
  cos, sin = (table[:, :, None, :] for table in tables)
  first, second = jnp.split(x_bnhk.astype(jnp.float32), 2, axis=-1)
  turned = jnp.concatenate(
    [first * cos - second * sin, second * cos + first * sin], axis=-1
  )
  return turned.astype(x_bnhk.dtype)


class Layers:
  """Layers of one precision: fp32 statistics, `dtype` everywhere else."""

  def __init__(self, config: LlamaConfig, dtype, param_dtype, rngs: nnx.Rngs):
    self.linear = functools.partial(
      nnx.Linear,
      use_bias=False,
      dtype=dtype,
      param_dtype=param_dtype,
      rngs=rngs,
    )
    self.norm = functools.partial(
      nnx.RMSNorm,
      config.width,
      epsilon=config.norm_eps,
      dtype=dtype,
      param_dtype=param_dtype,
      rngs=rngs,
    )


class Attention(nnx.Module):
  """Rotated queries and keys, and the way back to the width of a token.

  Which keys a query meets is left to the caller.
  """

  def __init__(self, config: LlamaConfig, layers: Layers):
    head_dim = config.head_dim
    self.to_q = layers.linear(config.width, config.num_heads * head_dim)
    self.to_k = layers.linear(config.width, config.num_kv_heads * head_dim)
    self.to_v = layers.linear(config.width, config.num_kv_heads * head_dim)
    self.to_out = layers.linear(config.num_heads * head_dim, config.width)
    self.head_dim = head_dim

  def __call__(self, x_bnd, rotation, attend):
    batch, tokens, _ = x_bnd.shape

    def heads(x_bnc):
      return x_bnc.reshape(batch, tokens, -1, self.head_dim)

    out_bnhk, kept = attend(
      rotate(heads(self.to_q(x_bnd)), rotation),
      rotate(heads(self.to_k(x_bnd)), rotation),
      heads(self.to_v(x_bnd)),
    )
    out_bnc = out_bnhk.reshape(batch, tokens, -1)
    return self.to_out(out_bnc), kept


class GatedMLP(nnx.Module):
  """(silu(x W_gate) * x W_up) W_down."""

  def __init__(self, config: LlamaConfig, layers: Layers):
    self.gate = layers.linear(config.width, config.mlp_width)
    self.up = layers.linear(config.width, config.mlp_width)
    self.down = layers.linear(config.mlp_width, config.width)

  def __call__(self, x_bnd):
    return self.down(jax.nn.silu(self.gate(x_bnd)) * self.up(x_bnd))


class Block(nnx.Module):
  """Attention and feed-forward layer, each after a norm, each added."""

  def __init__(self, config: LlamaConfig, layers: Layers):
    self.attn_norm = layers.norm()
    self.attn = Attention(config, layers)
    self.mlp_norm = layers.norm()
    self.mlp = GatedMLP(config, layers)

  def __call__(self, x_bnd, rotation, attend):
    """`attend(q, k, v)` returns [B, N, H, K] and whatever it keeps."""
    h_bnd, kept = self.attn(self.attn_norm(x_bnd), rotation, attend)
    x_bnd = x_bnd + h_bnd
    return x_bnd + self.mlp(self.mlp_norm(x_bnd)), kept


class Decoder(nnx.Module):
  """Embeddings to hidden states, and those to logits.

  Args:
    config: sizes.
    dtype: type of the computation; parameters keep `param_dtype`. Norms,
      rotations, softmax and logits are fp32.
    remat: a name of `REMAT_POLICIES`, what `__call__` keeps for a backward
      pass.
    attention_backend: see `models.attention`.
  """

  def __init__(
    self,
    config: LlamaConfig,
    *,
    dtype=jnp.float32,
    param_dtype=jnp.float32,
    remat: str = 'none',
    attention_backend: str = 'auto',
    rngs: nnx.Rngs,
  ):
    layers = Layers(config, dtype, param_dtype, rngs)
    self.token_embedding = nnx.Embed(
      config.vocab_size,
      config.width,
      dtype=dtype,
      param_dtype=param_dtype,
      embedding_init=nnx.initializers.normal(INIT_STDDEV),
      rngs=rngs,
    )
    self.blocks = stack(
      lambda rngs: Block(config, Layers(config, dtype, param_dtype, rngs)),
      config.num_layers,
      rngs,
    )
    self.final_norm = layers.norm()
    # A bf16 logit of 20 is off by up to 1/16, which is 6 % of a probability.
    self.head = layers.linear(
      config.width, config.vocab_size, preferred_element_type=jnp.float32
    )
    self.config = config
    self.dtype = dtype
    self.remat = remat
    self.attention_backend = attention_backend

  def embed(self, tokens_bn: jax.Array) -> jax.Array:
    """Embeddings [B, N, D] of tokens, int [B, N], each from 0 to V - 1."""
    table_vd = self.token_embedding.embedding[...].astype(self.dtype)
    # Rows of a batch and columns of the table lie along the same axis of a
    # mesh: whole columns, or the compiler copies all tokens to all devices.
    return jnp.take(constrain(table_vd, LOOKUP), tokens_bn, axis=0)

  def __call__(
    self,
    x_bnd: jax.Array,
    positions_bn: jax.Array,
    segment_ids_bn: jax.Array | None = None,
  ) -> jax.Array:
    """Hidden states of whole sequences.

    A row may hold several sequences, one after the other, and padding
    anywhere. Where rows hold one sequence each, padded on the right, segments
    are not needed: no token sees what comes after it. Without them attention
    can take faster paths.

    Args:
      x_bnd: embeddings [B, N, D].
      positions_bn: int [B, N], of each token in its own sequence, from 0.
      segment_ids_bn: int [B, N], a number for each sequence of a row and 0
        for padding; tokens attend to their own segment only.

    Returns:
      [B, N, D] in the compute type, after the final norm. Those of padding
      are finite and mean nothing.
    """
    self._check_width(x_bnd)

    def attend(q_bnhk, k_bngk, v_bngk, *_):
      out_bnhk = self._attention(
        q_bnhk, k_bngk, v_bngk, segment_ids_bn=segment_ids_bn
      )
      return out_bnhk, None

    return self._run_blocks(x_bnd, positions_bn, attend, None)[0]

  def prefill(
    self, x_bnd: jax.Array, lengths_b: jax.Array, *, max_length: int
  ) -> tuple[jax.Array, Cache]:
    """Reads the first tokens of every row, from position 0.

    Args:
      x_bnd: embeddings [B, N, D], padded on the right.
      lengths_b: int [B], tokens of each row without padding, 0 to N.
      max_length: places S of the cache, for these tokens and all that are to
        come.

    Returns:
      Hidden states [B, N, D] as of `__call__`, and the cache. A row whose
      length is not from 0 to N becomes NaN and stays so, since a compiled
      program cannot raise.

    Raises:
      ValueError: max_length is less than N, or more than the model can do.
    """
    self._check_width(x_bnd)
    batch, num_tokens, _ = x_bnd.shape
    config = self.config
    if not num_tokens <= max_length <= config.max_length:
      raise ValueError(
        f'a cache of {max_length} places: it must hold the {num_tokens} first '
        f'tokens, and the model is made for {config.max_length}'
      )
    shape = (
      config.num_layers,
      batch,
      max_length,
      config.num_kv_heads,
      config.head_dim,
    )
    empty = constrain(jnp.zeros(shape, self.dtype), CACHE)
    cache = Cache(empty, empty, jnp.zeros(batch, jnp.int32))
    return self._read(x_bnd, lengths_b, cache, is_first=True)

  def extend(
    self, x_bmd: jax.Array, lengths_b: jax.Array, cache: Cache
  ) -> tuple[jax.Array, Cache]:
    """Reads more tokens: those of a row follow what its cache holds.

    Several questions about one text: `cache.repeat(3)`, and a row for each
    question. Decoding: one token a row, with length 0 where a row is done.

    Args:
      x_bmd: embeddings [B, M, D], padded on the right.
      lengths_b: int [B], new tokens of each row without padding, 0 to M.
      cache: of the same B rows. To save memory, donate it to `jax.jit`.

    Returns:
      Hidden states [B, M, D] as of `__call__`, and the cache with the new
      tokens. A row whose length is not from 0 to M, or that has outgrown the
      cache, becomes NaN and stays so, since a compiled program cannot raise.
    """
    self._check_width(x_bmd)
    if x_bmd.shape[0] != cache.lengths_b.shape[0]:
      raise ValueError(
        f'{x_bmd.shape[0]} rows of new tokens, {cache.lengths_b.shape[0]} rows '
        'in the cache: see Cache.repeat'
      )
    return self._read(x_bmd, lengths_b, cache, is_first=False)

  def logits(self, x_bnd: jax.Array) -> jax.Array:
    """Logits, fp32 [..., V], of hidden states [..., D]."""
    return self.head(x_bnd).astype(jnp.float32)

  def _check_width(self, x_bnd):
    if x_bnd.ndim != 3 or x_bnd.shape[-1] != self.config.width:
      raise ValueError(
        f'embeddings [B, N, {self.config.width}] are needed, not '
        f'{list(x_bnd.shape)}'
      )

  def _attention(self, q_bnhk, k_bmgk, v_bmgk, **mask):
    return attention(
      q_bnhk,
      k_bmgk,
      v_bmgk,
      is_causal=True,
      backend=self.attention_backend,
      **mask,
    )

  def _read(self, x_bmd, lengths_b, cache: Cache, is_first: bool):
    """Hidden states of new tokens, and the cache with them."""
    num_new, num_places = x_bmd.shape[1], cache.keys_lbsgk.shape[2]
    steps_m = jnp.arange(num_new, dtype=jnp.int32)
    places_bm = cache.lengths_b[:, None] + steps_m[None]

    def attend(q_bmhk, k_bmgk, v_bmgk, layer, kept):
      kept = tuple(
        _write(cached, new, layer, places_bm)
        for cached, new in zip(kept, (k_bmgk, v_bmgk), strict=True)
      )
      if is_first:
        return self._attention(q_bmhk, k_bmgk, v_bmgk), kept
      k_bsgk, v_bsgk = (
        jax.lax.dynamic_index_in_dim(cached, layer, keepdims=False)
        for cached in kept
      )
      out_bmhk = self._attention(
        q_bmhk, k_bsgk, v_bsgk, starts_b=cache.lengths_b
      )
      return out_bmhk, kept

    x_bmd, kept = self._run_blocks(
      x_bmd, places_bm, attend, (cache.keys_lbsgk, cache.values_lbsgk)
    )
    total_b = cache.lengths_b + lengths_b.astype(jnp.int32)
    is_sound_b = (0 <= lengths_b) & (lengths_b <= num_new)
    is_sound_b &= total_b <= num_places
    # More than fits, so that the row stays NaN in all that follows.
    total_b = jnp.where(is_sound_b, total_b, num_places + 1)
    x_bmd = jnp.where(is_sound_b[:, None, None], x_bmd, jnp.nan)
    return x_bmd, Cache(*kept, total_b)

  def _run_blocks(self, x_bnd, positions_bn, attend, kept):
    """All blocks and the final norm.

    Args:
      attend: `attend(q, k, v, layer, kept)` returns [B, N, H, K] and `kept`
        for the next layer.
      kept: for the first layer.

    Returns:
      Hidden states, and `kept` of the last layer.
    """
    graphdef, blocks = nnx.split(self.blocks)
    rotation = rotary_tables(
      positions_bn, self.config.head_dim, self.config.rope_theta
    )

    def body(carry, layer):
      x_bnd, kept = carry
      index, params = layer
      block = nnx.merge(graphdef, params)
      x_bnd, kept = block(
        x_bnd, rotation, lambda q, k, v: attend(q, k, v, index, kept)
      )
      return (constrain(x_bnd, TOKENS), kept), None

    layers = jnp.arange(self.config.num_layers)
    x_bnd = constrain(x_bnd.astype(self.dtype), TOKENS)
    x_bnd, kept = scan_layers(body, (x_bnd, kept), (layers, blocks), self.remat)
    return self.final_norm(x_bnd), kept


def _write(cached_lbsgk, new_bmgk, layer, places_bm):
  """Puts new keys or values of one layer at their places.

  Beyond the last place there is padding, or a row that `_read` will make NaN:
  both are dropped. Rows are mapped, so that on a mesh each device writes its
  own.
  """

  def write_row(cached_lsgk, new_mgk, places_m):
    return cached_lsgk.at[layer, places_m].set(new_mgk, mode='drop')

  return constrain(
    jax.vmap(write_row, in_axes=(1, 0, 0), out_axes=1)(
      cached_lbsgk, new_bmgk, places_bm
    ),
    CACHE,
  )
