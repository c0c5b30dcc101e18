"""Which steps the caches skip."""

from absl.testing import parameterized
import numpy as np
import pytest

from lift_jax.diffusion import step_cache

pytestmark = pytest.mark.fast

# Measured by MagCache's authors for the text branch of Wan 2.1 1.3B, 50 steps.
WAN = (
  1, 1.0124, 1.00166, .99791, .99682, .99634, .99567, .99416, .99578, .9957,
  .99511, .99535, .99552, .99541, .9954, .99489, .99518, .99484, .99481, .99415,
  .99419, .99396, .99388, .99349, .99309, .9927, .99228, .99171, .99137, .99068,
  .99005, .98944, .98849, .98758, .98644, .98504, .9836, .98202, .97977, .97717,
  .9741, .97003, .96538, .9593, .95086, .94013, .92402, .90241, .86821, .81838,
)  # fmt: skip
# What diffusers 0.42's hook skips with this curve and its defaults.
SKIPPED = (
  10, 11, 12, 14, 15, 16, 18, 19, 20, 22, 23, 24, 26, 27, 28, 30, 31, 33, 34,
  36, 37, 39, 41, 43, 45,
)  # fmt: skip


def skipped(is_computed):
  return tuple(np.flatnonzero(~is_computed).tolist())


class MagCacheTest(parameterized.TestCase):
  def test_published_curve(self):
    is_computed = step_cache.magcache_steps(np.array([WAN]), 0.06, 3, 0.2)
    self.assertEqual(skipped(is_computed), SKIPPED)

  def test_rule(self):
    """Products .9, .81, errors .1, .29; the third is computed, and resets."""
    ratios = np.full((1, 8), 0.9)

    def of(threshold, max_skips, retention):
      return skipped(
        step_cache.magcache_steps(ratios, threshold, max_skips, retention)
      )

    self.assertEqual(of(0.3, 9, 0.0), (1, 2, 4, 5, 7))
    self.assertEqual(of(0.1 + 1e-9, 9, 0.0), (1, 3, 5, 7))
    self.assertEqual(of(9, 3, 0.0), (1, 2, 3, 5, 6, 7))
    self.assertEqual(of(9, 9, 0.5), (4, 5, 6, 7))
    self.assertEqual(of(0.09, 9, 0.0), ())

  def test_both_branches_must_allow_it(self):
    """The second curve doubles at step 2, while the first stays the same."""
    ratios = np.ones((2, 6))
    ratios[1, 2] = 2
    is_computed = step_cache.magcache_steps(ratios, 0.5, 9, 0.0)
    self.assertEqual(skipped(is_computed), (1, 3, 4, 5))

  def test_no_residual_at_the_start_of_a_phase(self):
    is_computed = step_cache.magcache_steps(np.ones((1, 6)), 1, 9, 0.0, (0, 3))
    self.assertEqual(skipped(is_computed), (1, 2, 4, 5))


class TeaCacheTest(parameterized.TestCase):
  def test_rule(self):
    """Sums of 2 d below .5; the first and the last step are computed."""
    changes = np.array([0, 0.1, 0.1, 0.1, 0.2, 0.2, 0, 0])
    is_computed = step_cache.teacache_steps(changes, (0, 0, 0, 2, 0), 0.5)
    self.assertEqual(skipped(is_computed), (1, 2, 4, 6))

  def test_sum_may_decrease(self):
    changes = np.array([0, 0.3, 0, 0.3, 0.0])
    steps = step_cache.teacache_steps(changes, (0, 0, 0, 1, -0.1), 0.35)
    self.assertEqual(skipped(steps), (1, 2, 3))
    steps = step_cache.teacache_steps(changes, (0, 0, 0, 1, 0), 0.35)
    self.assertEqual(skipped(steps), (1, 2))

  def test_no_residual_at_the_start_of_a_phase(self):
    steps = step_cache.teacache_steps(np.zeros(5), (0,) * 5, 1, (0, 2))
    self.assertEqual(skipped(steps), (1, 3))

  # The published coefficients, and what facts about them were computed before.
  @parameterized.parameters(
    (
      (-31.0658903, 25.4732368, -5.92380459, 1.75769064, -3.61568434e-3),
      (-0.0036, 0.0134, 0.0294, 0.0724, 0.1353),
    ),
    (
      (-1538.80483, 843.202495, -134.363087, 7.97131516, -5.23162339e-2),
      (-0.0523, 0.0148, 0.0599, 0.1061, 0.0905),
    ),
  )
  def test_fit(self, coefficients, expected):
    """It returns the polynomial that made the points."""
    changes = np.array([0, 0.01, 0.02, 0.05, 0.1])
    values = np.polyval(coefficients, changes)
    np.testing.assert_allclose(values, expected, rtol=0, atol=6e-5)
    np.testing.assert_allclose(
      step_cache.fit_polynomial(changes, values), coefficients, rtol=1e-6
    )

  def test_fit_of_few_points(self):
    """A curve through them; none at all gives zeros."""
    x, y = np.array([0.1, 0.3]), np.array([0.2, 0.5])
    np.testing.assert_allclose(
      np.polyval(step_cache.fit_polynomial(x, y), x), y
    )
    self.assertEqual(step_cache.fit_polynomial(x[:0], y[:0]).tolist(), [0] * 5)
