"""Paths of shapes: uniform motion, and each kind of flaw."""

from absl.testing import parameterized
import numpy as np

from lift_jax.toyworld import flaws, paths, scenes

_STEP = np.array((0.0, 0.04))


def _path(*steps) -> np.ndarray:
  """Positions [9, 2]; `steps` are (index, step) that replace the default."""
  all_steps = [_STEP] * 8
  for index, step in steps:
    all_steps[index] = step
  return 0.5 + np.cumsum([np.zeros(2), *all_steps], axis=0)


class MotionTest(parameterized.TestCase):
  def _measured(self, path_t2):
    strengths, step_2 = paths.measure_motion(path_t2)
    self.assertEqual(set(strengths), set(flaws.MOTION_KINDS))
    return {k: v for k, v in strengths.items() if v}, step_2

  def test_uniform(self):
    strengths, step_2 = self._measured(_path())
    self.assertEqual(strengths, {})
    np.testing.assert_allclose(step_2, _STEP)

  def test_freeze(self):
    """The share of steps without motion."""
    halts = [(index, np.zeros(2)) for index in (2, 3)]
    strengths, step_2 = self._measured(_path(*halts))
    self.assertEqual(strengths, {'freeze': 0.25})
    np.testing.assert_allclose(step_2, _STEP)
    strengths, _ = self._measured(np.full((9, 2), 0.5))
    self.assertEqual(strengths, {'freeze': 1.0})

  def test_drop(self):
    """Dropped frames, as a share of the remaining steps."""
    strengths, step_2 = self._measured(_path((4, 3 * _STEP)))
    self.assertEqual(set(strengths), {'drop'})
    self.assertAlmostEqual(strengths['drop'], 2 / 8)
    np.testing.assert_allclose(step_2, _STEP)

  def test_teleport(self):
    """The length of the jump, in sides."""
    strengths, step_2 = self._measured(_path((4, _STEP + (0.2, 0))))
    self.assertEqual(set(strengths), {'teleport'})
    self.assertAlmostEqual(strengths['teleport'], 0.2)
    np.testing.assert_allclose(step_2, _STEP)

  def test_jitter(self):
    """Root mean square of the distances from uniform motion."""
    jitter_t2 = np.zeros((9, 2))
    jitter_t2[:, 0] = 0.05 * np.array((1, -1, 1, -1, 0, -1, 1, -1, 1))
    strengths, _ = self._measured(_path() + jitter_t2)
    self.assertEqual(set(strengths), {'jitter'})
    self.assertAlmostEqual(
      strengths['jitter'], 0.05 * np.sqrt(8 / 9), delta=0.001
    )


class DirectionTest(parameterized.TestCase):
  def test_all(self):
    for name, degrees in scenes.MOTIONS.items():
      for off in (-20, 0, 20):
        angle = np.deg2rad(degrees + off)
        step_2 = 0.04 * np.array((np.sin(angle), np.cos(angle)))
        self.assertEqual(paths.direction(step_2), name)

  def test_none(self):
    self.assertIsNone(paths.direction(np.zeros(2)))

  def test_is_stationary(self):
    self.assertFalse(paths.is_stationary(_path()))
    self.assertTrue(paths.is_stationary(_path() * 0.1))
    still = np.full((9, 2), 0.5)
    self.assertTrue(paths.is_stationary(still))
    # A single jump and back is motion.
    still[4, 0] += 0.3
    self.assertFalse(paths.is_stationary(still))
