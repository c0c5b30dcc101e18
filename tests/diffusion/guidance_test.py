"""Guidance scales, and the combination of the two branches."""

import math
from types import SimpleNamespace

from absl.testing import parameterized
import jax.numpy as jnp
import numpy as np
import pytest

from lift_jax.diffusion import guidance

pytestmark = pytest.mark.fast


def trailing(num_steps):
  return np.arange(1000, 0, -1000 // num_steps) - 1


class ScaleTest(parameterized.TestCase):
  def test_published_oscillation(self):
    """Printed by the published pipeline at scale 6 and 50 steps."""
    scales = guidance.guidance_scales(6.0, 'timestep', trailing(50), 50)
    self.assertEqual(scales.dtype, np.float64)
    np.testing.assert_allclose(
      scales[:6],
      [2.2915, 2.5435, 6.9744, 6.4204, 2.7881, 4.2719],
      rtol=0,
      atol=5e-5,
    )
    np.testing.assert_allclose(
      scales[-3:], [1.0, 1.0, 1.1234], rtol=0, atol=5e-5
    )

  @parameterized.parameters((50, 6.0), (40, 3.5))
  def test_oscillation_formula(self, num_steps, scale):
    timesteps = trailing(num_steps)
    expected = [
      1 + scale * (1 - math.cos(math.pi * (1 - t / num_steps) ** 5.0)) / 2
      for t in timesteps.tolist()
    ]
    scales = guidance.guidance_scales(scale, 'timestep', timesteps, num_steps)
    np.testing.assert_allclose(scales, expected, rtol=0, atol=1e-6)

  def test_smooth_decrease(self):
    # From the description of diffusers' pull request 13172: scale 4, 50 steps.
    scales = guidance.guidance_scales(4.0, 'step', trailing(50), 50)
    np.testing.assert_allclose(
      scales[:10],
      [5.00, 4.91, 4.67, 4.34, 3.96, 3.56, 3.17, 2.81, 2.49, 2.21],
      rtol=0,
      atol=5.1e-3,
    )
    self.assertTrue((np.diff(scales) < 0).all())
    self.assertLess(scales[-1] - 1, 1e-6)

  def test_constant(self):
    scales = guidance.guidance_scales(6.0, 'none', trailing(4), 4)
    self.assertEqual(scales.tolist(), [6.0] * 4)


class GuidedTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    rng = np.random.default_rng(0)
    self.x = jnp.asarray(rng.normal(size=(3, 4)), jnp.float32)
    self.text = jnp.asarray(rng.normal(size=(3, 2, 4)), jnp.float32)
    self.negative = jnp.asarray(rng.normal(size=(2, 4)), jnp.float32)
    self.batches = []

  def network(self, x_b, text_bsd, t_b):
    self.batches.append(len(x_b))
    self.assertEqual(t_b.shape, (len(x_b),))
    return x_b * text_bsd[:, 0] + text_bsd[:, 1] * t_b[:, None]

  def guided(self, negative, timestep, scale):
    """The guided velocity; the network counts its calls in the cache."""

    def network(x_b, text_bsd, t_b, step, cache):
      return self.network(x_b, text_bsd, t_b), (*cache, step)

    step = SimpleNamespace(timestep=timestep, guidance=scale)
    velocity = guidance.guided(network, self.text, negative)
    out, cache = velocity(self.x, step, ())
    self.assertEqual(cache, (step,))
    return out

  def test_both_branches_in_one_batch(self):
    out = self.guided(self.negative, jnp.int32(7), jnp.float32(2.5))
    self.assertEqual(self.batches, [6])
    t_b = jnp.full(3, 7)
    positive = self.network(self.x, self.text, t_b)
    away = jnp.broadcast_to(self.negative, self.text.shape)
    negative = self.network(self.x, away, t_b)
    expected = negative + 2.5 * (positive - negative)
    np.testing.assert_allclose(out, expected, rtol=0, atol=1e-5)

  def test_no_guidance_is_one_branch(self):
    out = self.guided(None, jnp.int32(7), jnp.float32(1.0))
    self.assertEqual(self.batches, [3])
    expected = self.network(self.x, self.text, jnp.full(3, 7))
    np.testing.assert_array_equal(out, expected)

  def test_pairs_are_adjacent_negative_first(self):
    first, second = jnp.arange(3), 10 + jnp.arange(3)
    pairs = guidance.interleave(first, second)
    self.assertEqual(pairs.tolist(), [0, 10, 1, 11, 2, 12])

  def test_guidance_is_fp32(self):
    # In bf16 the difference of 1/256 would vanish.
    pairs = jnp.array([1.0, 1.0 + 2**-7], jnp.bfloat16)
    out = guidance.guide(pairs, jnp.float32(1.5))
    self.assertEqual(out.dtype, jnp.float32)
    self.assertEqual(float(out[0]), 1 + 1.5 * 2**-7)
