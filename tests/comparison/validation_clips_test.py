"""Validation clips against those of the base, with all of the models faked."""

import json
import logging
import pathlib

from absl.testing import parameterized
import numpy as np
import pytest

from lift_jax.comparison.validation_clips import BaseComparison
from lift_jax.data.rubric import LIFT
from lift_jax.data.video_write import write_mp4
from lift_jax.errors import UserError
from lift_jax.evaluation.scores import read_scores
from lift_jax.runtime.files import write_json
from tests import threaded_hosts
from tests.comparison import sets

pytestmark = pytest.mark.fast

PROMPTS = ('A cat.', 'A dog.')


class FakeValidation:
  """Writes still clips with params = 0, and moving ones with 1."""

  names = ('00-A cat', '01-A dog')

  def __init__(self, root: pathlib.Path):
    self.root = root

  def folder(self, step):
    return self.root / str(step)

  def denoise(self, params):
    return [params]

  def write(self, folder, latents):
    folder.mkdir(exist_ok=True)
    for name in self.names:
      frames_thw3 = sets.noise()
      if not latents[0]:
        frames_thw3[:] = frames_thw3[:1]
      write_mp4(folder / f'{name}.mp4', frames_thw3)


class ValidationClipsTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.root = tmp_path
    self.validation = FakeValidation(tmp_path)

  def compare(self, rate=None):
    return BaseComparison(
      self.validation,
      PROMPTS,
      0,
      lambda latents: lambda params: np.array([params, 3.0 * params, 100.0]),
      rate,
      logging.getLogger('x'),
    )

  def at(self, compare, step, params):
    self.validation.write(self.validation.folder(step), [params])
    return compare(step, params)

  def test_motion(self):
    """Of clips that stand still at first, and then move."""
    compare = self.compare()
    first, then = self.at(compare, 0, 0), self.at(compare, 7, 1)
    for name, value in first.items():
      if name.endswith('_change'):
        self.assertEqual(value, 0, name)
    self.assertEqual(first['validation/static'], 1)
    self.assertEqual(then['validation/static'], 0)
    self.assertEqual(then['validation/static_change'], -1)
    self.assertGreater(then['validation/frame_difference_change'], 0.1)
    self.assertLess(then['validation/own_temporal_flickering_change'], -0.1)
    # Without what fills the batch.
    self.assertEqual(then['validation/distance_to_base'], 2)

  def rate(self, folder):
    """Bad for the base; then Good, but one clip cannot be rated."""
    label = 'Bad' if folder.name == 'base' else 'Good'
    records = [
      {
        'video': f'{name}.mp4',
        'caption': prompt,
        'labels': dict.fromkeys(LIFT.dimensions, label),
        'critic': 'c',
      }
      for name, prompt in zip(FakeValidation.names, PROMPTS, strict=True)
    ]
    if label == 'Good':
      del records[1]['labels']
      records[1]['error'] = 'no answer'
    listed = json.loads((folder / 'clips.json').read_text())
    self.assertEqual([one['caption'] for one in listed], list(PROMPTS))
    write_json(folder / 'scores.json', records)
    scores = read_scores(folder, (str(folder / 'scores.json'),))
    return scores.records, LIFT

  def test_critic(self):
    compare = self.compare(self.rate)
    found = self.at(compare, 7, 1)
    for name in (*LIFT.dimensions, 'reward'):
      self.assertAlmostEqual(found[f'validation/critic_{name}'], 0.9)
      self.assertAlmostEqual(found[f'validation/critic_{name}_change'], 0.85)

  def test_hosts(self):
    """All have the same numbers."""
    self.validation.write(self.validation.folder(7), [1])
    (self.root / 'base').mkdir()

    def work(host):
      del host
      return self.compare()(7, 1)

    first, second = threaded_hosts.run(2, work)
    self.assertEqual(first, second)
    self.assertEqual(first['validation/static_change'], -1)

  def test_unreadable(self):
    compare = self.compare()
    self.validation.write(self.validation.folder(9), [1])
    (self.root / '9' / '00-A cat.mp4').write_bytes(b'')
    with self.assertRaisesRegex(UserError, '00-A cat.mp4'):
      compare(9, 1)
