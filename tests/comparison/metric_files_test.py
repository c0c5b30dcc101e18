"""Files of metrics that were computed elsewhere."""

import json

from absl.testing import parameterized
import pytest

from lift_jax.comparison.metric_files import read_metric_files
from lift_jax.comparison.metrics import HIGHER, LOWER, Metric
from lift_jax.errors import UserError
from tests.comparison import sets

pytestmark = pytest.mark.fast

GOOD = {'name': 'good', 'title': 'Good clips', 'group': 'Mine',
        'better': 'higher', 'is_share': True}  # fmt: skip
LENGTH = {'name': 'length', 'title': 'length', 'group': 'Mine',
          'better': 'lower', 'is_share': False}  # fmt: skip
CONTENT = {
  'metrics': [GOOD, LENGTH],
  'decisive': 'good',
  'clips': {
    'videos/a-0.mp4': {'good': 1, 'length': 2.5},
    'videos/b-0.mp4': {'good': 0.5},
  },
}


class MetricFilesTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.folder = tmp_path
    self.sets = [sets.clip_set(name, 'ab') for name in 'xy']

  def read(self, *contents):
    paths = []
    for number, content in enumerate(contents):
      paths.append(self.folder / f'{number}.json')
      paths[-1].write_text(json.dumps(content))
    return read_metric_files(paths, self.sets[: len(paths)])

  def test_values(self):
    first, second = self.read(CONTENT, CONTENT | {'clips': {}})
    self.assertEqual(
      first.metrics,
      {
        'good': Metric('good', 'Good clips', 'Mine', HIGHER),
        'length': Metric('length', 'length', 'Mine', LOWER, is_share=False),
      },
    )
    self.assertEqual(
      first.values,
      {'good': {('a', 0): 1, ('b', 0): 0.5}, 'length': {('a', 0): 2.5}},
    )
    self.assertEqual(second.values, {'good': {}, 'length': {}})
    self.assertEqual(first.decisive, 'good')

  def test_nothing_decides(self):
    (file,) = self.read({k: CONTENT[k] for k in ('metrics', 'clips')})
    self.assertEqual(file.decisive, '')

  @parameterized.parameters(
    ({'more': 1}, 'write "metrics", "clips"'),
    ({'metrics': GOOD}, '"metrics" is not a list'),
    ({'clips': []}, 'or "clips" not an object'),
    ({'metrics': [GOOD, GOOD]}, "two metrics 'good'"),
    ({'metrics': [GOOD | {'better': 'up'}]}, "metric 1: better is 'up'"),
    ({'metrics': [GOOD | {'is_share': 1}]}, 'is_share is 1; give a bool'),
    ({'metrics': [GOOD | {'title': ''}]}, "title is ''; give a str"),
    ({'metrics': [{'name': 'good'}]}, 'metric 1: not an object of name'),
    ({'decisive': 'best'}, "is 'best', which is none of the metrics"),
  )
  def test_bad_file(self, change, message):
    with self.assertRaisesRegex(UserError, f'0.json.*{message}'):
      self.read(CONTENT | change)

  @parameterized.parameters(
    ('videos/c-0.mp4', {}, 'no clip of /nowhere/x'),
    ('videos/a-0.mp4', 1, 'not an object of metrics'),
    ('videos/a-0.mp4', {'best': 1}, "'best' is not listed"),
    ('videos/a-0.mp4', {'good': 1.5}, 'good is 1.5, which is no share'),
    ('videos/a-0.mp4', {'length': float('nan')}, 'length is nan; give a fin'),
    ('videos/a-0.mp4', {'length': None}, 'length is None; give a finite'),
  )
  def test_bad_value(self, video, numbers, message):
    with self.assertRaisesRegex(UserError, f'{video}.*{message}'):
      self.read(CONTENT | {'clips': {video: numbers}})

  def test_other_metrics(self):
    with self.assertRaisesRegex(UserError, '1.json: other metrics than in'):
      self.read(CONTENT, CONTENT | {'metrics': [GOOD], 'clips': {}})
