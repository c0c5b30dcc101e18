"""Files of curves: what they contain, and for what they are refused."""

import dataclasses
import json
import types

from absl.testing import parameterized
import numpy as np
import pytest

from lift_jax.diffusion.sampler import SamplerConfig
from lift_jax.diffusion.schedule import ScheduleConfig
from lift_jax.errors import UserError
from lift_jax.sampling import cache_curve, fingerprints
from lift_jax.sampling.config import VideoConfig

pytestmark = pytest.mark.fast

NUM_STEPS = 6
VIDEO = VideoConfig(height=48, width=64, num_frames=9, tiling=True)
SAMPLER = SamplerConfig('dpm', NUM_STEPS, dynamic_guidance='step')


def model(checkpoint='1', can_cache=True):
  return types.SimpleNamespace(
    family='cogvideox',
    can_cache=can_cache,
    schedule=ScheduleConfig(),
    fingerprint=lambda part: f'{part} {checkpoint}',
  )


class CurveTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _setting(self, tmp_path):
    self.path = tmp_path / 'curve.json'

  def write(self, num_branches=2, **changes):
    changes_n = np.linspace(0, 1, NUM_STEPS)
    curve = cache_curve.make(
      cache_curve.measured_for(model(), VIDEO, SAMPLER),
      4,
      np.full((num_branches, NUM_STEPS), 0.99),
      changes_n**2,
      changes_n,
    )
    self.path.write_text(json.dumps(curve | changes))
    return curve

  def sampler(self, cache='magcache', **changes):
    return dataclasses.replace(
      SAMPLER, cache=cache, cache_curve=str(self.path), **changes
    )

  def computed(self, sampler, video=VIDEO, checkpoint='1'):
    is_computed = cache_curve.computed_steps(model(checkpoint), video, sampler)
    return np.flatnonzero(is_computed).tolist()

  @parameterized.parameters(1, 2)
  def test_magcache(self, num_branches):
    curve = self.write(num_branches)
    self.assertEqual(
      list(curve['residual_ratios']), ['negative', 'positive'][-num_branches:]
    )
    self.assertEqual(self.computed(self.sampler()), [0, 4])
    self.assertEqual(
      self.computed(self.sampler(cache_max_skips=1, cache_retention=0.5)),
      [0, 1, 2, 4],
    )

  def test_teacache(self):
    """Its polynomial is fitted to changes of the output, here x^2."""
    curve = self.write()
    np.testing.assert_allclose(
      curve['coefficients'], (0, 0, 1, 0, 0), rtol=0, atol=1e-6
    )
    # Sums of .04, .16, .36, .64.
    sampler = self.sampler('teacache', cache_threshold=0.25)
    self.assertEqual(self.computed(sampler), [0, 3, 4, 5])

  def test_off(self):
    self.assertIsNone(cache_curve.computed_steps(model(), VIDEO, SAMPLER))

  @parameterized.parameters(
    (dict(checkpoint='2'), 'measured with checkpoint = '),
    (
      dict(video=dataclasses.replace(VIDEO, num_frames=17)),
      'measured with video.num_frames = 9, which is now 17; run lift calibrate',
    ),
    (dict(num_steps=7), 'sampler.num_steps = 6, which is now 7'),
    (dict(name='ddim'), "sampler.name = 'dpm', which is now 'ddim'"),
    (dict(guidance_scale=7.0), 'sampler.guidance_scale = 6.0, which is now'),
    (
      dict(guidance_range=(1, 4)),
      r'sampler.guidance_range = None, which is now \[1, 4\]',
    ),
  )
  def test_of_something_else(self, change, message):
    self.write()
    where = {k: change.pop(k) for k in ('checkpoint', 'video') if k in change}
    with self.assertRaisesRegex(UserError, message):
      self.computed(self.sampler(**change), **where)

  @parameterized.parameters(
    {'residual_ratios': {'positive': [1.0] * 5}},
    {'residual_ratios': {'positive': [float('nan')] * 6}},
    {'residual_ratios': {}},
    {'residual_ratios': [1.0] * 6},
    {'residual_ratios': {'positive': ['1'] * 6}},
  )
  def test_damaged(self, residual_ratios):
    self.write(residual_ratios=residual_ratios)
    with self.assertRaisesRegex(UserError, 'curve.json: not a curve of 6'):
      self.computed(self.sampler())

  def test_missing(self):
    with self.assertRaisesRegex(UserError, 'curve.json: no such file'):
      self.computed(self.sampler())

  def test_another_family(self):
    with self.assertRaisesRegex(UserError, 'compute every step'):
      cache_curve.computed_steps(model(can_cache=False), VIDEO, self.sampler())

  def test_settings(self):
    """What is off is left out; a curve is its content."""
    plain = fingerprints.sampler_settings(SAMPLER)
    self.assertEqual(
      set(plain),
      {
        'name', 'num_steps', 'guidance_scale', 'dynamic_guidance', 'reference',
        'carry_dtype',
      },
    )  # fmt: skip
    self.write()
    before = fingerprints.sampler_settings(self.sampler())
    self.assertEqual(before['cache_threshold'], 0.06)
    elsewhere = self.path.rename(self.path.with_name('other.json'))
    moved = dataclasses.replace(self.sampler(), cache_curve=str(elsewhere))
    self.assertEqual(fingerprints.sampler_settings(moved), before)
    self.write(num_clips=5)
    self.assertNotEqual(fingerprints.sampler_settings(self.sampler()), before)
