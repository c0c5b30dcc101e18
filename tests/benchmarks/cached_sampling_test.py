"""The benchmark of step caches, at a size that says nothing about speed."""

import cached_sampling
import numpy as np
import pytest

from lift_jax.diffusion import step_cache
from lift_jax.sampling import cache_curve
from lift_jax.sampling.programs import StepChanges

STEPS = cached_sampling.NUM_STEPS


@pytest.mark.fast
def test_settings():
  """From nothing to more than three times saved, by both methods."""
  changes_n = np.linspace(0.1, 1, STEPS) / 10
  changes = StepChanges(np.full((1, STEPS), 0.96), changes_n, changes_n)
  settings = cached_sampling.settings_of(changes)
  assert settings[0].num_computed == STEPS
  for kind in ('magcache', 'teacache'):
    computed = [s.num_computed for s in settings if s.name.startswith(kind)]
    assert computed == sorted(computed, reverse=True)
    assert computed[-1] <= STEPS / 3 < computed[0]


@pytest.mark.fast
def test_threshold_is_shown():
  """A little above or below, other steps are skipped."""
  changes_n = np.linspace(0.0127, 0.127, STEPS)
  changes = StepChanges(np.full((1, STEPS), 0.96), changes_n, changes_n)
  settings = cached_sampling.settings_of(changes)
  curve = cache_curve.make({}, 0, *changes)
  for setting in settings[-3:]:
    schedule = step_cache.teacache_steps(
      changes_n, curve['coefficients'], float(setting.name.split()[1])
    )
    np.testing.assert_array_equal(schedule, setting.is_computed)


@pytest.mark.fast
def test_similarity():
  """Known values: equal, one level off, and unrelated noise."""
  rng = np.random.default_rng(0)
  video = rng.integers(0, 255, (2, 3, 16, 16, 3), np.uint8)
  assert cached_sampling.psnr(video, video) == np.inf
  assert cached_sampling.ssim(video, video) == 1
  assert cached_sampling.psnr(video, video + 1) == pytest.approx(
    48.13, abs=0.01
  )
  assert cached_sampling.ssim(video, video + 1) > 0.999
  assert abs(cached_sampling.ssim(video, rng.permuted(video, axis=3))) < 0.1


def test_middle():
  rows = cached_sampling.measure_middle(rounds=1, tiny=True)
  computed = [row['computed'] for row in rows]
  assert computed[0] == STEPS > computed[1] > computed[2]
  assert rows[0]['process_ratio'] == 1
  lines = cached_sampling.table('middle', rows)
  assert lines[0].startswith('| middle | steps computed | CPU seconds |')
  assert len(lines) == 5
