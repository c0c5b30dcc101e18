"""Distances of clips of one prompt."""

import numpy as np
import pytest

from lift_jax.evaluation.diversity import grid_features, pairwise_distance

pytestmark = pytest.mark.fast


def test_grid_features():
  """Cells of a size that does not divide the picture."""
  frames_thw3 = np.zeros((2, 12, 20, 3), np.uint8)
  frames_thw3[1, :, 10:] = 255
  grid = grid_features(frames_thw3).reshape(2, 8, 8, 3)
  assert not grid[0].any()
  np.testing.assert_array_equal(grid[1, :, :4], 0)
  np.testing.assert_array_equal(grid[1, :, 4:], 1)


def test_noise_does_not_count():
  rng = np.random.default_rng(0)
  grey_thw3 = np.full((4, 64, 64, 3), 128)
  noisy = [
    grid_features(grey_thw3 + rng.integers(-40, 41, grey_thw3.shape))
    for _ in range(2)
  ]
  other = grid_features(grey_thw3 + 40)
  assert pairwise_distance(np.stack(noisy)) < 0.02
  assert pairwise_distance(np.stack([noisy[0], other])) > 0.15


def test_pairwise_distance():
  """Pairs at 0.3, 0.3 and 0: means are over pairs, not over clips."""
  features_nd = np.array([[0.1, 0.1], [0.4, 0.4], [0.4, 0.4]])
  assert pairwise_distance(features_nd) == pytest.approx(0.2)
  assert pairwise_distance(features_nd[:1]) is None
