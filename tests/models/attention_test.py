"""Attention backends against the formula written out."""

import contextlib
import functools
import math
from unittest import mock

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lift_jax import partitioning
from lift_jax.models import remat
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


def jnp_formula(q, k, v, mask_bnm=None):
  """Differentiable formula; for shared key heads and masks."""
  k, v = (jnp.repeat(x, q.shape[2] // x.shape[2], axis=2) for x in (k, v))
  scores = jnp.einsum('bnhk,bmhk->bhnm', q, k) / math.sqrt(q.shape[-1])
  if mask_bnm is not None:
    scores = jnp.where(mask_bnm[:, None], scores, -jnp.inf)
  return jnp.einsum('bhnm,bmhk->bnhk', jax.nn.softmax(scores), v)


def mesh_of(**axes):
  config = partitioning.MeshConfig(**{'fsdp': 1} | axes)
  return jax.set_mesh(partitioning.make_mesh(config))


class AttentionTest(parameterized.TestCase):
  # In one go, in chunks that divide the queries or do not, one at a time.
  @parameterized.product(
    query_chunk=(64, 37, 10, 1), head_by_head=(False, True)
  )
  def test_forward(self, query_chunk, head_by_head):
    q, k, v = inputs()
    out = attention(q, k, v, query_chunk=query_chunk, head_by_head=head_by_head)
    np.testing.assert_allclose(out, formula(q, k, v), rtol=1e-5, atol=1e-6)

  @parameterized.parameters(False, True)
  def test_vmap(self, head_by_head):
    """A batch of four, and two batches of two."""
    arrays = inputs(batch=4)

    def loss(arrays):
      out = attention(*arrays, query_chunk=10, head_by_head=head_by_head)
      return jnp.sum(jnp.sin(out))

    split = [x.reshape(2, 2, *x.shape[1:]) for x in arrays]
    found = jax.jit(jax.vmap(jax.grad(loss)))(split)
    wanted = jax.jit(jax.grad(loss))(arrays)
    for one, other in zip(found, wanted, strict=True):
      np.testing.assert_allclose(
        one.reshape(other.shape), other, rtol=1e-5, atol=1e-6
      )

  @parameterized.parameters(False, True)
  def test_memory_does_not_grow_with_the_square(self, head_by_head):
    """Forward and backward at 4,096 tokens stay far below the 64 MiB of one
    matrix of scores, and of twice the tokens take twice as much."""

    def loss(q, k, v):
      out = attention(q, k, v, query_chunk=64, head_by_head=head_by_head)
      return jnp.sum(out)

    def temporary(tokens):
      shapes = [jax.ShapeDtypeStruct((1, tokens, 1, 8), jnp.float32)] * 3
      compiled = jax.jit(jax.grad(loss, (0, 1, 2))).lower(*shapes).compile()
      return compiled.memory_analysis().temp_size_in_bytes

    self.assertLess(temporary(4096), 16 * 2**20)
    self.assertLess(temporary(8192) / temporary(4096), 2.1)

  @parameterized.parameters(64, 10)
  def test_softmax_is_fp32(self, query_chunk):
    half = [jnp.asarray(x, jnp.bfloat16) for x in inputs()]
    whole = [np.asarray(x, np.float32) for x in half]

    def run(arrays):
      return attention(*arrays, query_chunk=query_chunk)

    out, pull = jax.vjp(run, half)
    self.assertEqual(out.dtype, jnp.bfloat16)
    np.testing.assert_allclose(
      out.astype(np.float32), formula(*whole), atol=0.02
    )
    (grads,) = pull(jnp.ones_like(out))
    _, pull = jax.vjp(lambda arrays: jnp_formula(*arrays), whole)
    (wanted,) = pull(np.ones(out.shape, np.float32))
    for found, exact in zip(grads, wanted, strict=True):
      self.assertEqual(found.dtype, jnp.bfloat16)
      np.testing.assert_allclose(found.astype(np.float32), exact, atol=0.02)

  @parameterized.product(
    policy_and_times=(('none', 2), ('full', 3), ('save_attention', 2)),
    head_by_head=(False, True),
    is_split=(False, True),
  )
  def test_what_runs_again(self, policy_and_times, head_by_head, is_split):
    """Of chunks the backward pass computes the weights once. The rest runs
    again unless the policy of the layer saves it. Counts are of exp."""
    policy, times = policy_and_times
    shape = jax.ShapeDtypeStruct((2, 37, 4, 8), jnp.float32)

    def body(x, _):
      out = attention(x, x, x, query_chunk=10, head_by_head=head_by_head)
      return out, None

    def loss(x):
      return jnp.sum(remat.scan_layers(body, x, jnp.zeros(9), policy))

    axes = {'data': 2, 'context': 2, 'tensor': 2} if is_split else {}
    with mesh_of(**axes) if is_split else contextlib.nullcontext():
      text = str(jax.make_jaxpr(jax.grad(loss))(shape))
    self.assertEqual(text.count(' exp '), times)

  @parameterized.parameters(
    {'context': 8},  # 37 queries: padded to 40
    {'context': 2, 'tensor': 4},
    {'data': 2, 'tensor': 2, 'context': 2},
  )
  def test_mesh(self, **axes):
    q, k, v = inputs()
    with mesh_of(**axes):
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


def masked_formula(q, k, v, mask_bnm):
  """The formula query by query, over its unmasked keys, in NumPy."""
  out = np.empty_like(q)
  shared = q.shape[2] // k.shape[2]
  for batch, query, head in np.ndindex(*q.shape[:3]):
    seen = mask_bnm[batch, query]
    one = (batch, slice(query, query + 1), slice(head, head + 1))
    keys = (batch, seen, slice(head // shared, head // shared + 1))
    out[one] = formula(q[one][None], k[keys][None], v[keys][None])[0]
  return out


QUERIES, KEYS = 11, 29
SEEN = np.random.default_rng(3).random((3, QUERIES, KEYS)) < 0.4
SEEN[:, :, 5] = True  # a query sees something
SEGMENTS = np.array(
  [[1] * 4 + [2] * 5 + [0] * 2, [0] + [3] * 10, [7] * 11], np.int32
)


def masked_inputs(heads, key_heads, num_keys):
  q, _, _ = inputs(queries=QUERIES, heads=heads, batch=3)
  _, k, v = inputs(keys=num_keys, heads=key_heads, batch=3)
  return q, k, v


def masked_case(name, heads=4, key_heads=4):
  """Arrays, mask arguments, and which keys each query attends to [B, N, M]."""
  num_keys = KEYS if name == 'any' else QUERIES
  arrays = masked_inputs(heads, key_heads, num_keys)
  n, m = np.arange(QUERIES)[None, :, None], np.arange(num_keys)[None, None, :]
  causal = np.broadcast_to(m <= n, (3, QUERIES, num_keys))
  same = SEGMENTS[:, :, None] == SEGMENTS[:, None, :]
  if name == 'causal':
    return arrays, {'is_causal': True}, causal
  if name == 'any':
    return arrays, {'mask_bnm': SEEN}, SEEN
  if name == 'segments':
    return arrays, {'segment_ids_bn': SEGMENTS}, same
  if name == 'packed':
    mask = {'is_causal': True, 'segment_ids_bn': SEGMENTS}
    return arrays, mask, causal & same
  return arrays, {}, np.ones_like(causal)


class MaskTest(parameterized.TestCase):
  @parameterized.product(
    name=('none', 'causal', 'any', 'segments', 'packed'),
    heads=((4, 4), (6, 2)),
    sizes=((64, False), (4, False), (4, True)),
  )
  def test_forward(self, name, heads, sizes):
    arrays, mask, seen = masked_case(name, *heads)
    query_chunk, head_by_head = sizes
    out = attention(
      *arrays, **mask, query_chunk=query_chunk, head_by_head=head_by_head
    )
    np.testing.assert_allclose(
      out, masked_formula(*arrays, seen), rtol=1e-5, atol=1e-6
    )

  @parameterized.product(
    name=('none', 'any', 'packed'),
    heads=((4, 4), (6, 2)),
    sizes=((64, False), (4, False), (4, True)),
  )
  def test_gradients(self, name, heads, sizes):
    """Padded queries of the last chunk have no keys in their segment."""
    arrays, mask, seen = masked_case(name, *heads)
    query_chunk, head_by_head = sizes
    run = functools.partial(
      attention, **mask, query_chunk=query_chunk, head_by_head=head_by_head
    )
    self.assert_gradients(
      run, functools.partial(jnp_formula, mask_bnm=seen), arrays
    )

  def assert_gradients(self, run, wanted, arrays):
    def grads(function):
      loss = lambda arrays: jnp.sum(jnp.sin(function(*arrays)))  # noqa: E731
      return jax.jit(jax.grad(loss))(arrays)

    for one, other in zip(grads(run), grads(wanted), strict=True):
      np.testing.assert_allclose(one, other, rtol=1e-4, atol=2e-6)

  @parameterized.parameters(False, True)
  def test_query_that_sees_nothing(self, head_by_head):
    """It gets a finite value, and contributes no gradient."""
    arrays, _, _ = masked_case('any')
    seen = SEEN.copy()
    seen[0, :2] = False

    def run(*arrays):
      return attention(
        *arrays, mask_bnm=seen, query_chunk=4, head_by_head=head_by_head
      )

    out, pull = jax.vjp(run, *arrays)
    self.assertTrue(np.isfinite(out).all())
    cotangent = np.zeros_like(out)
    cotangent[0, :2] = 1.0
    for grad in pull(jnp.asarray(cotangent)):
      np.testing.assert_array_equal(grad, np.zeros_like(grad))

  def test_unseen_keys_get_no_gradient(self):
    arrays, mask, seen = masked_case('packed', 6, 2)

    def loss(k, v):
      out = attention(arrays[0], k, v, **mask, query_chunk=4)
      return jnp.sum(jnp.sin(out[:, 6]))

    for grad in jax.grad(loss, (0, 1))(*arrays[1:]):
      touched = np.any(np.asarray(grad) != 0, axis=(2, 3))
      np.testing.assert_array_equal(touched, seen[:, 6])

  @parameterized.product(
    name=('causal', 'any', 'packed'),
    axes=(
      {'context': 8},  # 11 queries: padded to 16
      {'context': 2, 'tensor': 2, 'fsdp': 2},
      {'tensor': 2, 'data': 4},
    ),
  )
  def test_mesh(self, name, axes):
    arrays, mask, seen = masked_case(name, 8, 2)
    expected = masked_formula(*arrays, seen)
    # A batch that every mesh divides: the three rows, and one of them again.
    repeat = functools.partial(
      jnp.take, indices=jnp.array([0, 1, 2, 0]), axis=0
    )
    arrays = [repeat(x) for x in arrays]
    mask = {
      key: value if key == 'is_causal' else repeat(value)
      for key, value in mask.items()
    }
    is_causal = mask.pop('is_causal', False)
    run = functools.partial(attention, is_causal=is_causal, query_chunk=3)
    with mesh_of(**axes):
      out = jax.jit(run)(*arrays, **mask)
    np.testing.assert_allclose(out[:3], expected, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(out[3], expected[0], rtol=1e-5, atol=1e-6)

  @parameterized.parameters(False, True)
  def test_gradients_on_a_mesh(self, head_by_head):
    """11 queries are padded to 12, then split into chunks of 3."""
    arrays, mask, seen = masked_case('packed', 4, 2)
    arrays, seen = [x[:2] for x in arrays], seen[:2]
    run = functools.partial(
      attention,
      is_causal=True,
      segment_ids_bn=mask['segment_ids_bn'][:2],
      query_chunk=4,
      head_by_head=head_by_head,
    )
    wanted = functools.partial(jnp_formula, mask_bnm=seen)
    with mesh_of(data=2, context=2, tensor=2):
      self.assert_gradients(run, wanted, arrays)

  def test_memory_does_not_grow_with_the_square(self):
    """As without a mask: 4,096 tokens stay far below the 64 MiB of one matrix
    of scores, also where two heads share a key head."""
    shapes = [
      jax.ShapeDtypeStruct((1, 4096, heads, 8), jnp.float32)
      for heads in (2, 1, 1)
    ]
    segments = jax.ShapeDtypeStruct((1, 4096), jnp.int32)

    def loss(q, k, v, segments):
      out = attention(
        q, k, v, is_causal=True, segment_ids_bn=segments, query_chunk=32
      )
      return jnp.sum(out)

    lowered = jax.jit(jax.grad(loss, (0, 1, 2))).lower(*shapes, segments)
    temporary = lowered.compile().memory_analysis().temp_size_in_bytes
    self.assertLess(temporary, 16 * 2**20)

  @parameterized.parameters(
    ('none', {}, True),
    ('causal', {}, True),
    ('causal', {'context': 8}, False),
    ('causal', {'data': 2, 'tensor': 2}, True),
    ('any', {}, False),
    ('segments', {}, False),
    ('packed', {}, False),
  )
  def test_what_the_fused_kernel_is_left(self, name, axes, is_fused):
    """With JAX's own formula in place of the kernel, which needs a GPU."""
    arrays, mask, seen = masked_case(name, 8, 2)
    expected = masked_formula(*arrays, seen)
    arrays = [x[:2] for x in arrays]
    mask = {k: v if k == 'is_causal' else v[:2] for k, v in mask.items()}
    plain = jax.nn.dot_product_attention

    def kernel(*args, implementation, **kwargs):
      self.assertEqual(implementation, 'cudnn')
      return plain(*args, implementation='xla', **kwargs)

    run = functools.partial(attention, **mask, backend='cudnn')
    with mock.patch.object(
      jax.nn, 'dot_product_attention', side_effect=kernel
    ) as called:
      if axes:
        sizes = {'fsdp': -1} | axes
        mesh = partitioning.make_mesh(
          partitioning.MeshConfig(**sizes),
          jax.devices()[: math.prod(axes.values())],
        )
        with jax.set_mesh(mesh):
          out = jax.jit(run)(*arrays)
      else:
        out = run(*arrays)
    self.assertEqual(called.called, is_fused)
    np.testing.assert_allclose(out, expected[:2], rtol=1e-5, atol=1e-6)

  def test_arguments_that_do_not_agree(self):
    q, k, v = masked_inputs(4, 4, KEYS)
    with pytest.raises(ValueError, match='11 queries and 29 keys'):
      attention(q, k, v, is_causal=True)
    with pytest.raises(ValueError, match='11 queries and 29 keys'):
      attention(q, k, v, segment_ids_bn=SEGMENTS)
