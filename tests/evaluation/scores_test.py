"""Scored records: what is read, and what faults say."""

import json
import pathlib

from absl.testing import parameterized
import pytest

from lift_jax.data.rubric import Scale
from lift_jax.errors import UserError
from lift_jax.evaluation.scores import CLASSES, read_scores
from tests.evaluation.records import failed, scored

pytestmark = pytest.mark.fast

REWARDS = Scale()


class ReadScoresTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _setting(self, tmp_path):
    self.root = tmp_path

  def write(self, items, name='scores.json') -> pathlib.Path:
    path = self.root / name
    text = json.dumps(items)
    if name.endswith('l'):
      text = '\n\n'.join(json.dumps(item) for item in items)
    path.write_text(text, encoding='utf-8')
    return path

  def read(self, *files, on_bad_record='error'):
    return read_scores(self.root, files, on_bad_record)

  @parameterized.parameters(
    ('scores.json', 'record 1'), ('scores.jsonl', 'line 3')
  )
  def test_values(self, name, place):
    item = scored('a', ' A cat. ', sure=0.7)
    path = self.write([item, failed('b', 'A dog.', 'cut\n short')], name)
    one, two = self.read(path).records
    self.assertEqual((one.video, one.caption), ('videos/a.mp4', 'A cat.'))
    self.assertEqual(one.critic, '0123456789abcdef')
    answer = one.answers['motion']
    self.assertEqual(CLASSES[answer.label], 'Normal')
    self.assertEqual(answer.text, 'Normal. The motion is normal.')
    # Bad, Normal, Good.
    for got, want in zip(answer.probabilities, (0.15, 0.7, 0.15), strict=True):
      self.assertAlmostEqual(got, want)
    self.assertAlmostEqual(
      answer.soft_reward(REWARDS), 0.15 * 0.05 + 0.7 * 0.2 + 0.15 * 0.9
    )
    self.assertEqual((two.error, two.answers), ('cut short', {}))
    self.assertEqual(two.where, f'{path} {place} (videos/b.mp4)')

  def test_published(self):
    """The texts alone, as the critic of LiFT leaves them."""
    path = self.write([scored('a', 'x', labels=('Good', 'Bad', 'Normal'),
                              probabilities=None, critic=None)])  # fmt: skip
    items = json.loads(path.read_text())
    del items[0]['labels'], items[0]['flags']
    (record,) = self.read(self.write(items)).records
    labels = {name: CLASSES[a.label] for name, a in record.answers.items()}
    self.assertEqual(
      labels, {'semantic': 'Good', 'motion': 'Bad', 'fidelity': 'Normal'}
    )
    self.assertIsNone(record.answers['motion'].probabilities)
    self.assertEqual(record.answers['motion'].soft_reward(REWARDS), 0.05)

  def test_no_text(self):
    """A critic without rationales omits the text, or leaves it empty."""
    items = [scored('a', 'x', **{'motion issues': ''})]
    items.append(scored('b', 'x', **{'motion issues': None}))
    for record in self.read(self.write(items)).records:
      self.assertEqual(record.answers['motion'].text, '')

  @parameterized.parameters(
    ({'labels': {'semantic': 'good'}}, "semantic is 'good'", 'Good, Normal'),
    ({'labels': {'sematic': 'Good'}}, '"labels" has unknown keys sematic'),
    ({'labels': ['Good']}, 'a list, not an object'),
    ({'labels': {}}, 'no answer and no error'),
    ({'labels': None, 'probabilities': None, 'motion issues': 'Fine.'},
     '"motion issues"', 'does not begin with Good'),
    ({'probabilities': {'motion': {'Good': 1.0}}}, 'motion has the keys Good;'),
    ({'probabilities': {'motion': {'Good': 0.5, 'Normal': 0.2, 'Bad': 0.2}}},
     'sum to 0.9'),
    ({'probabilities': {'motion': {'Good': 2, 'Normal': 0, 'Bad': -1}}},
     'motion: ', 'between 0 and 1'),
    ({'probabilities': {'motion': {'Good': '1', 'Normal': 0, 'Bad': 0}}},
     'a string; write numbers without quotes'),
    ({'probabilities': {'motion': {'Good': float('nan'), 'Normal': 0,
                                   'Bad': 1}}}, 'motion: nan'),
    ({'probabilities': {'motion': {'Good': True, 'Normal': 0, 'Bad': 0}}},
     'motion: true'),
    ({'caption': '\ud800'}, 'caption', 'surrogate'),
    ({'motion issues': 3}, '"motion issues" is a number'),
    ({'motion issues': 'Good. \ud800'}, '"motion issues"', 'surrogate'),
    ({'video': '../a.mp4'}, 'contains ".."'),
    ({'video': None}, 'no "video"'),
    ({'flags': 'odd'}, '"flags" is not a list of strings'),
    ({'error': ''}, '"error" is empty'),
  )  # fmt: skip
  def test_bad_record(self, changes, *words):
    item = scored('b', 'x') | changes
    item = {key: value for key, value in item.items() if value is not None}
    path = self.write([scored('a', 'x'), item])
    with self.assertRaises(UserError) as raised:
      self.read(path)
    for word in (f'{path} record 1', *words):
      self.assertIn(word, str(raised.exception))
    result = self.read(path, on_bad_record='skip')
    self.assertLen(result.records, 1)
    self.assertEqual(result.skipped[0][0], f'{path} record 1')

  def test_duplicate(self):
    path = self.write([scored('a', 'x'), scored('a', ' x')])
    with self.assertRaisesRegex(UserError, 'record 1: same video and caption'):
      self.read(path)

  def test_two_critics(self):
    path = self.write([scored('a', 'x'), scored('b', 'x', critic='other')])
    with self.assertRaisesRegex(UserError, '2 critics .*scores.others=FILE'):
      self.read(path)

  def test_probabilities_of_some(self):
    path = self.write([scored('a', 'x'), scored('b', 'x', probabilities=None)])
    with self.assertRaisesRegex(
      UserError, r'record 1 \(videos/b.mp4\) has no probabilities, but .*a.mp4'
    ):
      self.read(path)

  def test_files(self):
    with self.assertRaisesRegex(UserError, 'scores.files is empty'):
      self.read()
    path = self.root / 'bad.jsonl'
    path.write_text('{"video": "a"}\n{oops\n')
    with self.assertRaisesRegex(UserError, 'bad.jsonl: line 2 .*invalid JSON'):
      self.read(path, on_bad_record='skip')
