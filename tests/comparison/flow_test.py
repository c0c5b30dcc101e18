"""Static filter and dynamic degree, against flows that are made by hand."""

import logging

from absl.testing import parameterized
import numpy as np
import pytest

from lift_jax.comparison import flow, measuring
from lift_jax.comparison.clip_sets import read_clips
from lift_jax.data.suites import Suite, SuitePrompt
from lift_jax.errors import UserError
from lift_jax.runtime.progress import Progress
from tests.comparison import sets

pytestmark = pytest.mark.fast

# Of a square of 16 pixels, in pixels: 3 m / 256 and 6 m / 256.
SLOW, FAST = 3 * 16 / 256, 6 * 16 / 256


def flow_of(*speeds, first_to_last=0.0, last_to_first=0.0, share=1.0):
  """Flow [P, 16, 16, 2] of pairs, in which a share of the pixels moves."""
  speed_p = np.array([*speeds, first_to_last, last_to_first])
  flow_phw2 = np.zeros((len(speed_p), 256, 2), np.float32)
  moving = int(256 * share)
  # 3, 4, 5: both components count.
  flow_phw2[:, :moving] = speed_p[:, None, None] * np.array([-0.6, 0.8])
  return flow_phw2.reshape(-1, 16, 16, 2)


class RuleTest(parameterized.TestCase):
  @parameterized.parameters(
    # 9 frames: round(2 * 9 / 16) = 1 pair may be faster.
    ((0.0,) * 8, {}, True),
    ((0.9 * SLOW,) * 8, {}, True),
    ((1.1 * SLOW,) + (0.0,) * 7, {}, True),
    ((1.1 * SLOW,) * 2 + (0.0,) * 6, {}, False),
    # The other pairs may be twice as fast, as c is 1.
    ((0.0,) * 8, {'first_to_last': 1.9 * SLOW}, True),
    ((0.0,) * 8, {'first_to_last': 2.1 * SLOW}, False),
    ((0.0,) * 8, {'last_to_first': 2.1 * SLOW}, False),
    # 2% of 256 pixels are 5: the mean of those, of which 3 move.
    ((1.5 * SLOW,) * 8, {'share': 3 / 256}, True),
    ((1.8 * SLOW,) * 8, {'share': 3 / 256}, False),
  )
  def test_static(self, speeds, others, expected):
    self.assertEqual(flow.is_static(flow_of(*speeds, **others)), expected)

  @parameterized.parameters(
    # 9 frames: round(4 * 9 / 16) = 2 pairs are enough.
    ((1.1 * FAST,) * 2 + (0.0,) * 6, {}, True),
    ((1.1 * FAST,) + (0.9 * FAST,) * 7, {}, False),
    ((0.0,) * 8, {'first_to_last': 9.0, 'last_to_first': 9.0}, False),
    # 5% are 12 pixels, of which 6 move.
    ((2.1 * FAST,) * 8, {'share': 6 / 256}, True),
    ((1.9 * FAST,) * 8, {'share': 6 / 256}, False),
  )
  def test_dynamic(self, speeds, others, expected):
    self.assertEqual(flow.is_dynamic(flow_of(*speeds, **others)), expected)

  def test_kept(self):
    """The first five, by name: 'a-10' comes before 'a-2'."""
    flicker = {('a', index): index / 10 for index in range(12)}
    static = {key: key[1] not in (0, 3) for key in flicker}
    kept = flow.kept_flicker(flicker, static)
    self.assertEqual(
      kept,
      {
        ('a', 0): 0.1, ('a', 1): 1.0, ('a', 2): 1.1, ('a', 3): 0.2,
        ('a', 4): 0.4,
      },
    )  # fmt: skip


class MeasurerTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.workdir = tmp_path
    sets.write_model(
      tmp_path / 'x', num_clips=2, frames=lambda *_: sets.noise(9)
    )
    self.folder = tmp_path / 'flow'
    self.folder.mkdir()
    self.suite = Suite(
      'vbench',
      (
        SuitePrompt('a', 'a', 2, ('temporal_flickering',)),
        SuitePrompt('b', 'b', 2, ('scene',)),
      ),
    )
    for index, speed in enumerate((0.0, 2 * FAST)):
      self.save(f'a-{index}', flow_of(*(speed,) * 8))

  def save(self, name, flow_phw2):
    np.save(self.folder / f'{name}.npy', flow_phw2)

  def measure(self, **changes):
    found = read_clips('x', self.workdir / 'x')
    measurer = flow.FlowMeasurer(
      self.workdir, found, self.folder, changes.get('suite', self.suite)
    )
    progress = Progress(4, 'clip', logger=logging.getLogger('x'))
    self.assertTrue(measuring.measure_all([measurer], 2, progress))
    return measurer

  def test_measured(self):
    """On the prompts about flicker, which alone have files."""
    measurer = self.measure()
    self.assertEqual(measurer.num_clips, 2)
    static, dynamic, flicker = flow.flow_measured(
      [measurer], [{('a', 0): 0.9, ('a', 1): 0.5}], self.suite
    )
    self.assertEqual(static.values, ({('a', 0): 1.0, ('a', 1): 0.0},))
    self.assertEqual(dynamic.values, ({},))
    self.assertEqual(flicker.values, ({('a', 0): 0.9},))

  def test_resumes(self):
    """Only a file that has changed is read again."""
    self.measure()
    self.save('a-0', flow_of(*(FAST,) * 9)[:10])
    calls = []
    original = flow.is_static
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(
        flow, 'is_static', lambda x: calls.append(len(x)) or original(x)
      )
      results = self.measure().results()
    self.assertEqual(calls, [10])
    self.assertEqual(results['a', 0]['flow_static'], 0)

  @parameterized.parameters(
    (flow_of(*(0.0,) * 7), r'has shape \(9, 16, 16, 2\), but videos/a-0.mp4'),
    (flow_of(*(np.nan,) * 8), 'not all are finite numbers'),
    (np.zeros((10, 16, 16, 2), int), 'not all are finite numbers'),
  )
  def test_bad_file(self, flow_phw2, message):
    self.save('a-0', flow_phw2)
    with self.assertRaisesRegex(UserError, f'a-0.npy: {message}'):
      self.measure()

  def test_missing_file(self):
    suite = Suite('mine', (SuitePrompt('b', 'b', 2, ()),))
    with self.assertRaisesRegex(UserError, 'b-0.npy: no such file; give the'):
      self.measure(suite=suite)

  def test_no_array(self):
    (self.folder / 'a-0.npy').write_text('x')
    with self.assertRaisesRegex(UserError, 'a-0.npy: not an array'):
      self.measure()
