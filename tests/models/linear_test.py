"""Our dense layer against that of Flax."""

import functools
import math
from unittest import mock

from absl.testing import parameterized
from flax import nnx
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lift_jax import partitioning
from lift_jax.models import linear, lora

pytestmark = pytest.mark.fast

BATCH, TOKENS, D, F = 4, 6, 8, 12


def _layer(make):
  return make(D, F, rngs=nnx.Rngs(0), bias_init=nnx.initializers.normal(1.0))


def _x():
  return np.random.default_rng(0).standard_normal(
    (BATCH, TOKENS, D), np.float32
  )


def _loss(layer, x):
  return jnp.sum(jnp.sin(layer(x)))


def _gradients(make, x):
  """Gradients of kernel, bias and input."""
  graphdef, params = nnx.split(_layer(make))
  run = lambda params, x: _loss(nnx.merge(graphdef, params), x)  # noqa: E731
  return jax.jit(jax.grad(run, (0, 1)))(params, x)


def _mesh(**axes):
  config = partitioning.MeshConfig(**{'fsdp': 1} | axes)
  num_devices = math.prod(axes.values())
  return partitioning.make_mesh(config, jax.devices()[:num_devices])


class LinearTest(parameterized.TestCase):
  def test_is_one_for_flax(self):
    self.assertIsInstance(_layer(linear.Linear), nnx.Linear)

  @parameterized.parameters(1, 2, 3)
  def test_result(self, num_axes):
    x = _x()[(0,) * (3 - num_axes)]
    np.testing.assert_allclose(
      _layer(linear.Linear)(x), _layer(nnx.Linear)(x), rtol=1e-6, atol=1e-6
    )

  def test_result_type(self):
    """Products wider than the inputs, bit for bit as Flax has them."""
    options = {'dtype': jnp.bfloat16, 'preferred_element_type': jnp.float32}
    results = [
      _layer(functools.partial(make, **options))(_x())
      for make in (linear.Linear, nnx.Linear)
    ]
    self.assertEqual(results[0].dtype, jnp.float32)
    np.testing.assert_array_equal(*results)
    self.assertTrue((results[0] != results[0].astype(jnp.bfloat16)).any())

  def test_precision(self):
    make = functools.partial(linear.Linear, precision='highest')
    jaxpr = jax.make_jaxpr(_layer(make))(_x())
    self.assertIn('HIGHEST', str(jaxpr))

  @parameterized.parameters('dot_general', 'promote_dtype')
  def test_what_is_its_own(self, option):
    with self.assertRaisesRegex(TypeError, option):
      linear.Linear(D, F, rngs=nnx.Rngs(0), **{option: None})

  @parameterized.parameters(
    ({'fsdp': 1},),
    ({'fsdp': 4},),
    ({'data': 2, 'tensor': 2},),
    ({'fsdp': 2, 'context': 2},),
  )
  def test_gradients_on_a_mesh(self, axes):
    wanted = _gradients(nnx.Linear, _x())
    mesh = _mesh(**axes)
    spec = jax.P(partitioning.BATCH_AXES, 'context')
    x = jax.device_put(_x(), jax.NamedSharding(mesh, spec))
    with jax.set_mesh(mesh):
      found = _gradients(linear.Linear, x)
    jax.tree.map(
      lambda one, other: np.testing.assert_allclose(
        one, other, rtol=1e-5, atol=1e-5
      ),
      found,
      wanted,
    )

  @parameterized.parameters(False, True)
  def test_nothing_is_moved_on_a_cpu(self, has_adapter):
    """For the gradient of kernels, unlike Flax's layer."""

    def moves(make):
      layer = _layer(make)
      if has_adapter:
        layer = lora.LoRALinear(layer, lora.LoRAConfig(rank=2), nnx.Rngs(1))
      graphdef, params = nnx.split(layer)
      text = (
        jax.jit(jax.grad(lambda p, x: _loss(nnx.merge(graphdef, p), x)))
        .lower(params, _x())
        .compile()
        .as_text()
      )
      return ' copy(' in text or ' transpose(' in text

    self.assertFalse(moves(linear.Linear))
    if not has_adapter:
      self.assertTrue(moves(nnx.Linear))

  def test_other_platforms_and_split_tokens_are_left_alone(self):
    plain = jax.make_jaxpr(_layer(nnx.Linear))(_x())
    flat = jax.make_jaxpr(_layer(linear.Linear))(_x())
    self.assertNotEqual(str(flat), str(plain))
    with jax.set_mesh(_mesh(context=4)):
      split = jax.make_jaxpr(_layer(linear.Linear))(_x())
    self.assertEqual(str(split), str(plain))
    with mock.patch.object(partitioning, 'platform', return_value='tpu'):
      tpu = jax.make_jaxpr(_layer(linear.Linear))(_x())
    self.assertEqual(str(tpu), str(plain))
