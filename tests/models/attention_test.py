"""Attention backends against the formula written out."""

import math

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lift_jax import partitioning
from lift_jax.models.attention import attention


def formula(q, k, v):
  scores = np.einsum('bnhk,bmhk->bhnm', q, k) / math.sqrt(q.shape[-1])
  weights = np.exp(scores - scores.max(-1, keepdims=True))
  weights /= weights.sum(-1, keepdims=True)
  return np.einsum('bhnm,bmhk->bnhk', weights, v)


def inputs(queries=37, keys=37, heads=4, batch=2):
  rng = np.random.default_rng(0)
  shapes = [(batch, n, heads, 8) for n in (queries, keys, keys)]
  return [rng.normal(size=shape).astype(np.float32) for shape in shapes]


class AttentionTest(parameterized.TestCase):
  # In one go, in chunks that divide the queries or do not, one at a time.
  @parameterized.parameters(64, 37, 10, 1)
  def test_forward(self, query_chunk):
    q, k, v = inputs()
    out = attention(q, k, v, query_chunk=query_chunk)
    np.testing.assert_allclose(out, formula(q, k, v), rtol=1e-5, atol=1e-6)

  def test_gradients_of_chunks(self):
    arrays = inputs()
    target = np.random.default_rng(1).normal(size=arrays[0].shape)

    def loss(arrays, query_chunk):
      out = attention(*arrays, query_chunk=query_chunk)
      return jnp.sum(out * target.astype(np.float32))

    grads = jax.jit(jax.grad(loss), static_argnums=1)
    for chunked, whole in zip(
      grads(arrays, 10), grads(arrays, 64), strict=True
    ):
      np.testing.assert_allclose(chunked, whole, rtol=1e-4, atol=1e-6)

  def test_memory_does_not_grow_with_the_square(self):
    """Forward and backward at 4,096 tokens stay far below the 64 MiB of one
    matrix of scores."""
    shape = jax.ShapeDtypeStruct((1, 4096, 1, 8), jnp.float32)

    def loss(q, k, v):
      return jnp.sum(attention(q, k, v, query_chunk=64))

    compiled = jax.jit(jax.grad(loss, (0, 1, 2))).lower(*[shape] * 3).compile()
    temporary = compiled.memory_analysis().temp_size_in_bytes
    self.assertLess(temporary, 16 * 2**20)

  def test_softmax_is_fp32(self):
    q, k, v = inputs()
    half = [jnp.asarray(x, jnp.bfloat16) for x in (q, k, v)]
    out = attention(*half)
    self.assertEqual(out.dtype, jnp.bfloat16)
    exact = formula(*(np.asarray(x, np.float32) for x in half))
    np.testing.assert_allclose(out.astype(np.float32), exact, atol=0.02)

  @parameterized.parameters(
    {'context': 8},  # 37 queries: padded to 40
    {'context': 2, 'tensor': 4},
    {'data': 2, 'tensor': 2, 'context': 2},
  )
  def test_mesh(self, **axes):
    q, k, v = inputs()
    mesh = partitioning.make_mesh(partitioning.MeshConfig(**{'fsdp': 1} | axes))
    with jax.set_mesh(mesh):
      out = jax.jit(attention)(q, k, v)
    np.testing.assert_allclose(out, formula(q, k, v), rtol=1e-5, atol=1e-6)

  def test_keys_are_gathered_and_queries_are_not(self):
    """Context parallelism for any number of heads: here 3."""
    q, k, v = inputs(queries=64, keys=64, heads=3)
    mesh = partitioning.make_mesh(partitioning.MeshConfig(fsdp=1, context=8))
    spec = jax.NamedSharding(mesh, jax.P(None, 'context'))
    arrays = jax.device_put((q, k, v), spec)
    with jax.set_mesh(mesh):
      text = jax.jit(attention).lower(*arrays).compile().as_text()
    self.assertEqual(text.count(' all-gather('), 2)
    self.assertNotIn(' all-to-all(', text)

  def test_unknown_backend(self):
    with pytest.raises(ValueError, match="'flash' is not one of"):
      attention(*inputs(), backend='flash')
