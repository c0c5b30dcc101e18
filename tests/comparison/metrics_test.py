"""Metrics of clips, against their definitions."""

import pathlib
import tempfile

from absl.testing import parameterized
import numpy as np
import pytest

from lift_jax.comparison import block_motion, measuring, metrics
from lift_jax.weights import safetensors_files
from tests.comparison import sets

pytestmark = pytest.mark.fast


class FlickerTest(parameterized.TestCase):
  def test_definition(self):
    """As VBench computes it: float32 means of pairs, then of the clip."""
    frames = sets.noise(6, 32)
    means = [
      np.mean(np.abs(frames[t].astype(np.float32) - frames[t + 1]))
      for t in range(5)
    ]
    expected = (255.0 - np.mean(np.array(means)).item()) / 255.0
    self.assertAlmostEqual(
      metrics.temporal_flickering(frames), expected, delta=1e-6
    )

  def test_no_wrapping(self):
    """From black to white and back: differences of 255, not of 1."""
    frames = np.zeros((3, 4, 4, 3), np.uint8)
    frames[1] = 255
    self.assertEqual(metrics.temporal_flickering(frames), 0)

  def test_still(self):
    frames = np.repeat(sets.noise(1), 5, axis=0)
    self.assertEqual(metrics.temporal_flickering(frames), 1)


def _shifted(shift_2, num_frames=3, side=64):
  """A pattern that moves by whole pixels between frames."""
  rng = np.random.default_rng(0)
  image = rng.integers(0, 256, (side, side, 3)).astype(np.uint8)
  return np.stack(
    [
      np.roll(image, [t * step for step in shift_2], axis=(0, 1))
      for t in range(num_frames)
    ]
  )


class BlockMotionTest(parameterized.TestCase):
  @parameterized.parameters((0, 0), (0, 1), (3, -4), (-6, 6))
  def test_shift(self, *shift_2):
    lengths_pmn = block_motion.block_lengths(_shifted(shift_2))
    self.assertEqual(lengths_pmn.shape, (2, 8, 8))
    # Blocks at the edges may have moved in from outside.
    inner = lengths_pmn[:, 1:-1, 1:-1]
    np.testing.assert_allclose(inner, np.hypot(*shift_2) / 64, rtol=1e-6)

  def test_shrunk(self):
    """Two pixels of a clip of 128 are one of its half."""
    frames = _shifted((0, 2), side=64).repeat(2, axis=1).repeat(2, axis=2)
    lengths_pmn = block_motion.block_lengths(frames)
    inner = lengths_pmn[:, 1:-1, 1:-1]
    np.testing.assert_allclose(inner, 4 / 128, rtol=1e-6)

  def test_noise_does_not_move(self):
    rng = np.random.default_rng(0)
    still = np.full((3, 64, 64, 3), 100)
    noisy = (still + rng.integers(-1, 2, still.shape)).astype(np.uint8)
    self.assertEqual(block_motion.mean_and_p95(noisy), (0, 0))

  def test_part_moves(self):
    """Of 64 blocks four move, which the percentile sees."""
    frames = np.full((2, 64, 64, 3), 30, np.uint8)
    frames[0, 16:32, 16:32] = frames[1, 16:32, 20:36] = sets.noise(1)[0]
    mean, p95 = block_motion.mean_and_p95(frames)
    self.assertBetween(mean, 0.003, 0.006)
    self.assertAlmostEqual(p95, 4 / 64, places=5)

  def test_smaller_than_a_block(self):
    mean, p95 = block_motion.mean_and_p95(sets.noise(3, 4))
    self.assertTrue(np.isfinite([mean, p95]).all())


class RegistryTest(parameterized.TestCase):
  def test_weights(self):
    """A measure is opened where the folders that it needs are given."""
    metric = metrics.Metric('x', 'x', 'g', metrics.HIGHER)
    seen = []

    def opener(weights):
      seen.append(weights)
      return lambda frames: (float(len(frames)),)

    measure = metrics.ClipMeasure((metric,), opener, needs=('dino',))
    free = [one for one in metrics.measures() if not one.needs]
    opened = measuring.open_measures((*free, measure), {})
    self.assertLen(opened, len(free))
    folders = {'dino': pathlib.Path('d')}
    opened = measuring.open_measures((*free, measure), folders)
    self.assertEqual(seen, [folders])
    self.assertEqual(opened[-1].names, ('x',))
    self.assertEqual(opened[-1].compute(sets.noise(4)), (4.0,))

  def test_fingerprint(self):
    """Of the weights, wherever they are."""
    metric = metrics.Metric('x', 'x', 'g', metrics.HIGHER)
    measure = metrics.ClipMeasure(
      (metric,), lambda _: lambda frames: (0.0,), needs=('w',)
    )
    found = []
    with tempfile.TemporaryDirectory() as temporary:
      root = pathlib.Path(temporary)
      for number, value in enumerate((1, 1, 2)):
        folder = root / str(number)
        folder.mkdir()
        path = folder / 'model.safetensors'
        array = np.full(3, value, np.float32)
        safetensors_files.write(
          path, [('a', (3,), np.float32, lambda array=array: array)]
        )
        for weights in (folder, path):
          (opened,) = measuring.open_measures([measure], {'w': weights})
          found.append(opened.weights)
    self.assertEqual(found, [found[0]] * 4 + [found[4]] * 2)
    self.assertNotEqual(found[0], found[4])

  def test_names_are_distinct(self):
    names = [name for one in metrics.measures() for name in one.names]
    self.assertLen(set(names), len(names))
    with self.assertRaisesRegex(ValueError, 'registered already'):
      metrics.register(metrics.measures()[0])
