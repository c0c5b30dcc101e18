"""Full attention, one function for every platform.

B batch  N queries  M keys  H heads  K head dim
"""

import functools
import math

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec as P

from lift_jax.partitioning import BATCH_AXES

BACKENDS = ('auto', 'xla', 'cudnn')

# Scores of one chunk are [B, H, QUERY_CHUNK, M] in fp32: at the 17,776 tokens
# of CogVideoX about 2 GiB for each video, whatever the number of queries.
QUERY_CHUNK = 1024


def attention(
  q_bnhk: jax.Array,
  k_bmhk: jax.Array,
  v_bmhk: jax.Array,
  *,
  backend: str = 'auto',
  query_chunk: int = QUERY_CHUNK,
) -> jax.Array:
  """softmax(q k^T / sqrt(K)) v without a mask, softmax in fp32.

  Under a mesh (`jax.set_mesh`) the batch is split over 'data' and 'fsdp',
  heads over 'tensor', and queries over 'context', where each device gathers
  all keys and values; so the context axis puts no condition on the number of
  heads.

  Args:
    q_bnhk: queries [B, N, H, K].
    k_bmhk: keys [B, M, H, K].
    v_bmhk: values [B, M, H, K].
    backend: 'xla' is exact and chunked over queries so that memory does not
      grow with N * M; 'cudnn' is the fused kernel of NVIDIA GPUs and takes
      fp16 and bf16 only; 'auto' takes cudnn on a GPU where it applies.
    query_chunk: queries that 'xla' handles at a time.

  Returns:
    [B, N, H, K] in the type of `q_bnhk`.
  """
  if backend not in BACKENDS:
    raise ValueError(f'attention backend {backend!r} is not one of {BACKENDS}')
  if backend == 'auto':
    is_half = q_bnhk.dtype in (jnp.bfloat16, jnp.float16)
    on_gpu = jax.default_backend() == 'gpu'
    backend = 'cudnn' if on_gpu and is_half else 'xla'
  if backend == 'cudnn':
    local = functools.partial(
      jax.nn.dot_product_attention, implementation='cudnn'
    )
  else:
    local = functools.partial(_chunked, query_chunk=query_chunk)

  mesh = jax.sharding.get_abstract_mesh()
  if mesh.empty:
    return local(q_bnhk, k_bmhk, v_bmhk)
  # Queries are padded where the context axis does not divide them.
  num_queries = q_bnhk.shape[1]
  padding = -num_queries % mesh.shape['context']
  q_bnhk = jnp.pad(q_bnhk, ((0, 0), (0, padding), (0, 0), (0, 0)))
  queries = P(BATCH_AXES, 'context', 'tensor', None)
  keys = P(BATCH_AXES, None, 'tensor', None)
  out_bnhk = jax.shard_map(
    local,
    mesh=mesh,
    in_specs=(queries, keys, keys),
    out_specs=queries,
    check_vma=False,
  )(q_bnhk, k_bmhk, v_bmhk)
  return out_bnhk[:, :num_queries]


def _plain(q_bnhk, k_bmhk, v_bmhk):
  scale = 1.0 / math.sqrt(q_bnhk.shape[-1])
  scores_bhnm = jnp.einsum(
    'bnhk,bmhk->bhnm', q_bnhk, k_bmhk, preferred_element_type=jnp.float32
  )
  weights_bhnm = jax.nn.softmax(scores_bhnm * scale, axis=-1)
  return jnp.einsum(
    'bhnm,bmhk->bnhk', weights_bhnm.astype(v_bmhk.dtype), v_bmhk
  )


def _chunked(q_bnhk, k_bmhk, v_bmhk, query_chunk: int):
  """Exact attention over one chunk of queries at a time.

  Each chunk is recomputed in the backward pass, so that its scores never
  outlive it.
  """
  batch, num_queries, heads, dim = q_bnhk.shape
  if num_queries <= query_chunk:
    return _plain(q_bnhk, k_bmhk, v_bmhk)
  padding = -num_queries % query_chunk
  q_bnhk = jnp.pad(q_bnhk, ((0, 0), (0, padding), (0, 0), (0, 0)))
  q_cbnhk = q_bnhk.reshape(batch, -1, query_chunk, heads, dim).swapaxes(0, 1)
  one_chunk = jax.checkpoint(lambda q: _plain(q, k_bmhk, v_bmhk))
  out_cbnhk = jax.lax.map(one_chunk, q_cbnhk)
  out_bnhk = out_cbnhk.swapaxes(0, 1).reshape(batch, -1, heads, dim)
  return out_bnhk[:, :num_queries]
