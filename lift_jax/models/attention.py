"""Attention with one interface for every platform.

B batch  N queries  M keys  H heads  G key heads, dividing H  K head dim
"""

import functools
import math
from typing import NamedTuple

import jax
from jax.ad_checkpoint import checkpoint_name
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from lift_jax import partitioning
from lift_jax.errors import UserError
from lift_jax.models import remat, splash_attention
from lift_jax.partitioning import BATCH_AXES

BACKENDS = ('auto', 'xla', 'cudnn', 'splash')

# Queries that the exact backend handles at a time. Scores of all heads at once
# are [B, H, QUERY_CHUNK, M] in fp32: at the 17,776 tokens of CogVideoX about
# 2 GiB per video, whatever the number of queries.
QUERY_CHUNK = 1024
# For one head at a time: at 1,250 tokens 1.2 MiB, which fit a core's cache.
QUERY_CHUNK_OF_HEAD = 256

# The score of a masked key.
_MASKED = float(jnp.finfo(jnp.float32).min)

_dot = functools.partial(jnp.einsum, preferred_element_type=jnp.float32)


class _Mask(NamedTuple):
  """Conditions on the keys that a query attends to; None for no condition.

  Attributes:
    last_key_bn: index of the last key.
    mask_bnm: True for the keys to attend to.
    q_segment_bn: segments of the queries, which attend to keys of the same ...
    k_segment_bm: ... segment.
  """

  last_key_bn: jax.Array | None = None
  mask_bnm: jax.Array | None = None
  q_segment_bn: jax.Array | None = None
  k_segment_bm: jax.Array | None = None

  @property
  def of_queries(self) -> tuple[jax.Array | None, ...]:
    """The arrays with an axis of queries: all but the last."""
    return self[:-1]

  def with_queries(self, of_queries: tuple[jax.Array | None, ...]) -> '_Mask':
    """The mask of other queries, whose part is `of_queries`."""
    last_key_bn, seen_bnm, q_segment_bn = of_queries
    return _Mask(last_key_bn, seen_bnm, q_segment_bn, self.k_segment_bm)


def attention(
  q_bnhk: jax.Array,
  k_bmgk: jax.Array,
  v_bmgk: jax.Array,
  *,
  is_causal: bool = False,
  mask_bnm: jax.Array | None = None,
  segment_ids_bn: jax.Array | None = None,
  backend: str = 'auto',
  query_chunk: int | None = None,
  head_by_head: bool | None = None,
) -> jax.Array:
  """softmax(q k^T / sqrt(K)) v, with softmax in fp32 and optional masks.

  If G is less than H, H / G consecutive query heads share a key head.

  Under a mesh (`jax.set_mesh`) the batch is sharded over 'data' and 'fsdp',
  heads over 'tensor', and queries over 'context', where each device gathers
  all keys and values. So the context axis need not divide the number of heads;
  the tensor axis must divide both H and G.

  Args:
    q_bnhk: queries [B, N, H, K].
    k_bmgk: keys [B, M, G, K].
    v_bmgk: values [B, M, G, K].
    is_causal: query n attends to the keys up to n; requires N = M.
    mask_bnm: bool [B, N, M], True where a query attends to a key. It is for few
      queries, since it takes N * M bytes.
    segment_ids_bn: int [B, N] with N = M; a query attends to the keys of its
      own segment only. Any number is a segment, including zero.
    backend: 'xla' is exact and chunked over queries so that memory does not
      grow with N * M; 'cudnn' is the fused kernel of NVIDIA GPUs, for fp16 and
      bf16 only; 'splash' is the fused kernel of TPUs; 'auto' chooses the
      platform's kernel where it applies, on TPUs from 2,048 tokens. The kernels
      do not support `mask_bnm`, nor a causal mask over queries that are sharded
      over 'context', and cudnn does not support segments: 'xla' computes these
      cases whatever the backend.
    query_chunk: maximal number of queries that 'xla' handles at a time.
    head_by_head: whether 'xla' handles one head at a time if there is more than
      one chunk of queries. The default is True on CPUs, whose caches hold the
      scores of one head but not of all, and False elsewhere.

  Returns:
    [B, N, H, K] in the dtype of `q_bnhk`. The result of a query that attends to
    no key is finite but arbitrary.

  Raises:
    UserError: 'splash' for devices that are not TPUs.
  """
  if backend not in BACKENDS:
    raise ValueError(f'attention backend {backend!r} is not one of {BACKENDS}')
  num_queries, num_keys = q_bnhk.shape[1], k_bmgk.shape[1]
  is_square = num_queries == num_keys
  if not is_square and (is_causal or segment_ids_bn is not None):
    raise ValueError(
      f'{num_queries} queries and {num_keys} keys: segments and causal masks '
      'need as many queries as keys'
    )

  mesh = jax.sharding.get_abstract_mesh()
  platform = partitioning.platform()
  backend = _choose(backend, q_bnhk, k_bmgk, platform)
  if mask_bnm is not None or (is_causal and partitioning.splits_tokens()):
    backend = 'xla'
  if backend == 'cudnn' and segment_ids_bn is not None:
    backend = 'xla'
  if backend == 'splash':
    local = functools.partial(_splash, is_causal=is_causal)
    mask = _Mask(q_segment_bn=segment_ids_bn, k_segment_bm=segment_ids_bn)
  elif backend == 'cudnn':
    local = functools.partial(_cudnn, is_causal=is_causal)
    mask = _Mask()
  else:
    if head_by_head is None:
      head_by_head = platform == 'cpu'
    if query_chunk is None:
      query_chunk = QUERY_CHUNK_OF_HEAD if head_by_head else QUERY_CHUNK
    local = functools.partial(_exact, sizes=_Sizes(query_chunk, head_by_head))
    last_key_bn = _positions(q_bnhk) if is_causal else None
    mask = _Mask(last_key_bn, mask_bnm, segment_ids_bn, segment_ids_bn)

  if mesh.empty:
    return local(q_bnhk, k_bmgk, v_bmgk, mask)
  # Queries are padded where the context axis does not divide them.
  padding = -num_queries % mesh.shape['context']
  q_bnhk, mask = _pad_queries(q_bnhk, mask, padding)
  queries = P(BATCH_AXES, 'context', 'tensor', None)
  keys = P(BATCH_AXES, None, 'tensor', None)
  of_query, of_key = P(BATCH_AXES, 'context'), P(BATCH_AXES, None)
  # Partition specs in place of the arrays.
  # pyrefly: ignore[bad-argument-type]
  of_mask = _Mask(of_query, of_query, of_query, of_key)
  out_bnhk = jax.shard_map(
    local,
    mesh=mesh,
    in_specs=(queries, keys, keys, of_mask),
    out_specs=queries,
    check_vma=False,
  )(q_bnhk, k_bmgk, v_bmgk, mask)
  return out_bnhk[:, :num_queries]


def _choose(backend: str, q_bnhk, k_bmgk, platform: str) -> str:
  if backend == 'splash' and not splash_attention.runs_on(platform):
    raise UserError(
      f"attention 'splash' needs TPUs, and the devices are {platform}; set "
      "model.attention to 'auto'"
    )
  if backend != 'auto':
    return backend
  if platform == 'gpu' and q_bnhk.dtype in (jnp.bfloat16, jnp.float16):
    return 'cudnn'
  if platform == 'tpu' and splash_attention.is_worthwhile(q_bnhk, k_bmgk):
    return 'splash'
  return 'xla'


def _positions(q_bnhk) -> jax.Array:
  positions_n = jnp.arange(q_bnhk.shape[1], dtype=jnp.int32)
  return jnp.broadcast_to(positions_n[None], q_bnhk.shape[:2])


def _map_queries(function, mask: _Mask) -> _Mask:
  """Maps `function` over the arrays of `mask` that have an axis of queries."""
  return mask.with_queries(jax.tree.map(function, mask.of_queries))


def _pad_queries(q_bnhk, mask: _Mask, padding: int):
  def pad(x_bn):
    return jnp.pad(x_bn, [(0, 0), (0, padding)] + [(0, 0)] * (x_bn.ndim - 2))

  return pad(q_bnhk), _map_queries(pad, mask)


def _cudnn(q_bnhk, k_bmgk, v_bmgk, _: _Mask, *, is_causal: bool):
  batch, num_queries = q_bnhk.shape[:2]
  num_keys = k_bmgk.shape[1]
  query_lengths_b = key_lengths_b = None
  if num_queries % 2 or num_keys % 2:
    # JAX computes no gradients for odd lengths.
    query_lengths_b = jnp.full(batch, num_queries, jnp.int32)
    key_lengths_b = jnp.full(batch, num_keys, jnp.int32)
    q_bnhk, k_bmgk, v_bmgk = map(_pad_to_even, (q_bnhk, k_bmgk, v_bmgk))
  out_bnhk = jax.nn.dot_product_attention(
    q_bnhk,
    k_bmgk,
    v_bmgk,
    is_causal=is_causal,
    query_seq_lengths=query_lengths_b,
    key_value_seq_lengths=key_lengths_b,
    implementation='cudnn',
  )
  # Policies save the results of the kernel itself: see `remat`.
  return out_bnhk[:, :num_queries]


def _pad_to_even(x_bnhk):
  return jnp.pad(x_bnhk, [(0, 0), (0, x_bnhk.shape[1] % 2), (0, 0), (0, 0)])


def _splash(q_bnhk, k_bmgk, v_bmgk, mask: _Mask, *, is_causal: bool):
  return splash_attention.splash_attention(
    q_bnhk,
    k_bmgk,
    v_bmgk,
    mask.q_segment_bn,
    mask.k_segment_bm,
    is_causal=is_causal,
  )


class _Sizes(NamedTuple):
  """Chunk sizes of the exact backend: see `attention`."""

  query_chunk: int
  head_by_head: bool


def _exact(q_bnhk, k_bmgk, v_bmgk, mask: _Mask, *, sizes: _Sizes):
  """Exact attention for any number of key heads.

  The r query heads of a key head are treated as r times as many queries of one
  head, so that keys and values are not repeated.
  """
  batch, num_queries, heads, dim = q_bnhk.shape
  key_heads = k_bmgk.shape[2]
  shared = heads // key_heads
  q_bnhk = q_bnhk.reshape(batch, num_queries, key_heads, shared, dim)
  q_bgnk = q_bnhk.transpose(0, 2, 3, 1, 4).reshape(batch, key_heads, -1, dim)
  k_bgmk, v_bgmk = k_bmgk.transpose(0, 2, 1, 3), v_bmgk.transpose(0, 2, 1, 3)
  if shared > 1:
    mask = _map_queries(lambda x: jnp.concatenate([x] * shared, axis=1), mask)

  if num_queries <= sizes.query_chunk:
    out_bgnk = _over_heads(_plain)(mask, q_bgnk, k_bgmk, v_bgmk)
    out_bgnk = checkpoint_name(out_bgnk, remat.ATTENTION)
  else:
    if not sizes.head_by_head:
      sizes = sizes._replace(query_chunk=sizes.query_chunk * shared)
    out_bgnk = _chunked(sizes, mask, q_bgnk, k_bgmk, v_bgmk)
  out_bgrnk = out_bgnk.reshape(batch, key_heads, shared, num_queries, dim)
  out_bngrk = out_bgrnk.transpose(0, 3, 1, 2, 4)
  return out_bngrk.reshape(batch, num_queries, heads, dim)


def _over_heads(of_head, head_by_head: bool = False):
  """`of_head(mask, *arrays)` mapped over masks [B, ...], arrays [B, H, ...]."""

  def loop(function):
    return lambda *args: jax.lax.map(lambda arg: function(*arg), args)

  over = loop if head_by_head else jax.vmap

  def over_heads(mask, *arrays):
    return over(functools.partial(of_head, mask))(*arrays)

  return over(over_heads)


def _plain(mask: _Mask, q_nk, k_mk, v_mk):
  weights_nm = jax.nn.softmax(_scores(mask, q_nk, k_mk), axis=-1)
  return jnp.einsum('nm,mk->nk', weights_nm.astype(v_mk.dtype), v_mk)


def _scores(mask: _Mask, q_nk, k_mk):
  """q k^T / sqrt(K) [N, M] of one head in fp32, `_MASKED` for masked keys.

  Arrays of `mask` are without their batch axis.
  """
  scores_nm = _dot('nk,mk->nm', q_nk, k_mk) / math.sqrt(q_nk.shape[-1])
  # Not minus infinity: all keys of a padded query may be masked, and its
  # softmax would put NaN into all gradients.
  if mask.last_key_bn is not None:
    keys_m = jnp.arange(k_mk.shape[0], dtype=jnp.int32)
    is_past_nm = keys_m[None, :] <= mask.last_key_bn[:, None]
    scores_nm = jnp.where(is_past_nm, scores_nm, _MASKED)
  if mask.mask_bnm is not None:
    scores_nm = jnp.where(mask.mask_bnm, scores_nm, _MASKED)
  if mask.q_segment_bn is not None and mask.k_segment_bm is not None:
    same_nm = mask.q_segment_bn[:, None] == mask.k_segment_bm[None, :]
    scores_nm = jnp.where(same_nm, scores_nm, _MASKED)
  return scores_nm


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def _chunked(sizes: _Sizes, mask: _Mask, q_bhnk, k_bhmk, v_bhmk):
  """`_plain`, one chunk of queries at a time, as in FlashAttention-2 (Dao,
  arXiv:2307.08691).

  The backward pass recomputes the weights from the saved log-sum-exp of the
  scores, so that no scores outlive their chunk.
  """
  return _forward(sizes, mask, q_bhnk, k_bhmk, v_bhmk)[0]


def _forward(sizes: _Sizes, mask: _Mask, *arrays):
  of_head = functools.partial(_forward_of_head, sizes.query_chunk)
  out_and_log = _over_heads(of_head, sizes.head_by_head)(mask, *arrays)
  # Both are named, or the backward pass of a layer would recompute all of this.
  out_bhnk, log_bhn1 = checkpoint_name(out_and_log, remat.ATTENTION)
  return out_bhnk, (mask, *arrays, out_bhnk, log_bhn1)


def _backward(sizes: _Sizes, saved, grad_bhnk):
  of_head = functools.partial(_backward_of_head, sizes.query_chunk)
  grads = _over_heads(of_head, sizes.head_by_head)(*saved, grad_bhnk)
  return None, *grads


_chunked.defvjp(_forward, _backward)


def _forward_of_head(chunk: int, mask: _Mask, q_nk, k_mk, v_mk):
  def of_chunk(part):
    of_queries, q_ck = part
    scores_cm = _scores(mask.with_queries(of_queries), q_ck, k_mk)
    # Masked keys get no weight, even if all keys of a padded query are masked;
    # otherwise the largest weight is 1, and the sum no less.
    most_c1 = jnp.maximum(scores_cm.max(-1, keepdims=True), _MASKED / 2)
    weights_cm = jnp.exp(scores_cm - most_c1)
    sum_c1 = jnp.maximum(weights_cm.sum(-1, keepdims=True), 1.0)
    out_ck = _dot('cm,mk->ck', weights_cm.astype(v_mk.dtype), v_mk) / sum_c1
    return out_ck.astype(q_ck.dtype), most_c1 + jnp.log(sum_c1)

  parts = _in_chunks((mask.of_queries, q_nk), chunk)
  return _joined(jax.lax.map(of_chunk, parts), q_nk.shape[0])


def _backward_of_head(
  chunk: int, mask: _Mask, q_nk, k_mk, v_mk, out_nk, log_n1, grad_nk
):
  """With W the weights, O = W V and dW = dO V^T, the gradient of the scores is
  W * (dW - sum(W * dW)); the sum over keys equals that of O * dO over K."""
  scale = 1.0 / math.sqrt(q_nk.shape[-1])
  sum_n1 = _dot('nk,nk->n', out_nk, grad_nk)[:, None]

  def of_chunk(totals, part):
    of_queries, q_ck, grad_ck, log_c1, sum_c1 = part
    scores_cm = _scores(mask.with_queries(of_queries), q_ck, k_mk)
    weights_cm = jnp.exp(scores_cm - log_c1)
    dweights_cm = _dot('ck,mk->cm', grad_ck, v_mk)
    dscores_cm = weights_cm * (dweights_cm - sum_c1) * scale
    dscores_cm = dscores_cm.astype(k_mk.dtype)
    weights_cm = weights_cm.astype(v_mk.dtype)
    dk_mk, dv_mk = totals
    dk_mk += _dot('cm,ck->mk', dscores_cm, q_ck)
    dv_mk += _dot('cm,ck->mk', weights_cm, grad_ck)
    dq_ck = _dot('cm,mk->ck', dscores_cm, k_mk)
    return (dk_mk, dv_mk), dq_ck.astype(q_ck.dtype)

  zeros = tuple(jnp.zeros(x_mk.shape, jnp.float32) for x_mk in (k_mk, v_mk))
  parts = _in_chunks((mask.of_queries, q_nk, grad_nk, log_n1, sum_n1), chunk)
  (dk_mk, dv_mk), dq_ck = jax.lax.scan(of_chunk, zeros, parts)
  dq_nk = _joined(dq_ck, q_nk.shape[0])
  return dq_nk, dk_mk.astype(k_mk.dtype), dv_mk.astype(v_mk.dtype)


def _in_chunks(arrays, most: int):
  """[N, ...] to [C, size, ...], padded with as few zeros as possible."""

  def split(x_n):
    num_chunks = -(-x_n.shape[0] // most)
    size = -(-x_n.shape[0] // num_chunks)
    padding = [(0, num_chunks * size - x_n.shape[0])]
    padding += [(0, 0)] * (x_n.ndim - 1)
    return jnp.pad(x_n, padding).reshape(num_chunks, size, *x_n.shape[1:])

  return jax.tree.map(split, arrays)


def _joined(chunks, num_queries: int):
  """[C, size, ...] to [N, ...], without the padding."""
  return jax.tree.map(
    lambda x: x.reshape(-1, *x.shape[2:])[:num_queries], chunks
  )
