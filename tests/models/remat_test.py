"""Stacks of layers, as a loop or unrolled."""

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from lift_jax.models.remat import REMAT_POLICIES, scan_layers


def _body(x_n, layer):
  return jnp.tanh(layer['scale'] * x_n + layer['shift']), None


def _layers(num: int):
  scale, shift = jax.random.normal(jax.random.key(0), (2, num, 4))
  return {'scale': scale, 'shift': shift}


class ScanLayersTest(parameterized.TestCase):
  @parameterized.product(num=(1, 3, 8, 9), remat=tuple(REMAT_POLICIES))
  def test_one_after_the_other(self, num, remat):
    """Values and gradients equal those of a Python loop."""
    layers, x_n = _layers(num), jnp.linspace(-1.0, 1.0, 4)

    def by_hand(layers, x_n):
      for scale, shift in zip(layers['scale'], layers['shift'], strict=True):
        x_n, _ = _body(x_n, {'scale': scale, 'shift': shift})
      return jnp.sum(x_n**2)

    def stacked(layers, x_n):
      return jnp.sum(scan_layers(_body, x_n, layers, remat) ** 2)

    wanted = jax.value_and_grad(by_hand, (0, 1))(layers, x_n)
    found = jax.jit(jax.value_and_grad(stacked, (0, 1)))(layers, x_n)
    jax.tree.map(
      lambda one, other: np.testing.assert_allclose(
        one, other, rtol=1e-5, atol=1e-8
      ),
      found,
      wanted,
    )

  @parameterized.parameters(
    (8, 'none', False), (9, 'none', True), (2, 'full', True)
  )
  def test_loop(self, num, remat, has_loop):
    """Deep stacks compile one body, and so do those with remat."""

    def run(layers, x_n):
      return scan_layers(_body, x_n, layers, remat)

    lowered = jax.jit(run).lower(_layers(num), jnp.ones(4))
    self.assertEqual('while' in lowered.as_text(), has_loop)
