"""Attention on TPUs with JAX's splash kernel, which never stores scores.

The kernel reads blocks of a multiple of 128 tokens. This module chooses the
block size, pads to it, and masks padded keys by a segment of their own.

B batch  N queries  M keys  H heads  G key heads, dividing H  K head dim
"""

from collections.abc import Callable, Iterator
import contextlib
import contextvars
import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lift_jax.models import remat

# Fewest tokens for which 'auto' chooses the kernel. This is an estimate, not
# measured: at 2,048 tokens padding costs at most 13% of the scores, at 1,025 (a
# frame of InternViT) 26%, and 'xla' stores little for so few.
MIN_TOKENS = 2048

# Largest share of scores wasted on padding, if blocks of LANES allow it.
MAX_WASTE = 0.03

# Blocks are multiples of this, the width of a TPU's vector registers.
LANES = 128

# Larger blocks mean fewer steps. With these sizes both passes compile within
# the 16 MiB of fast memory that XLA gives a kernel on v4, v5e and v5p, for head
# dims up to 256, in bf16 and fp32. Blocks of 640 do so for one video, but
# exceed it by 16 KiB in the step of CogVideoX-2B on batches of 8 (libtpu
# 0.0.42).
_MAX_BLOCK = 512
# Bytes of keys read at a time: 2,560 tokens of 128 numbers in bf16.
_MAX_READ = 2560 * 128 * 2

# The fused backward pass writes a partial gradient of all queries for each read
# of keys, and sums them. For more parts than this, two kernels are used, which
# need none of that memory but compute the scores twice.
_MAX_PARTS = 8

_is_interpreted = contextvars.ContextVar('is_interpreted', default=False)


@contextlib.contextmanager
def interpreted() -> Iterator[None]:
  """Interprets the kernel with Pallas on any platform while tracing.

  For tests, as it is far slower than other attention.
  """
  token = _is_interpreted.set(True)
  try:
    yield
  finally:
    _is_interpreted.reset(token)


def runs_on(platform: str) -> bool:
  return platform == 'tpu' or _is_interpreted.get()


def is_worthwhile(q_bnhk: jax.Array, k_bmgk: jax.Array) -> bool:
  """Whether 'auto' should choose the kernel on TPUs."""
  is_long = min(q_bnhk.shape[1], k_bmgk.shape[1]) >= MIN_TOKENS
  return is_long and q_bnhk.dtype in (jnp.bfloat16, jnp.float32)


class Blocks(NamedTuple):
  """Block size, and length of the sequence padded to blocks, in tokens."""

  block: int
  padded: int


def choose_blocks(length: int) -> Blocks:
  """The largest blocks whose padding stays within `MAX_WASTE`.

  Queries and keys may each have half of the waste. A sequence so short that
  even blocks of LANES waste more is padded to a multiple of LANES.
  """
  least = _round_up(length, LANES)
  most = max(least, math.floor(length * math.sqrt(1.0 + MAX_WASTE)))
  return next(
    Blocks(block, padded)
    for block in range(_MAX_BLOCK, 0, -LANES)
    if (padded := _round_up(length, block)) <= most
  )


def splash_attention(
  q_bnhk: jax.Array,
  k_bmgk: jax.Array,
  v_bmgk: jax.Array,
  q_segment_bn: jax.Array | None,
  k_segment_bm: jax.Array | None,
  *,
  is_causal: bool,
) -> jax.Array:
  """softmax(q k^T / sqrt(K)) v on one device.

  Args:
    q_bnhk: queries [B, N, H, K]; any K.
    k_bmgk: keys [B, M, G, K]; H / G consecutive query heads share a key head.
    v_bmgk: values [B, M, G, K].
    q_segment_bn: int [B, N], or None.
    k_segment_bm: int [B, M]; a query attends to the keys of its own segment.
    is_causal: query n attends to the keys up to n; requires N = M.

  Returns:
    [B, N, H, K] in the dtype of `q_bnhk`.
  """
  num_queries, num_keys = q_bnhk.shape[1], k_bmgk.shape[1]
  of_queries, of_keys = choose_blocks(num_queries), choose_blocks(num_keys)
  # The kernel does not scale. Scaling rounds the queries once more, unless
  # sqrt(K) is a power of two, as for CogVideoX with K = 64.
  scale = 1.0 / math.sqrt(q_bnhk.shape[-1])
  q_bnhk = (q_bnhk.astype(jnp.float32) * scale).astype(q_bnhk.dtype)

  # A causal mask already masks padded keys, as they come last.
  if of_keys.padded > num_keys and q_segment_bn is None and not is_causal:
    q_segment_bn = jnp.zeros(q_bnhk.shape[:2], jnp.int32)
    k_segment_bm = jnp.zeros(k_bmgk.shape[:2], jnp.int32)
  segments = None
  if q_segment_bn is not None and k_segment_bm is not None:
    # A number that no segment of the sequence has.
    padding_b1 = jnp.max(k_segment_bm, axis=1, keepdims=True) + 1
    segments = (
      _fill(q_segment_bn, of_queries.padded, padding_b1),
      _fill(k_segment_bm, of_keys.padded, padding_b1),
    )

  kernel = _make_kernel(q_bnhk, of_queries, of_keys, is_causal)
  out_bhnk = jax.vmap(kernel)(
    _heads_first(q_bnhk, of_queries.padded),
    _heads_first(k_bmgk, of_keys.padded),
    _heads_first(v_bmgk, of_keys.padded),
    segments,
  )
  return out_bhnk.transpose(0, 2, 1, 3)[:, :num_queries]


def _make_kernel(
  q_bnhk, of_queries: Blocks, of_keys: Blocks, is_causal: bool
) -> Callable[..., Any]:
  """The kernel without a batch: (q_hnk, k_gmk, v_gmk, segments) to out_hnk."""
  # Imported here, as it takes half a second and only TPUs need it.
  from jax.experimental.pallas.ops.tpu import splash_attention as library

  heads, dim = q_bnhk.shape[2:]
  shape = (of_queries.padded, of_keys.padded)
  mask = library.CausalMask(shape) if is_causal else library.FullMask(shape)
  read = _tokens_read(of_keys, dim, q_bnhk.dtype.itemsize)
  is_fused = of_keys.padded // read <= _MAX_PARTS
  kernel = library.make_splash_mha(
    library.MultiHeadMask([mask] * heads),
    block_sizes=library.BlockSizes(
      block_q=of_queries.block,
      block_kv=read,
      block_kv_compute=of_keys.block,
      block_q_dkv=of_queries.block,
      block_kv_dkv=read,
      block_kv_dkv_compute=of_keys.block,
      block_q_dq=None if is_fused else of_queries.block,
      block_kv_dq=None if is_fused else of_keys.block,
      use_fused_bwd_kernel=is_fused,
    ),
    head_shards=1,
    q_seq_shards=1,
    # Names the residuals of the backward pass as `remat` saves them; saving
    # the output alone would not avoid running the kernel again.
    residual_checkpoint_name=remat.ATTENTION,
    interpret=_is_interpreted.get(),
  )

  def run(q_hnk, k_gmk, v_gmk, segments):
    if segments is not None:
      segments = library.SegmentIds(*segments)
    return kernel(q_hnk, k_gmk, v_gmk, segments)

  return run


def _tokens_read(of_keys: Blocks, dim: int, itemsize: int) -> int:
  """Keys read at a time: a multiple of a block, dividing the sequence."""
  num_blocks = of_keys.padded // of_keys.block
  bytes_of_block = of_keys.block * _round_up(dim, LANES) * itemsize
  most = max(1, _MAX_READ // bytes_of_block)
  return of_keys.block * next(
    count for count in range(most, 0, -1) if num_blocks % count == 0
  )


def _heads_first(x_bnhk, length: int):
  """[B, N, H, K] to [B, H, length, K], padded with zeros."""
  padding = length - x_bnhk.shape[1]
  x_bhnk = x_bnhk.transpose(0, 2, 1, 3)
  return jnp.pad(x_bhnk, ((0, 0), (0, 0), (0, padding), (0, 0)))


def _fill(segment_bn, length: int, value_b1):
  """[B, N] to [B, length], padded with `value`."""
  batch, tokens = segment_bn.shape
  tail = jnp.broadcast_to(value_b1, (batch, length - tokens))
  return jnp.concatenate([segment_bn, tail.astype(segment_bn.dtype)], axis=1)


def _round_up(number: int, multiple: int) -> int:
  return -(-number // multiple) * multiple
