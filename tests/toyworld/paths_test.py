"""The ways of shapes: even, or disturbed in each of the known manners."""

from absl.testing import parameterized
import numpy as np

from lift_jax.toyworld import flaws, paths, scenes

_STEP = np.array((0.0, 0.04))


def _path(*steps) -> np.ndarray:
  """Places [9, 2] from the middle; steps that are not named are even."""
  every = [_STEP] * 8
  for place, step in steps:
    every[place] = step
  return 0.5 + np.cumsum([np.zeros(2), *every], axis=0)


class MotionTest(parameterized.TestCase):
  def _measured(self, path_t2):
    strengths, way_2 = paths.measure_motion(path_t2)
    self.assertEqual(set(strengths), set(flaws.MOTION_KINDS))
    return {k: v for k, v in strengths.items() if v}, way_2

  def test_even(self):
    strengths, way_2 = self._measured(_path())
    self.assertEqual(strengths, {})
    np.testing.assert_allclose(way_2, _STEP)

  def test_freeze(self):
    """The share of steps that are none."""
    still = [(place, np.zeros(2)) for place in (2, 3)]
    strengths, way_2 = self._measured(_path(*still))
    self.assertEqual(strengths, {'freeze': 0.25})
    np.testing.assert_allclose(way_2, _STEP)
    strengths, _ = self._measured(np.full((9, 2), 0.5))
    self.assertEqual(strengths, {'freeze': 1.0})

  def test_drop(self):
    """Steps left out, as a share of all."""
    strengths, way_2 = self._measured(_path((4, 3 * _STEP)))
    self.assertEqual(set(strengths), {'drop'})
    self.assertAlmostEqual(strengths['drop'], 2 / 8)
    np.testing.assert_allclose(way_2, _STEP)

  def test_teleport(self):
    """How far the shape leaps aside, in sides."""
    strengths, way_2 = self._measured(_path((4, _STEP + (0.2, 0))))
    self.assertEqual(set(strengths), {'teleport'})
    self.assertAlmostEqual(strengths['teleport'], 0.2)
    np.testing.assert_allclose(way_2, _STEP)

  def test_jitter(self):
    """Root mean square of the distances from the even way."""
    aside_t2 = np.zeros((9, 2))
    aside_t2[:, 0] = 0.05 * np.array((1, -1, 1, -1, 0, -1, 1, -1, 1))
    strengths, _ = self._measured(_path() + aside_t2)
    self.assertEqual(set(strengths), {'jitter'})
    self.assertAlmostEqual(
      strengths['jitter'], 0.05 * np.sqrt(8 / 9), delta=0.001
    )


class DirectionTest(parameterized.TestCase):
  def test_all(self):
    for name, degrees in scenes.MOTIONS.items():
      for off in (-20, 0, 20):
        angle = np.deg2rad(degrees + off)
        way_2 = 0.04 * np.array((np.sin(angle), np.cos(angle)))
        self.assertEqual(paths.direction(way_2), name)

  def test_none(self):
    self.assertIsNone(paths.direction(np.zeros(2)))

  def test_goes_nowhere(self):
    self.assertFalse(paths.goes_nowhere(_path()))
    self.assertTrue(paths.goes_nowhere(_path() * 0.1))
    still = np.full((9, 2), 0.5)
    self.assertTrue(paths.goes_nowhere(still))
    # There and back in one leap is a motion.
    still[4, 0] += 0.3
    self.assertFalse(paths.goes_nowhere(still))
