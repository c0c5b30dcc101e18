"""Normalisation of latents, and back."""

import dataclasses

from absl.testing import parameterized
import jax.numpy as jnp
import numpy as np

from lift_jax.models.latents import LatentScale


class LatentScaleTest(parameterized.TestCase):
  @parameterized.parameters(
    (LatentScale(0.5), [0.5, -1.0]),
    (LatentScale((2.0, 3.0), (0.5, -1.0)), [1.0, -3.0]),
  )
  def test_round_trip(self, scale, expected):
    z = jnp.array([[1.0, -2.0]])
    x = scale.normalize(z)
    np.testing.assert_allclose(x, [expected], rtol=1e-6)
    np.testing.assert_allclose(scale.denormalize(x), z, rtol=1e-6)
    hash(dataclasses.replace(scale))  # a static argument of programs
