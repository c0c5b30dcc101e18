"""cuDNN's attention without a GPU: what is traced, and with which arguments."""

import contextlib
from unittest import mock

from absl.testing import parameterized
import jax
from jax._src.cudnn import fused_attention_stablehlo
import jax.numpy as jnp
import numpy as np
import pytest

from lift_jax import partitioning
from lift_jax.models import attention as attention_lib
from lift_jax.models import remat
from lift_jax.models.attention import attention

FORWARD = 'dot_product_attention_fwd_wrapper'
BACKWARD = 'dot_product_attention_bwd_wrapper'


@pytest.fixture(autouse=True)
def cudnn():
  """JAX asks for the version of the library and for the GPU."""
  module = fused_attention_stablehlo
  with contextlib.ExitStack() as stack:
    for name, answer in (
      ('check_cudnn_version', 91000),
      ('check_compute_capability', True),
      ('is_cuda_compute_capability_equal', False),
    ):
      stack.enter_context(mock.patch.object(module, name, return_value=answer))
    yield


def using_mesh(is_split):
  if not is_split:
    return contextlib.nullcontext()
  config = partitioning.MeshConfig(data=2, fsdp=1, tensor=2, context=2)
  return jax.set_mesh(partitioning.make_mesh(config))


@pytest.mark.fast
class CudnnTest(parameterized.TestCase):
  @parameterized.product(
    policy_and_times=(('none', 1), ('full', 2), ('save_attention', 1),
                      ('offload', 1)),
    is_split=(False, True),
  )  # fmt: skip
  def test_remat(self, policy_and_times, is_split):
    """The kernel runs again unless the policy saves its results."""
    policy, times = policy_and_times

    def body(x, _):
      return attention(x, x, x, backend='cudnn'), None

    def loss(x):
      return jnp.sum(remat.scan_layers(body, x, jnp.zeros(9), policy))

    x_bnhk = jax.ShapeDtypeStruct((2, 40, 4, 8), jnp.bfloat16)
    with using_mesh(is_split):
      text = str(jax.make_jaxpr(jax.grad(loss))(x_bnhk))
    self.assertEqual(text.count(f' {FORWARD}['), times)
    self.assertEqual(text.count(f' {BACKWARD}['), 1)

  @parameterized.parameters(False, True)
  def test_saved_once(self, is_split):
    """Of each layer its input, the result of attention and the log-sum-exp."""

    def body(x, w):
      out = attention(jnp.sin(x), x, x, backend='cudnn')
      return x + out @ w, None

    def loss(x, w):
      return jnp.sum(remat.scan_layers(body, x, w, 'save_attention'))

    x_bnhk = jax.ShapeDtypeStruct((2, 40, 4, 8), jnp.bfloat16)
    w_lkj = jax.ShapeDtypeStruct((9, 8, 8), jnp.bfloat16)
    with using_mesh(is_split):
      jaxpr = jax.make_jaxpr(jax.grad(loss, (0, 1)))(x_bnhk, w_lkj).jaxpr
    forward, _ = (e for e in jaxpr.eqns if e.primitive.name == 'scan')
    sizes = [v.aval.size // 9 for v in forward.outvars if v.aval.shape[0] == 9]
    self.assertCountEqual(sizes, [2 * 40 * 4 * 8] * 2 + [2 * 40 * 4])

  @parameterized.parameters(729, 730)
  def test_gradients_of_any_length(self, tokens):
    """JAX refuses those of odd lengths: 729 are the patches of SigLIP."""
    x_bnhk = jax.ShapeDtypeStruct((1, tokens, 2, 72), jnp.bfloat16)

    def loss(*arrays):
      return jnp.sum(attention(*arrays, backend='cudnn'))

    text = str(jax.make_jaxpr(jax.grad(loss))(*[x_bnhk] * 3))
    self.assertIn(f' {BACKWARD}[', text)

  @parameterized.parameters(
    (7, 7, False), (7, 8, False), (8, 7, False), (7, 7, True), (8, 8, True)
  )
  def test_odd_lengths(self, num_queries, num_keys, is_causal):
    """The padding has no effect; with JAX's own formula for the kernel."""
    rng = np.random.default_rng(0)
    q, k, v = (
      rng.normal(size=(2, n, 3, 8)).astype(np.float32)
      for n in (num_queries, num_keys, num_keys)
    )
    plain = jax.nn.dot_product_attention

    def kernel(*args, implementation, **kwargs):
      self.assertEqual(implementation, 'cudnn')
      self.assertEqual([x.shape[1] % 2 for x in args], [0, 0, 0])
      return plain(*args, implementation='xla', **kwargs)

    call = {'is_causal': is_causal}
    with mock.patch.object(jax.nn, 'dot_product_attention', kernel):
      found, pull = jax.vjp(
        lambda *x: attention(*x, backend='cudnn', **call), q, k, v
      )
      grads = pull(jnp.cos(found))
    exact, pull = jax.vjp(
      lambda *x: attention(*x, backend='xla', **call), q, k, v
    )
    np.testing.assert_allclose(found, exact, rtol=1e-5, atol=1e-5)
    for one, other in zip(grads, pull(jnp.cos(exact)), strict=True):
      np.testing.assert_allclose(one, other, rtol=1e-4, atol=1e-5)

  def test_auto(self):
    """Where the program is for GPUs, in half precision."""
    x_bnhk = jax.ShapeDtypeStruct((1, 8, 2, 16), jnp.bfloat16)
    with mock.patch.object(
      attention_lib.partitioning, 'platform', return_value='gpu'
    ):
      text = str(jax.make_jaxpr(attention)(*[x_bnhk] * 3))
    self.assertIn(f' {FORWARD}[', text)
