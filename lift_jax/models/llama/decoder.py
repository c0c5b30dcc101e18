"""Llama decoder (arXiv 2302.13971; shared key heads: arXiv 2305.13245).

  x <- x + Attention(rms(x))
  x <- x + (silu(rms(x) W_gate) * rms(x) W_up) W_down

Attention is causal. Positions are encoded as rotations of queries and keys:
pair k of a head turns by position * theta^(-2k/K) radians (see rotary.py).

Qwen3 (arXiv 2505.09388) is this decoder with a norm on each query and key head,
before the rotation. Qwen3-VL has a position for each pair, and adds features of
images to the hidden states after the first layers (DeepStack, arXiv
2406.04334).

There are two ways to run it. `__call__` takes complete sequences, for training.
`prefill` and `extend` cache keys and values, so that only new tokens are
computed: several questions about one video, or an answer token by token (see
cache.py). All of them take embeddings; `embed` makes those of text.

Legend: B batch, N tokens, R sequences of a cache, M new tokens of a sequence,
S slots of a cache, L layers, D width, H query heads, G key heads, K width of a
head, F width of the feed-forward layer, V vocabulary, A first layers whose
results something is added to.
"""

import functools

from flax import nnx
import jax
import jax.numpy as jnp

from lift_jax.models.attention import attention
from lift_jax.models.functional import stack
from lift_jax.models.linear import Linear
from lift_jax.models.llama import cache as cache_lib
from lift_jax.models.llama.cache import KVCache
from lift_jax.models.llama.config import LlamaConfig
from lift_jax.models.llama.sharding import CACHE, LOOKUP, TOKENS
from lift_jax.models.remat import scan_layers
from lift_jax.models.rotary import rotary_rates, rotary_tables, rotate
from lift_jax.partitioning import constrain

# Of embeddings: initializer_range of the published configs. Kernels have
# 1 / sqrt(inputs), which is about the same at the width of published models,
# and keeps activations from vanishing in narrow ones.
INIT_STDDEV = 0.02


class Layers:
  """Builds layers that compute norms in fp32 and all else in `dtype`."""

  def __init__(self, config: LlamaConfig, dtype, param_dtype, rngs: nnx.Rngs):
    self.linear = functools.partial(
      Linear,
      use_bias=False,
      dtype=dtype,
      param_dtype=param_dtype,
      rngs=rngs,
    )
    self.norm = functools.partial(
      nnx.RMSNorm,
      epsilon=config.norm_eps,
      dtype=dtype,
      param_dtype=param_dtype,
      rngs=rngs,
    )


class Attention(nnx.Module):
  """Projections and rotary embeddings; the caller computes the attention."""

  def __init__(self, config: LlamaConfig, layers: Layers, qk_norm: bool):
    head_dim = config.head_dim
    self.to_q = layers.linear(config.width, config.num_heads * head_dim)
    self.to_k = layers.linear(config.width, config.num_kv_heads * head_dim)
    self.to_v = layers.linear(config.width, config.num_kv_heads * head_dim)
    self.to_out = layers.linear(config.num_heads * head_dim, config.width)
    self.q_norm = layers.norm(head_dim) if qk_norm else None
    self.k_norm = layers.norm(head_dim) if qk_norm else None
    self.head_dim = head_dim

  def __call__(self, x_bnd, rotation, attend):
    batch, tokens, _ = x_bnd.shape

    def heads(x_bnc, norm=None):
      x_bnhk = x_bnc.reshape(batch, tokens, -1, self.head_dim)
      return x_bnhk if norm is None else norm(x_bnhk)

    out_bnhk, kept = attend(
      rotate(heads(self.to_q(x_bnd), self.q_norm), rotation),
      rotate(heads(self.to_k(x_bnd), self.k_norm), rotation),
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

  def __init__(self, config: LlamaConfig, layers: Layers, qk_norm: bool):
    self.attn_norm = layers.norm(config.width)
    self.attn = Attention(config, layers, qk_norm)
    self.mlp_norm = layers.norm(config.width)
    self.mlp = GatedMLP(config, layers)

  def __call__(self, x_bnd, rotation, attend):
    """`attend(q, k, v)` returns [B, N, H, K] and any state to keep."""
    h_bnd, kept = self.attn(self.attn_norm(x_bnd), rotation, attend)
    x_bnd = x_bnd + h_bnd
    return x_bnd + self.mlp(self.mlp_norm(x_bnd)), kept


class Decoder(nnx.Module):
  """Computes hidden states from embeddings, and logits from hidden states.

  Args:
    config: sizes.
    qk_norm: whether query and key heads have a norm.
    tied_head: whether the head is the token embedding.
    dtype: of the computation; parameters have `param_dtype`. Norms, rotations,
      softmax and logits are fp32.
    remat: a name of `REMAT_POLICIES`, for the backward pass of `__call__`.
    attention_backend: see `models.attention`.
  """

  def __init__(
    self,
    config: LlamaConfig,
    *,
    qk_norm: bool = False,
    tied_head: bool = False,
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
      lambda rngs: Block(
        config, Layers(config, dtype, param_dtype, rngs), qk_norm
      ),
      config.num_layers,
      rngs,
    )
    self.final_norm = layers.norm(config.width)
    # A bf16 logit of 20 is off by up to 1/16, which is 6 % of a probability.
    self.head = (
      None
      if tied_head
      else layers.linear(
        config.width, config.vocab_size, preferred_element_type=jnp.float32
      )
    )
    self.config = config
    self.dtype = dtype
    self.remat = remat
    self.attention_backend = attention_backend

  def embed(self, tokens_bn: jax.Array) -> jax.Array:
    """Embeddings [B, N, D] of tokens, int [B, N], each from 0 to V - 1."""
    table_vd = self.token_embedding.embedding[...].astype(self.dtype)
    # The batch and the table's columns are sharded over the same mesh axis.
    # Columns are gathered first, or XLA would copy all tokens to all devices.
    return jnp.take(constrain(table_vd, LOOKUP), tokens_bn, axis=0)

  def __call__(
    self,
    x_bnd: jax.Array,
    positions: jax.Array,
    segment_ids_bn: jax.Array | None = None,
    *,
    added_abnd: jax.Array | None = None,
  ) -> jax.Array:
    """Hidden states of complete sequences.

    Sequences can be packed: several per batch slot, with padding anywhere. A
    single sequence per slot, padded on the right, needs no segments, as
    attention is causal; without them attention can take faster paths.

    Args:
      x_bnd: embeddings [B, N, D].
      positions: int [B, N], of each token in its own sequence, from 0; or
        [B, N, K / 2], one for each pair of a head.
      segment_ids_bn: int [B, N], a number for each packed sequence and 0 for
        padding; tokens attend to their own segment only.
      added_abnd: added to the hidden states after each of the first A layers;
        none by default.

    Returns:
      [B, N, D] in the compute dtype, after the final norm. Those of padding
      are finite but meaningless.
    """
    self._check_width(x_bnd)

    def attend(q_bnhk, k_bngk, v_bngk, *_):
      out_bnhk = self._attention(
        q_bnhk, k_bngk, v_bngk, is_causal=True, segment_ids_bn=segment_ids_bn
      )
      return out_bnhk, None

    return self._run_blocks(x_bnd, positions, attend, None, added_abnd)[0]

  def prefill(
    self,
    x_bnd: jax.Array,
    lengths_b: jax.Array,
    *,
    max_length: int,
    num_branches: int = 1,
    positions: jax.Array | None = None,
    next_position_b: jax.Array | None = None,
    added_abnd: jax.Array | None = None,
  ) -> tuple[jax.Array, KVCache]:
    """Runs prompts and fills a cache.

    Args:
      x_bnd: embeddings [B, N, D], padded on the right.
      lengths_b: int [B], tokens of each prompt without padding, 0 to N.
      max_length: of a prompt and one of its branches; each branch has a
        capacity of max_length - N tokens.
      num_branches: number of continuations of each prompt.
      positions: as of `__call__`; by default tokens are counted from 0.
      next_position_b: int [B], of the first token after each prompt; by default
        the number of its tokens.
      added_abnd: as of `__call__`.

    Returns:
      Hidden states [B, N, D] as of `__call__`, and the cache. A prompt whose
      length is not from 0 to N becomes NaN and so do its branches, since a
      compiled program cannot raise.

    Raises:
      ValueError: max_length is less than N, or more than the model supports.
    """
    self._check_width(x_bnd)
    batch, num_tokens, _ = x_bnd.shape
    config = self.config
    if not num_tokens <= max_length <= config.max_length:
      raise ValueError(
        f'a cache of length {max_length}: it must hold {num_tokens} prompt '
        f'tokens, and the model supports up to {config.max_length}'
      )
    shape = (
      config.num_layers,
      batch,
      num_tokens + num_branches * (max_length - num_tokens),
      config.num_kv_heads,
      config.head_dim,
    )
    empty = constrain(jnp.zeros(shape, self.dtype), CACHE)
    slots_n = jnp.arange(num_tokens, dtype=jnp.int32)
    slots_bn = jnp.broadcast_to(slots_n[None], (batch, num_tokens))

    def attend(q_bnhk, k_bngk, v_bngk, layer, kept):
      kept = _written(kept, (k_bngk, v_bngk), layer, slots_bn)
      return self._attention(q_bnhk, k_bngk, v_bngk, is_causal=True), kept

    x_bnd, (keys_lbsgk, values_lbsgk) = self._run_blocks(
      x_bnd,
      slots_bn if positions is None else positions,
      attend,
      (empty, empty),
      added_abnd,
    )
    cache, is_valid_b = KVCache.of_prompts(
      keys_lbsgk,
      values_lbsgk,
      lengths_b,
      num_tokens,
      num_branches,
      next_position_b,
    )
    return _or_nan(x_bnd, is_valid_b), cache

  def extend(
    self, x_rmd: jax.Array, lengths_r: jax.Array, cache: KVCache
  ) -> tuple[jax.Array, KVCache]:
    """Appends new tokens to the branches of a cache.

    Several questions about a prompt: one sequence each. Decoding: one token per
    sequence, with length 0 for a finished one.

    Args:
      x_rmd: embeddings [R, M, D], padded on the right; sequences are prompts x
        branches, those of a prompt adjacent.
      lengths_r: int [R], new tokens of each sequence without padding, 0 to M.
      cache: of the same R sequences. To save memory, donate it to `jax.jit`.

    Returns:
      Hidden states [R, M, D] as of `__call__`, and the cache with the new
      tokens. A sequence whose length is not from 0 to M, or that exceeds its
      branch's capacity, is NaN from then on, since a compiled program cannot
      raise.
    """
    self._check_width(x_rmd)
    if x_rmd.shape[0] != cache.num_sequences:
      raise ValueError(
        f'{x_rmd.shape[0]} sequences of new tokens, {cache.num_sequences} '
        'sequences in the cache: see num_branches of prefill'
      )
    num_new = x_rmd.shape[1]
    new = cache.new_slots(num_new)

    def attend(q_rmhk, k_rmgk, v_rmgk, layer, kept):
      # The branches of a prompt are joined here: the prompt is not repeated.
      q_bnhk, k_bngk, v_bngk = (
        x.reshape(*new.slots_bn.shape, *x.shape[2:])
        for x in (q_rmhk, k_rmgk, v_rmgk)
      )
      kept = _written(kept, (k_bngk, v_bngk), layer, new.slots_bn)
      k_bsgk, v_bsgk = (
        jax.lax.dynamic_index_in_dim(cached, layer, keepdims=False)
        for cached in kept
      )
      out_bnhk = self._attention(
        q_bnhk, k_bsgk, v_bsgk, mask_bnm=new.visible_bns
      )
      return out_bnhk.reshape(q_rmhk.shape), kept

    x_rmd, (keys_lbsgk, values_lbsgk) = self._run_blocks(
      x_rmd, new.positions_rm, attend, (cache.keys_lbsgk, cache.values_lbsgk)
    )
    cache, is_valid_r = cache.extended(
      keys_lbsgk, values_lbsgk, lengths_r, num_new
    )
    return _or_nan(x_rmd, is_valid_r), cache

  def logits(self, x_bnd: jax.Array) -> jax.Array:
    """Logits, fp32 [..., V], of hidden states [..., D]."""
    if self.head is not None:
      return self.head(x_bnd).astype(jnp.float32)
    table_vd = self.token_embedding.embedding[...].astype(self.dtype)
    return jnp.einsum(
      '...d,vd->...v', x_bnd, table_vd, preferred_element_type=jnp.float32
    )

  def _check_width(self, x_bnd):
    if x_bnd.ndim != 3 or x_bnd.shape[-1] != self.config.width:
      raise ValueError(
        f'shape {list(x_bnd.shape)}; give embeddings [B, N, '
        f'{self.config.width}]'
      )

  def _attention(self, q_bnhk, k_bmgk, v_bmgk, **mask):
    return attention(
      q_bnhk,
      k_bmgk,
      v_bmgk,
      backend=self.attention_backend,
      **mask,
    )

  def _run_blocks(self, x_bnd, positions, attend, kept, added_abnd=None):
    """Runs all blocks and the final norm.

    Args:
      positions: as of `__call__`.
      attend: `attend(q, k, v, layer, kept)` returns [B, N, H, K] and `kept`
        for the next layer.
      kept: for the first layer.
      added_abnd: as of `__call__`.

    Returns:
      Hidden states, and `kept` of the last layer.
    """
    graphdef, blocks = nnx.split(self.blocks)
    rates_k = rotary_rates(self.config.head_dim, self.config.rope_theta)
    if positions.ndim == 2:
      positions = positions[:, :, None]
    rotation = rotary_tables(positions, rates_k)

    def body(carry, layer):
      x_bnd, kept = carry
      index, params = layer
      block = nnx.merge(graphdef, params)
      x_bnd, kept = block(
        x_bnd, rotation, lambda q, k, v: attend(q, k, v, index, kept)
      )
      if added_abnd is not None:
        x_bnd = _with_added(x_bnd, added_abnd, index)
      return (constrain(x_bnd, TOKENS), kept), None

    layers = jnp.arange(self.config.num_layers)
    x_bnd = constrain(x_bnd.astype(self.dtype), TOKENS)
    x_bnd, kept = scan_layers(body, (x_bnd, kept), (layers, blocks), self.remat)
    return self.final_norm(x_bnd), kept


def _with_added(x_bnd, added_abnd, layer):
  """Hidden states after `layer`; a traced number, as layers are one program."""
  num_added = added_abnd.shape[0]
  added_bnd = jax.lax.dynamic_index_in_dim(
    added_abnd, jnp.minimum(layer, num_added - 1), keepdims=False
  )
  return jnp.where(layer < num_added, x_bnd + added_bnd, x_bnd)


def _written(kept, new, layer, slots_bn):
  """Keys and values, with the new ones of a layer in their slots."""
  return tuple(
    cache_lib.write(cached, of_layer, layer, slots_bn)
    for cached, of_layer in zip(kept, new, strict=True)
  )


def _or_nan(x_rmd, is_valid_r):
  return jnp.where(is_valid_r[:, None, None], x_rmd, jnp.nan)
