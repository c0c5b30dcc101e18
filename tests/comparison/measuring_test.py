"""Measuring of clips: what is kept, and what is measured again."""

import dataclasses
import logging
import os
import re
from unittest import mock

from absl.testing import parameterized
import numpy as np
import pytest

from lift_jax.comparison import measuring
from lift_jax.comparison.clip_sets import read_clips
from lift_jax.comparison.measuring import ClipMeasurer, OpenedMeasure
from lift_jax.data import video
from lift_jax.data.suites import Suite, SuitePrompt
from lift_jax.data.video_write import write_mp4
from lift_jax.errors import UserError
from lift_jax.runtime.progress import Progress
from lift_jax.runtime.shutdown import StopSignal
from tests import threaded_hosts
from tests.comparison import sets

pytestmark = pytest.mark.fast


class MeasuringTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.workdir = tmp_path
    self.calls = []

  def measure(self, name='mean'):
    def compute(frames_thw3):
      self.calls.append(frames_thw3.shape)
      return (float(frames_thw3.mean()),)

    return OpenedMeasure((name,), compute)

  def sample(self, **settings):
    return sets.write_model(
      self.workdir / 'x',
      frames=lambda name, index: sets.noise(5, seed=2 * ord(name) + index),
      **settings,
    )

  def measurer(self, name='mean'):
    found = read_clips('a/model', self.workdir / 'x')
    return ClipMeasurer(self.workdir, found, [self.measure(name)])

  def run_all(self, measurer):
    progress = Progress(4, 'clip', logger=logging.getLogger('x'))
    return measuring.measure_all([measurer], 2, progress)

  def test_values(self):
    self.sample(num_clips=2)
    measurer = self.measurer()
    self.assertTrue(self.run_all(measurer))
    self.assertEqual(self.calls, 4 * [(5, 16, 16, 3)])
    values, features = measurer.results()
    self.assertEqual(
      list(values['mean']), [('a', 0), ('a', 1), ('b', 0), ('b', 1)]
    )
    self.assertLen(set(values['mean'].values()), 4)
    # Four frames, a grid of 8 x 8 cells of RGB.
    self.assertEqual(features['a', 0].shape, (4 * 8 * 8 * 3,))
    self.assertEqual(features['a', 0].dtype, np.uint8)

  def test_resumes(self):
    folder = self.sample(num_clips=2)
    measurer = self.measurer()
    self.run_all(measurer)
    first, _ = measurer.results()
    self.calls.clear()
    # One clip has changed.
    path = folder / 'videos' / 'b-1.mp4'
    path.write_bytes((folder / 'videos' / 'a-0.mp4').read_bytes())
    os.utime(path, (1, 1))
    measurer = self.measurer()
    self.run_all(measurer)
    self.assertLen(self.calls, 1)
    second, _ = measurer.results()
    self.assertEqual(second['mean']['b', 1], first['mean']['a', 0])
    self.assertEqual(second['mean']['b', 0], first['mean']['b', 0])

  def test_opened_once(self):
    """A clip that is measured is not opened again, nor for its check."""
    folder = self.sample(num_clips=2)
    suite = Suite('x', tuple(SuitePrompt(name, name, 2) for name in 'ab'))
    found = read_clips('x', folder)
    opened, decode, probe = [], video.decode, video.probe

    def measure():
      opened.clear()
      measurer = ClipMeasurer(self.workdir, found, [self.measure()], suite)
      measurer.check_first()
      self.run_all(measurer)
      return sorted(opened)

    def count(of):
      return lambda path, **kw: opened.append(path.name) or of(path, **kw)

    with (
      mock.patch.object(video, 'decode', count(decode)),
      mock.patch.object(video, 'probe', count(probe)),
    ):
      names = ['a-0.mp4', 'a-1.mp4', 'b-0.mp4', 'b-1.mp4']
      self.assertEqual(measure(), ['a-0.mp4', *names])  # the first one twice
      self.assertEqual(measure(), [])
      (folder / 'videos' / 'b-0.mp4').touch()
      self.assertEqual(measure(), ['b-0.mp4'])

  @parameterized.parameters(
    ('x', 'b-1.mp4', b'', '1 cut or damaged (videos/b-1.mp4); lift compare'),
    ('x', 'b-0.mp4', 4, '1 of another number of frames (videos/b-0.mp4): not'),
    ('x', 'a-0.mp4', b'', '1 cut or damaged (videos/a-0.mp4)'),
    ('x', 'a-0.mp4', 4, '1 of another number of frames (videos/a-1.mp4): not'),
    ('vbench_long', '', None, '1 below 5 s (videos/a-0.mp4): VBench scores'),
  )  # fmt: skip
  def test_checked(self, suite, name, change, message):
    """Before it is kept, and again by a run that resumes."""
    folder = self.sample(num_clips=2)
    path = folder / 'videos' / name
    if isinstance(change, int):
      write_mp4(path, sets.noise(change))
    elif change is not None:
      path.write_bytes(change)
    measurer = ClipMeasurer(
      self.workdir,
      read_clips('x', folder),
      [self.measure()],
      Suite(suite, tuple(SuitePrompt(name, name, 2) for name in 'ab')),
    )
    for _ in range(2):
      with self.assertRaisesRegex(UserError, re.escape(f'{folder}: {message}')):
        measurer.check_first()
        self.run_all(measurer)

  def test_another_metric(self):
    self.sample()
    self.run_all(self.measurer())
    self.calls.clear()
    measurer = self.measurer('other')
    self.run_all(measurer)
    self.assertLen(self.calls, 2)
    self.assertEqual(list(measurer.results()[0]), ['other'])

  def test_prompts(self):
    """Clips of other prompts than a measure's are not measured with it."""
    self.sample()
    found = read_clips('a/model', self.workdir / 'x')
    only_a = dataclasses.replace(self.measure('of_a'), prompts=frozenset('a'))
    measurer = ClipMeasurer(self.workdir, found, [self.measure(), only_a])
    self.run_all(measurer)
    self.assertLen(self.calls, 3)
    values, _ = measurer.results()
    self.assertEqual(list(values['mean']), [('a', 0), ('b', 0)])
    self.assertEqual(list(values['of_a']), [('a', 0)])

  def test_texts_and_weights(self):
    """Clips are measured again with another text or other weights."""
    self.sample()
    found = read_clips('a/model', self.workdir / 'x')

    def measure(texts, weights):
      self.calls.clear()

      def compute(frames_thw3, text):
        self.calls.append(text)
        return (float(frames_thw3.mean()),)

      one = OpenedMeasure(
        ('mean',), compute, None, dict(zip('ab', texts, strict=True)), weights
      )
      self.run_all(ClipMeasurer(self.workdir, found, [one]))
      return sorted(self.calls)

    self.assertEqual(measure('xy', ('w',)), ['x', 'y'])
    self.assertEqual(measure('xy', ('w',)), [])
    self.assertEqual(measure('xz', ('w',)), ['z'])
    self.assertEqual(measure('xz', ('v',)), ['x', 'z'])

  def test_hosts(self):
    """Each measures its share, and all of them see all values."""
    self.sample(num_clips=3)

    def work(host):
      del host
      measurer = self.measurer()
      self.assertTrue(self.run_all(measurer))
      return measurer.results()[0]['mean']

    first, second = threaded_hosts.run(2, work)
    self.assertEqual(first, second)
    self.assertLen(self.calls, 6)
    self.assertEqual(
      [path.name for path in self.workdir.glob('*.jsonl')],
      ['metrics_a_model~4d6a6839.jsonl'],
    )
    self.assertEmpty(list(self.workdir.glob('.*.jsonl')))

  def test_stopped(self):
    self.sample()
    progress = Progress(2, 'clip', logger=logging.getLogger('x'))
    with StopSignal(together=False) as stop:
      stop._handle(15, None)
      self.assertFalse(self.measurer().run(2, stop, progress))
    self.assertEmpty(self.calls)

  def test_one_frame(self):
    sets.write_model(
      self.workdir / 'x', frames=lambda *_: sets.noise(num_frames=1)
    )
    with self.assertRaisesRegex(UserError, 'a-0.mp4: has one frame'):
      self.run_all(self.measurer())


class DiversityTest(parameterized.TestCase):
  def test_by_prompt(self):
    features = {
      ('a', 0): np.full(4, 51, np.uint8), ('a', 1): np.zeros(4, np.uint8),
      ('b', 0): np.ones(4, np.uint8), ('b', 1): np.ones(4, np.uint8),
      ('c', 0): np.ones(4, np.uint8),
    }  # fmt: skip
    self.assertEqual(
      measuring.diversity_by_prompt(features), {('a', 0): 0.2, ('b', 0): 0.0}
    )
