"""The TPU kernel, interpreted on a CPU, against the formula."""

import math
import re
from unittest import mock

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lift_jax import partitioning
from lift_jax.errors import UserError
from lift_jax.models import splash_attention
from lift_jax.models.attention import attention
from lift_jax.models.remat import REMAT_POLICIES

DIM = 64


def formula(q_bnhk, k_bmgk, v_bmgk, mask_bnm):
  shared = q_bnhk.shape[2] // k_bmgk.shape[2]
  k_bmhk, v_bmhk = (jnp.repeat(x, shared, axis=2) for x in (k_bmgk, v_bmgk))
  scores = jnp.einsum('bnhk,bmhk->bhnm', q_bnhk, k_bmhk)
  scores = scores / math.sqrt(q_bnhk.shape[-1])
  scores = jnp.where(mask_bnm[:, None], scores, -jnp.inf)
  return jnp.einsum('bhnm,bmhk->bnhk', jax.nn.softmax(scores), v_bmhk)


def case(name, queries, keys, heads=2, key_heads=2, batch=2, dim=DIM):
  """Arrays, mask arguments, and which keys each query attends to [B, N, M]."""
  rng = np.random.default_rng(0)
  arrays = [
    rng.normal(size=(batch, tokens, count, dim)).astype(np.float32)
    for tokens, count in (
      (queries, heads),
      (keys, key_heads),
      (keys, key_heads),
    )
  ]
  seen = np.ones((batch, queries, keys), bool)
  mask = {}
  if 'causal' in name:
    mask['is_causal'] = True
    seen &= np.tri(queries, dtype=bool)
  if 'segments' in name:
    # Rows that differ; zero and negative numbers are segments like others.
    starts = np.linspace(0, queries, 4).astype(int)[1:-1]
    ids = np.searchsorted(starts, np.arange(queries), side='right')
    ids = np.stack([ids - 1, 7 - ids]).astype(np.int32)
    mask['segment_ids_bn'] = ids
    seen &= ids[:, :, None] == ids[:, None, :]
  return arrays, mask, seen


def value_and_grads(function, arrays):
  """The output, and the gradients of q, k, v for a random output gradient."""
  target = np.random.default_rng(1).normal(size=arrays[0].shape)

  def run(*arrays):
    out, vjp = jax.vjp(function, *arrays)
    return out, *vjp(jnp.asarray(target, out.dtype))

  return jax.jit(run)(*arrays)


def check(arrays, mask, seen, dtype=jnp.float32, tolerance=2e-5):
  cast = [jnp.asarray(x, dtype) for x in arrays]

  def kernel(*arrays):
    return attention(*arrays, backend='splash', **mask)

  with splash_attention.interpreted():
    found = value_and_grads(kernel, cast)
  exact = [x.astype(jnp.float32) for x in cast]
  wanted = value_and_grads(lambda *x: formula(*x, seen), exact)
  for name, one, other in zip('o q k v'.split(), found, wanted, strict=True):
    assert one.dtype == dtype
    np.testing.assert_allclose(
      one.astype(np.float32),
      other,
      rtol=tolerance,
      atol=tolerance,
      err_msg=name,
    )


def small_blocks(**constants):
  """Blocks of 128, two of them read at a time, unless told."""
  constants = {'_MAX_BLOCK': 128, '_MAX_READ': 256 * 128 * 4} | constants
  return mock.patch.multiple(splash_attention, **constants)


class KernelTest(parameterized.TestCase):
  @parameterized.parameters(
    ('none', 301, 301),  # one block of 384
    ('none', 70, 301),  # as with queries split over 'context'
    ('causal', 301, 301),
    ('segments', 301, 301),
    ('segments', 256, 256),  # nothing to pad
    ('causal segments', 301, 301),
  )
  def test_formula(self, name, queries, keys):
    check(*case(name, queries, keys))

  @parameterized.parameters(
    ('none', 8), ('none', 1), ('causal', 8), ('causal segments', 1)
  )
  def test_many_blocks(self, name, max_parts):
    """Four blocks in two reads; backward in one kernel, or in two. Two query
    heads share a key head."""
    with small_blocks(_MAX_PARTS=max_parts):
      check(*case(name, 450, 450, heads=4))

  @parameterized.parameters('none', 'causal segments')
  def test_bf16(self, name):
    with small_blocks():
      arrays, mask, seen = case(name, 301, 301)
      check(arrays, mask, seen, jnp.bfloat16, 0.04)

  def test_head_dim_that_is_no_power_of_two(self):
    check(*case('none', 130, 130, dim=72))

  @parameterized.parameters(
    ('none', {'context': 2, 'tensor': 2}, 301),  # padded to 302
    ('segments', {'context': 2, 'tensor': 2}, 301),
    ('causal segments', {'tensor': 2, 'fsdp': 2}, 301),
    ('causal', {'context': 2}, 30),  # left to 'xla'
  )
  def test_mesh(self, name, axes, tokens):
    mesh = partitioning.make_mesh(
      partitioning.MeshConfig(**{'fsdp': 1} | axes),
      jax.devices()[: math.prod(axes.values())],
    )
    arrays, mask, seen = case(name, tokens, tokens, heads=4)
    with jax.set_mesh(mesh):
      check(arrays, mask, seen)

  def test_refused_elsewhere(self):
    arrays, _, _ = case('none', 8, 8)
    with pytest.raises(UserError, match='the devices are cpu; set model.att'):
      attention(*arrays, backend='splash')


def tpu_mesh(platform='tpu'):
  device = jax.sharding.AbstractDevice(
    device_kind='some', num_cores=1, platform=platform
  )
  return jax.sharding.AbstractMesh(
    (1,) * len(partitioning.AXES),
    partitioning.AXES,
    axis_types=(jax.sharding.AxisType.Auto,) * len(partitioning.AXES),
    abstract_device=device,
  )


def kernels_for_tpu(function, *args, mesh=None):
  """Names of the kernels in a program lowered for TPUs, without any TPU."""
  with jax.sharding.use_abstract_mesh(mesh or tpu_mesh()):
    traced = jax.jit(function).trace(*args)
    text = traced.lower(lowering_platforms=('tpu',)).as_text()
  return re.findall(r'kernel_name = "splash_mha_(\w+?)_', text)


class TpuProgramTest(parameterized.TestCase):
  """Programs lowered for TPUs, without any TPU."""

  @parameterized.parameters(
    (2048, 'bfloat16', 'tpu', True),
    (2050, 'float32', 'tpu', True),
    (2050, 'float16', 'tpu', False),
    (2047, 'bfloat16', 'tpu', False),
    (2048, 'bfloat16', 'cpu', False),
  )
  def test_auto(self, tokens, dtype, platform, is_kernel):
    """The mesh decides the platform of the program."""
    x_bnhk = jax.ShapeDtypeStruct((1, tokens, 2, DIM), dtype)
    mesh = tpu_mesh(platform)
    found = kernels_for_tpu(attention, *[x_bnhk] * 3, mesh=mesh)
    self.assertEqual(found, ['fwd'] if is_kernel else [])

  @parameterized.parameters(
    ('full', ['fwd', 'fwd', 'dkv']), ('save_attention', ['fwd', 'dkv'])
  )
  def test_remat(self, policy, kernels):
    """What the backward pass of the kernel reads is stored under the name that
    the policy saves: its forward pass runs once."""
    x_bnhk = jax.ShapeDtypeStruct((1, 2048, 2, DIM), jnp.bfloat16)

    def block(*arrays):
      return attention(*(jnp.sin(x) for x in arrays))

    remat = jax.checkpoint(block, policy=REMAT_POLICIES[policy])
    grad = jax.grad(lambda *x: jnp.sum(jnp.sin(remat(*x))), (0, 1, 2))
    self.assertEqual(kernels_for_tpu(grad, *[x_bnhk] * 3), kernels)

  @parameterized.parameters(
    ('bfloat16', ['fwd', 'dkv']), ('float32', ['fwd', 'dkv', 'dq'])
  )
  def test_cogvideox(self, dtype, kernels):
    """In bf16 the backward pass is one kernel: seven parts of a gradient."""
    x_bnhk = jax.ShapeDtypeStruct((1, 17776, 30, DIM), dtype)

    def loss(*arrays):
      return jnp.sum(attention(*arrays))

    grad = jax.grad(loss, (0, 1, 2))
    self.assertEqual(kernels_for_tpu(grad, *[x_bnhk] * 3), kernels)


class BlocksTest(parameterized.TestCase):
  # CogVideoX, whole and cut over a context axis of 2, 4, 8; other videos.
  @parameterized.parameters(
    (17776, 17776), (8888, 17776), (4444, 17776), (6826, 6826),
    (10000, 10000), (45106, 45106), (22553, 45106), (131072, 131072),
  )  # fmt: skip
  def test_waste(self, queries, keys):
    scores = math.prod(
      splash_attention.choose_blocks(n).padded for n in (queries, keys)
    )
    self.assertLessEqual(
      scores / (queries * keys), 1 + splash_attention.MAX_WASTE
    )

  @parameterized.parameters(1, 128, 129, 300, 700, 1025, 2222, 4096, 17776)
  def test_blocks_fit(self, length):
    """Padding to blocks; a short sequence is padded by less than 128."""
    blocks = splash_attention.choose_blocks(length)
    self.assertEqual(blocks.padded % blocks.block, 0)
    self.assertEqual(blocks.block % splash_attention.LANES, 0)
    self.assertLess(
      blocks.padded - length, max(splash_attention.LANES, 0.015 * length)
    )

  def test_cogvideox(self):
    self.assertEqual(splash_attention.choose_blocks(17776), (512, 17920))
