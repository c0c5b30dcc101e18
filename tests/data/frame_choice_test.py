"""Which frames are chosen, by number and by time."""

import math

from absl.testing import parameterized
import numpy as np
import pytest

from lift_jax.data import frame_choice

pytestmark = pytest.mark.fast


class ChooseFramesTest(parameterized.TestCase):
  @parameterized.parameters(
    (1, 1),
    (2, 1),
    (3, 1),
    (4, 1),
    (5, 5),
    (33, 33),
    (40, 37),
    (48, 45),
    (49, 49),
  )
  def test_short(self, num_frames, num_chosen):
    self.assertEqual(
      frame_choice.choose_frames(num_frames), list(range(num_chosen))
    )

  @parameterized.parameters(
    (50, 1),
    (97, 1),
    (98, 2),
    (146, 2),
    (147, 3),
    (490, 10),
  )
  def test_long(self, num_frames, step):
    self.assertEqual(
      frame_choice.choose_frames(num_frames), list(range(0, 49 * step, step))
    )

  def test_always_4k_plus_1(self):
    for num_frames in range(1, 200):
      for max_frames in (1, 9, 16, 49):
        indices = frame_choice.choose_frames(num_frames, max_frames)
        self.assertEqual(len(indices) % 4, 1)
        self.assertLess(max(indices), num_frames)
        self.assertLessEqual(len(indices), max_frames)
        # No more is dropped than needed.
        self.assertGreater(len(indices), min(num_frames, max_frames) - 4)

  def test_none(self):
    with self.assertRaises(ValueError):
      frame_choice.choose_frames(0)


class ResampleIndicesTest(parameterized.TestCase):
  @parameterized.parameters(
    (10, 8, 8, list(range(10))),
    (10, 24, 8, [0, 3, 6, 9]),
    (9, 24, 8, [0, 3, 6]),
    (9, 30, 8, [0, 4, 8]),  # times 0, 3.75, 7.5 in frames
    (4, 4, 8, [0, 1, 1, 2, 2, 3, 3]),  # halves go to the later frame
    (1, 30, 8, [0]),
    (1, 8, 30, [0]),
  )
  def test_nearest(self, num_frames, source_fps, target_fps, indices):
    self.assertEqual(
      frame_choice.resample_indices(
        np.arange(num_frames) / source_fps, target_fps
      ),
      indices,
    )

  def test_ntsc(self):
    indices = frame_choice.resample_indices(
      np.arange(145) * 1001 / 24000, 8000 / 1001
    )
    self.assertEqual(indices, list(range(0, 145, 3)))

  @parameterized.parameters(0, -1, math.nan, math.inf)
  def test_bad_rate(self, fps):
    with self.assertRaisesRegex(ValueError, 'frame rate'):
      frame_choice.resample_indices([0, 0.1], fps)


class TimesTest(parameterized.TestCase):
  def test_variable(self):
    """Thirty frames at 30 fps, then two a second."""
    times = [*range(30), *range(44, 200, 15)]
    chosen = frame_choice.resample_indices(np.array(times) / 30, 8)
    self.assertEqual(chosen[:8], [0, 4, 8, 11, 15, 19, 23, 26])
    for k, index in enumerate(chosen):
      gaps = [abs(time / 30 - k / 8) for time in times]
      self.assertAlmostEqual(gaps[index], min(gaps), msg=k)

  def test_starts_later(self):
    times = np.arange(10) / 24 + 3.25
    self.assertEqual(frame_choice.resample_indices(times, 8), [0, 3, 6, 9])

  @parameterized.parameters((24, 8), (24, 16), (30, 8), (30, 12), (8, 12))
  def test_rounded_to_ticks(self, source_fps, target_fps):
    """Milliseconds, as in Matroska, change nothing."""
    exact = np.arange(101) / source_fps
    self.assertEqual(
      frame_choice.resample_indices(np.round(exact, 3), target_fps, 0.001),
      frame_choice.resample_indices(exact, target_fps),
    )

  @parameterized.parameters(
    ([0, 1, 2, 3], 0, False),
    ([0, 1, 2, 3.05], 0, False),
    ([0, 1, 2, 3.5], 0, True),
    ([0, 1, 3, 4], 0, True),
    ([0.033, 0.067, 0.1, 0.133], 0.001, False),
    ([0, 0.04, 0.08, 0.133], 0.001, True),
    ([0, 0.12, 0.25, 0.37, 0.5], 0.01, False),  # 8 fps in a GIF
    ([0, 5], 0, False),
    ([0], 0, False),
  )
  def test_is_variable(self, times, tick, wanted):
    self.assertEqual(frame_choice.is_variable(times, tick), wanted)
