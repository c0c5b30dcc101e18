"""Label distributions against float64."""

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lift_jax.rewards import soft

pytestmark = pytest.mark.fast

IDS = {'Good': 7, 'Normal': 4, 'Bad': 2}
IN_ORDER = [7, 4, 2]


def _softmax(x):
  x = np.exp(x - x.max(-1, keepdims=True))
  return x / x.sum(-1, keepdims=True)


class LabelDistributionTest(parameterized.TestCase):
  @parameterized.parameters((), (5,), (2, 3))
  def test_formula(self, *batch):
    logits = np.random.default_rng(0).normal(0, 4, (*batch, 11))
    found = jax.jit(lambda x: soft.label_distribution(x, IDS))(
      logits.astype(np.float32)
    )
    all_tokens = _softmax(logits)[..., IN_ORDER]
    mass = all_tokens.sum(-1)
    np.testing.assert_allclose(found.mass, mass, rtol=1e-5)
    np.testing.assert_allclose(
      found.probabilities, all_tokens / mass[..., None], rtol=1e-5
    )

  def test_bfloat16_is_computed_in_float32(self):
    logits = jnp.array([[0.0, 8.25, 3.5, -1, 4.0, 0, 0, 6.75]], jnp.bfloat16)
    found = soft.label_distribution(logits, IDS)
    exact = _softmax(np.array(logits, np.float64))[..., IN_ORDER]
    self.assertEqual(found.probabilities.dtype, jnp.float32)
    self.assertEqual(found.mass.dtype, jnp.float32)
    np.testing.assert_allclose(found.mass, exact.sum(-1), rtol=1e-5)

  def test_unlikely_labels(self):
    """Their probabilities are all 0 in float32; their ratios are not."""
    logits = np.zeros((1, 11), np.float32)
    logits[:, IN_ORDER] = [-300, -301, -302]
    found = soft.label_distribution(jnp.array(logits), IDS)
    np.testing.assert_array_equal(found.mass, 0)
    np.testing.assert_allclose(
      found.probabilities, _softmax(np.array([[0.0, -1, -2]])), rtol=1e-6
    )

  def test_sure_critic(self):
    logits = np.full((1, 11), -np.inf, np.float32)
    logits[:, 7] = 3
    found = soft.label_distribution(jnp.array(logits), IDS)
    np.testing.assert_array_equal(found.mass, 1)
    np.testing.assert_array_equal(found.probabilities, [[1, 0, 0]])
