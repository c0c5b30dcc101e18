"""The published form of a rating, and the score that `lift align` reads."""

import json

from absl.testing import parameterized
import pytest

from lift_jax.data.hra import DIMENSIONS
from lift_jax.data.records import read_alignment
from lift_jax.errors import UserError
from lift_jax.rewards.answers import split_answer
from lift_jax.scoring.config import RewardConfig
from lift_jax.scoring.output import PUBLISHED_KEYS, scored_record
from tests.published import OURS, THEIRS, require

pytestmark = pytest.mark.fast

PROBABILITIES = {
  'semantic': {'Good': 0.7, 'Normal': 0.2, 'Bad': 0.1},
  'motion': {'Good': 0.25, 'Normal': 0.5, 'Bad': 0.25},
  'fidelity': {'Good': 0.0, 'Normal': 0.125, 'Bad': 0.875},
}
ANSWERS = {
  'semantic': 'Good. It is a cat.',
  'motion': 'Normal, it jumps once.',
  'fidelity': 'Bad. Five legs.',
}
# 0.9, 0.2 and 0.05 for the labels; the expectation of those worked by hand.
SOFT = (
  (0.63 + 0.04 + 0.005)
  + (0.225 + 0.1 + 0.0125)
  + (0.0 + 0.025 + 0.04375)
) / 3  # fmt: skip


def rewards(**changes) -> RewardConfig:
  settings = {'good': 0.9, 'normal': 0.2, 'bad': 0.05, 'kind': 'labels',
              'decimals': 2}  # fmt: skip
  return RewardConfig(**(settings | changes))


def line(answers=ANSWERS, probabilities=PROBABILITIES, **more):
  """A line of the journal, as `scoring.rater` writes it."""
  return {
    'video': 'videos/a.mp4',
    'caption': 'A cat.',
    'stamp': [1, 2],
    'critic': '0123456789abcdef',
    'made_by': {'template': 'vicuna_v1'},
    'flags': [],
    'probabilities': probabilities,
    'label_mass': dict.fromkeys(DIMENSIONS, 1.0),
    'answers': answers,
    'labels': {name: split_answer(text)[0] for name, text in answers.items()},
  } | more


class RecordTest(parameterized.TestCase):
  def test_everything(self):
    record = scored_record(line(flags=['static']), rewards())
    self.assertAlmostEqual(record.pop('soft_reward'), SOFT)
    # By hand: roots of .57525 - .675^2, .223125 - .3375^2, .0071875 - .06875^2.
    self.assertAlmostEqual(
      record.pop('uncertainty'), (0.34587 + 0.33049 + 0.04961) / 3, 5
    )
    self.assertEqual(
      record,
      {
        'video': 'videos/a.mp4',
        'caption': 'A cat.',
        'score': 0.38,
        'semantic consistency': 'Good. It is a cat.',
        'fidelity issues': 'Bad. Five legs.',
        'motion issues': 'Normal, it jumps once.',
        'labels': {'semantic': 'Good', 'motion': 'Normal', 'fidelity': 'Bad'},
        'probabilities': PROBABILITIES,
        'label_mass': dict.fromkeys(DIMENSIONS, 1.0),
        'critic': '0123456789abcdef',
        'template': 'vicuna_v1',
        'flags': ['static'],
      },
    )

  def test_published_order(self):
    """Of the keys that LiFT publishes."""
    keys = list(scored_record(line(), rewards()))
    published = ['video', 'caption', 'semantic consistency', 'fidelity issues',
                 'motion issues']  # fmt: skip
    self.assertEqual([key for key in keys if key in published], published)
    self.assertEqual(set(PUBLISHED_KEYS), set(DIMENSIONS))

  @parameterized.parameters(
    ('labels', 2, 0.38),
    ('labels', 1, 0.4),
    ('labels', None, 1.15 / 3),
    ('soft', 2, round(SOFT, 2)),
    ('soft', 4, round(SOFT, 4)),
    ('soft', None, SOFT),
  )
  def test_kinds(self, kind, decimals, expected):
    config = rewards(kind=kind, decimals=decimals)
    record = scored_record(line(), config)
    self.assertAlmostEqual(record['score'], expected, places=12)
    self.assertAlmostEqual(record['soft_reward'], SOFT, places=12)

  def test_other_reward_map(self):
    config = rewards(good=1.0, normal=0.5, bad=0.0)
    record = scored_record(line(), config)
    self.assertEqual(record['score'], 0.5)
    self.assertAlmostEqual(
      record['soft_reward'], (0.7 + 0.1 + 0.25 + 0.25 + 0.0625) / 3
    )

  def test_error_without_a_rating(self):
    bad = {'video': 'a.mp4', 'caption': 'A cat.', 'stamp': [1, 2],
           'critic': '0f', 'made_by': {}, 'error': 'cut short'}  # fmt: skip
    self.assertEqual(
      scored_record(bad, rewards()),
      {'video': 'a.mp4', 'caption': 'A cat.', 'critic': '0f', 'flags': [],
       'error': 'cut short'},
    )  # fmt: skip

  @parameterized.parameters('labels', 'soft')
  def test_error_without_a_label(self, kind):
    """What the critic might have said counts for nothing."""
    bad = line(answers={}, error='the answer', flags=['low label mass'])
    del bad['labels']
    record = scored_record(bad, rewards(kind=kind))
    self.assertContainsSubset(
      {'error', 'probabilities', 'soft_reward', 'label_mass'}, record.keys()
    )
    self.assertNoCommonElements(
      {'score', 'labels', *PUBLISHED_KEYS.values()}, record.keys()
    )

  @parameterized.parameters(
    {'kind': 'hard'}, {'decimals': -1}, {'good': 0.1}, {'bad': -0.1}
  )
  def test_bad_rewards(self, **changes):
    with self.assertRaises(UserError):
      scored_record(line(), rewards(**changes))


class FileTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.root = tmp_path

  def test_lift_align_reads_it(self):
    """Unchanged; records with an error are rejected by name, or skipped."""
    lines = [line(), line(video='videos/b.mp4')]
    records = [scored_record(some, rewards()) for some in lines]
    bad = {'video': 'videos/c.mp4', 'caption': 'x', 'critic': '0f'}
    records.append(scored_record(bad | {'error': 'cut short'}, rewards()))
    (self.root / 'scores.json').write_text(json.dumps(records))
    with self.assertRaisesRegex(UserError, 'scores.json record 2: no "score"'):
      read_alignment(self.root, ['scores.json'], require_files=False)
    found = read_alignment(
      self.root, ['scores.json'], on_bad_record='skip', require_files=False
    )
    self.assertEqual(
      [(record.video, record.reward) for record in found.records],
      [('videos/a.mp4', 0.38), ('videos/b.mp4', 0.38)],
    )
    self.assertLen(found.skipped, 1)


class PublishedTest(parameterized.TestCase):
  @parameterized.parameters((OURS, [0.38, 0.67]), (THEIRS, [0.62, 0.1]))
  def test_rewards(self, root, expected):
    """The answers of LiFT-Critic 13b, and the output of its script."""
    require(root)
    path = root / 'lift_sample' / 'reference' / 'critic_output_13b.json'
    scores = []
    for published in json.loads(path.read_text()):
      answers = {name: published[key] for name, key in PUBLISHED_KEYS.items()}
      record = scored_record(line(answers), rewards())
      for key in PUBLISHED_KEYS.values():
        self.assertEqual(record[key], published[key])
      scores.append(record['score'])
    self.assertEqual(scores, expected)
