"""Attention, one function for every platform.

B batch  N queries  M keys  H heads  G key heads, dividing H  K head dim
"""

import functools
import math
from typing import NamedTuple

import jax
from jax.ad_checkpoint import checkpoint_name
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from lift_jax.errors import UserError
from lift_jax.models import remat, splash_attention
from lift_jax.partitioning import BATCH_AXES

BACKENDS = ('auto', 'xla', 'cudnn', 'splash')

# Scores of one chunk are [B, H, QUERY_CHUNK, M] in fp32: at the 17,776 tokens
# of CogVideoX about 2 GiB for each video, whatever the number of queries.
QUERY_CHUNK = 1024


class _Mask(NamedTuple):
  """What a query sees; None where there is no such condition.

  Attributes:
    last_key_bn: a query sees the keys up to this one.
    q_segment_bn: a query sees the keys of the same segment ...
    k_segment_bm: ... which stand here.
  """

  last_key_bn: jax.Array | None = None
  q_segment_bn: jax.Array | None = None
  k_segment_bm: jax.Array | None = None


def attention(
  q_bnhk: jax.Array,
  k_bmgk: jax.Array,
  v_bmgk: jax.Array,
  *,
  is_causal: bool = False,
  starts_b: jax.Array | None = None,
  segment_ids_bn: jax.Array | None = None,
  backend: str = 'auto',
  query_chunk: int = QUERY_CHUNK,
) -> jax.Array:
  """softmax(q k^T / sqrt(K)) v, softmax in fp32; without a mask unless told.

  Where G is less than H, H / G consecutive query heads share a key head.

  Under a mesh (`jax.set_mesh`) the batch is split over 'data' and 'fsdp',
  heads over 'tensor', and queries over 'context', where each device gathers
  all keys and values; so the context axis puts no condition on the number of
  heads. The tensor axis must divide both H and G.

  Args:
    q_bnhk: queries [B, N, H, K].
    k_bmgk: keys [B, M, G, K].
    v_bmgk: values [B, M, G, K].
    is_causal: query n sees the keys up to n, and N = M; or, with `starts_b`,
      up to starts_b + n.
    starts_b: int [B], where the first query of a row stands among the keys.
    segment_ids_bn: int [B, N] with N = M; a query sees the keys of its own
      segment only. Any number is a segment, zero too.
    backend: 'xla' is exact and chunked over queries so that memory does not
      grow with N * M; 'cudnn' is the fused kernel of NVIDIA GPUs and takes
      fp16 and bf16 only; 'splash' is the fused kernel of TPUs; 'auto' takes
      the kernel of the platform where it applies, on TPUs from 2,048 tokens.
      The kernels know no `starts_b`, and no causal mask over queries that are
      split over 'context', cudnn no segments either: those are left to 'xla'
      whatever the backend.
    query_chunk: queries that 'xla' handles at a time.

  Returns:
    [B, N, H, K] in the type of `q_bnhk`. A query that sees no key gets some
    finite value.

  Raises:
    UserError: 'splash' for devices that are no TPUs.
  """
  if backend not in BACKENDS:
    raise ValueError(f'attention backend {backend!r} is not one of {BACKENDS}')
  num_queries, num_keys = q_bnhk.shape[1], k_bmgk.shape[1]
  if starts_b is not None and not is_causal:
    raise ValueError('starts_b says where a causal mask begins: set is_causal')
  needs_square = segment_ids_bn is not None or (is_causal and starts_b is None)
  if needs_square and num_queries != num_keys:
    raise ValueError(
      f'{num_queries} queries and {num_keys} keys: segments, and a causal mask '
      'without starts_b, are of a sequence with itself'
    )

  mesh = jax.sharding.get_abstract_mesh()
  is_split = not mesh.empty and mesh.shape['context'] > 1
  backend = _choose(backend, q_bnhk, k_bmgk, mesh)
  if starts_b is not None or (is_causal and is_split):
    backend = 'xla'
  if backend == 'cudnn' and segment_ids_bn is not None:
    backend = 'xla'
  if backend == 'splash':
    local = functools.partial(_splash, is_causal=is_causal)
    mask = _Mask(None, segment_ids_bn, segment_ids_bn)
  elif backend == 'cudnn':
    local = functools.partial(_cudnn, is_causal=is_causal)
    mask = _Mask()
  else:
    local = functools.partial(_grouped, query_chunk=query_chunk)
    mask = _mask(q_bnhk, is_causal, starts_b, segment_ids_bn)

  if mesh.empty:
    return _named(local(q_bnhk, k_bmgk, v_bmgk, mask), backend)
  # Queries are padded where the context axis does not divide them.
  padding = -num_queries % mesh.shape['context']
  q_bnhk, mask = _pad_queries(q_bnhk, mask, padding)
  queries = P(BATCH_AXES, 'context', 'tensor', None)
  keys = P(BATCH_AXES, None, 'tensor', None)
  of_query, of_key = P(BATCH_AXES, 'context'), P(BATCH_AXES, None)
  out_bnhk = jax.shard_map(
    local,
    mesh=mesh,
    in_specs=(queries, keys, keys, _Mask(of_query, of_query, of_key)),
    out_specs=queries,
    check_vma=False,
  )(q_bnhk, k_bmgk, v_bmgk, mask)
  return _named(out_bnhk[:, :num_queries], backend)


def _named(out_bnhk, backend: str):
  """What `models.remat` knows the result by.

  Splash names what its backward pass needs, which holds the result too.
  """
  if backend == 'splash':
    return out_bnhk
  return checkpoint_name(out_bnhk, remat.ATTENTION)


def _choose(backend: str, q_bnhk, k_bmgk, mesh) -> str:
  # The devices of a mesh need not be here: a program can be compiled for a
  # slice of TPUs on any machine.
  device = None if mesh.empty else mesh.abstract_device
  platform = jax.default_backend() if device is None else device.platform
  if backend == 'splash' and not splash_attention.runs_on(platform):
    raise UserError(
      f"attention 'splash' is a kernel of TPUs, and the devices are {platform};"
      " set model.attention to 'auto'"
    )
  if backend != 'auto':
    return backend
  if platform == 'gpu' and q_bnhk.dtype in (jnp.bfloat16, jnp.float16):
    return 'cudnn'
  if platform == 'tpu' and splash_attention.is_worthwhile(q_bnhk, k_bmgk):
    return 'splash'
  return 'xla'


def _mask(q_bnhk, is_causal: bool, starts_b, segment_ids_bn) -> _Mask:
  batch, num_queries, _, _ = q_bnhk.shape
  last_key_bn = None
  if is_causal:
    last_key_bn = jnp.broadcast_to(
      jnp.arange(num_queries, dtype=jnp.int32)[None], (batch, num_queries)
    )
    if starts_b is not None:
      last_key_bn = starts_b[:, None] + last_key_bn
  return _Mask(last_key_bn, segment_ids_bn, segment_ids_bn)


def _map_queries(function, mask: _Mask) -> _Mask:
  """`function` of what `mask` holds of queries; of keys it stays."""
  last_key, q_segment = jax.tree.map(function, mask[:2])
  return _Mask(last_key, q_segment, mask.k_segment_bm)


def _pad_queries(q_bnhk, mask: _Mask, padding: int):
  q_bnhk = jnp.pad(q_bnhk, ((0, 0), (0, padding), (0, 0), (0, 0)))
  return q_bnhk, _map_queries(
    lambda x_bn: jnp.pad(x_bn, ((0, 0), (0, padding))), mask
  )


def _cudnn(q_bnhk, k_bmgk, v_bmgk, _: _Mask, *, is_causal: bool):
  return jax.nn.dot_product_attention(
    q_bnhk, k_bmgk, v_bmgk, is_causal=is_causal, implementation='cudnn'
  )


def _splash(q_bnhk, k_bmgk, v_bmgk, mask: _Mask, *, is_causal: bool):
  return splash_attention.splash_attention(
    q_bnhk,
    k_bmgk,
    v_bmgk,
    mask.q_segment_bn,
    mask.k_segment_bm,
    is_causal=is_causal,
  )


def _plain(q_bnhk, k_bmhk, v_bmhk, mask: _Mask):
  scale = 1.0 / math.sqrt(q_bnhk.shape[-1])
  scores_bhnm = jnp.einsum(
    'bnhk,bmhk->bhnm', q_bnhk, k_bmhk, preferred_element_type=jnp.float32
  )
  scores_bhnm = _hide(scores_bhnm * scale, mask)
  weights_bhnm = jax.nn.softmax(scores_bhnm, axis=-1)
  return jnp.einsum(
    'bhnm,bmhk->bnhk', weights_bhnm.astype(v_bmhk.dtype), v_bmhk
  )


def _hide(scores_bhnm, mask: _Mask):
  """Scores with the lowest number wherever a query does not see a key."""
  # Not minus infinity: a padded query may see nothing, and a softmax of
  # nothing would put NaN into the gradients of all.
  hidden = jnp.finfo(scores_bhnm.dtype).min
  if mask.last_key_bn is not None:
    keys_m = jnp.arange(scores_bhnm.shape[-1], dtype=jnp.int32)
    seen_bnm = keys_m[None, None, :] <= mask.last_key_bn[:, :, None]
    scores_bhnm = jnp.where(seen_bnm[:, None], scores_bhnm, hidden)
  if mask.q_segment_bn is not None:
    same_bnm = mask.q_segment_bn[:, :, None] == mask.k_segment_bm[:, None, :]
    scores_bhnm = jnp.where(same_bnm[:, None], scores_bhnm, hidden)
  return scores_bhnm


def _chunked(q_bnhk, k_bmhk, v_bmhk, mask: _Mask, query_chunk: int):
  """Exact attention over one chunk of queries at a time.

  Each chunk is recomputed in the backward pass, so that its scores never
  outlive it.
  """
  batch, num_queries, heads, dim = q_bnhk.shape
  if num_queries <= query_chunk:
    return _plain(q_bnhk, k_bmhk, v_bmhk, mask)
  q_bnhk, mask = _pad_queries(q_bnhk, mask, -num_queries % query_chunk)

  def chunks(x_bn):  # [B, N, ...] to [C, B, query_chunk, ...]
    shape = (batch, -1, query_chunk, *x_bn.shape[2:])
    return x_bn.reshape(shape).swapaxes(0, 1)

  @jax.checkpoint
  def one_chunk(part):
    q_bnhk, of_queries = part
    return _plain(q_bnhk, k_bmhk, v_bmhk, _Mask(*of_queries, mask.k_segment_bm))

  parts = (chunks(q_bnhk), jax.tree.map(chunks, mask[:2]))
  out_cbnhk = jax.lax.map(one_chunk, parts)
  out_bnhk = out_cbnhk.swapaxes(0, 1).reshape(batch, -1, heads, dim)
  return out_bnhk[:, :num_queries]


def _grouped(q_bnhk, k_bmgk, v_bmgk, mask: _Mask, *, query_chunk: int):
  """`_chunked` for any number of key heads.

  The r query heads that share a key head are r times as many queries of that
  head, so that keys and values are never repeated.
  """
  batch, num_queries, heads, dim = q_bnhk.shape
  key_heads = k_bmgk.shape[2]
  if heads == key_heads:
    return _chunked(q_bnhk, k_bmgk, v_bmgk, mask, query_chunk)
  shared = heads // key_heads
  q_bngrk = q_bnhk.reshape(batch, num_queries, key_heads, shared, dim)
  q_brngk = q_bngrk.transpose(0, 3, 1, 2, 4)
  out_bxgk = _chunked(
    q_brngk.reshape(batch, -1, key_heads, dim),
    k_bmgk,
    v_bmgk,
    _map_queries(lambda x_bn: jnp.tile(x_bn, (1, shared)), mask),
    query_chunk * shared,
  )
  out_brngk = out_bxgk.reshape(batch, shared, num_queries, key_heads, dim)
  return out_brngk.transpose(0, 2, 3, 1, 4).reshape(q_bnhk.shape)
