"""Distance to base by files of latents; the networks are faked."""

import logging
import signal
from unittest import mock

from absl.testing import parameterized
import numpy as np
import pytest

from lift_jax.comparison import distance_measuring, measuring
from lift_jax.comparison.clip_sets import read_clips
from lift_jax.comparison.distance_measuring import (
  DistanceMeasurer,
  distance_measured,
)
from lift_jax.errors import UserError
from lift_jax.runtime.progress import Progress
from lift_jax.runtime.shutdown import StopSignal
from tests import threaded_hosts
from tests.comparison import sets

pytestmark = pytest.mark.fast


class FakeDistance:
  """Proportional to the mean of the latents.

  Args:
    draws: for the fingerprint.
    calls: gets the captions of each call.
    kept: gets whether each call keeps the networks.
    at_call: is called too.
  """

  def __init__(self, draws, calls, kept, at_call):
    self._draws, self._calls, self._kept = draws, calls, kept
    self._at_call = at_call

  def fingerprint(self):
    return {'draws': self._draws}

  def __call__(self, clips, *, keep):
    for clip in clips:
      assert clip.latents.shape == (2, 4, 5, 3)
    self._calls.append([clip.caption for clip in clips])
    self._kept.append(keep)
    self._at_call()
    return [float(clip.latents.mean()) / 8 for clip in clips]


class DistanceTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.workdir = tmp_path
    self.base = sets.write_model(tmp_path / 'base', num_clips=2)
    (self.base / 'latents').mkdir()
    for number, name in enumerate(('a-0', 'a-1', 'b-0', 'b-1')):
      # [F, C, h, w], as lift sample writes them.
      latents_fchw = np.full((2, 3, 4, 5), number, np.float32)
      np.save(self.base / 'latents' / f'{name}.npy', latents_fchw)
    self.calls, self.kept, self.at_call = [], [], lambda: None

  def measurer(self, model='y', draws=2):
    return DistanceMeasurer(
      self.workdir,
      read_clips('base', self.base),
      model,
      FakeDistance(draws, self.calls, self.kept, lambda: self.at_call()),
    )

  def run_all(self, *measurers):
    return measuring.measure_all(measurers, 2, self.progress())

  def progress(self):
    return Progress(4, 'clip', logger=logging.getLogger('x'))

  def test_values(self):
    measurers = self.measurer('y'), self.measurer('z')
    self.assertTrue(self.run_all(*measurers))
    (found,) = distance_measured(measurers)
    base, y, z = found.values
    self.assertEqual(set(base.values()), {0.0})
    self.assertEqual(list(y.values()), [0, 0.125, 0.25, 0.375])
    self.assertEqual(y, z)
    self.assertEqual(self.calls, 2 * [['a', 'a', 'b', 'b']])
    self.assertEqual(self.kept, [False, False])

  def test_resumes(self):
    self.run_all(self.measurer())
    self.calls.clear()
    self.run_all(self.measurer())
    self.assertEqual(self.calls, [])
    self.run_all(self.measurer(draws=3))
    self.assertLen(self.calls, 1)

  def test_some_at_a_time(self):
    """A stop leaves what was measured, and the rest is measured later."""
    with mock.patch.object(distance_measuring, 'AT_A_TIME', 3):
      with StopSignal(together=False) as stop:
        self.at_call = lambda: stop._handle(signal.SIGTERM, None)
        measurer = self.measurer()
        self.assertFalse(measurer.run(2, stop, self.progress()))
      self.assertEqual(self.calls, [['a', 'a', 'b']])
      self.assertTrue(self.run_all(measurer := self.measurer()))
    self.assertEqual(self.calls, [['a', 'a', 'b'], ['b']])
    self.assertEqual(self.kept, [True, False])
    (found,) = distance_measured([measurer])
    self.assertEqual(list(found.values[1].values()), [0, 0.125, 0.25, 0.375])

  def test_hosts(self):
    def work(host):
      del host
      measurer = self.measurer()
      self.assertTrue(self.run_all(measurer))
      return measurer.results()

    first, second = threaded_hosts.run(2, work)
    self.assertEqual(first, second)
    self.assertLen(first, 4)
    self.assertEqual(sorted(map(len, self.calls)), [2, 2])

  def test_no_latents(self):
    (self.base / 'latents' / 'a-1.npy').unlink()
    with self.assertRaisesRegex(UserError, 'a-1.npy: .*keep_latents = True'):
      self.run_all(self.measurer())
    self.assertEqual(self.calls, [])
