"""Motion of drawn clips."""

import numpy as np
import pytest

from lift_jax.evaluation import motion

pytestmark = pytest.mark.fast


def test_difference():
  """A square of a quarter of the picture is lit in every second frame."""
  frames_thw3 = np.zeros((5, 16, 16, 3), np.uint8)
  frames_thw3[1::2, :8, :8] = 51
  measured = motion.measure(frames_thw3)
  assert measured.difference == pytest.approx(0.25 * 51 / 255)
  assert not measured.is_static


def test_static():
  still_thw3 = np.full((5, 16, 16, 3), 100, np.uint8)
  assert motion.measure(still_thw3) == motion.Motion(0.0, True)
  assert motion.measure(still_thw3[:1]) == motion.Motion(0.0, True)
  # What a codec may change: one value in ten by one level.
  coded_thw3 = still_thw3.copy()
  coded_thw3[::2, ::4, ::16] += 1
  assert 0 < motion.measure(coded_thw3).difference < 1e-3
  assert motion.measure(coded_thw3).is_static
