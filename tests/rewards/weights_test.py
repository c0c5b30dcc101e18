"""Rewards of videos, against published numbers and some computed by hand."""

import itertools
import json
import math

from absl.testing import parameterized
import pytest

from lift_jax import errors
from lift_jax.data import hra
from lift_jax.data.rubric import Rubric, Scale
from lift_jax.rewards import answers, weights
from tests.published import OURS, THEIRS, require

pytestmark = pytest.mark.fast


def _labels(*labels):
  return dict(zip(hra.DIMENSIONS, labels, strict=True))


class RewardTest(parameterized.TestCase):
  @parameterized.parameters(
    (('Good', 'Good', 'Bad'), 1.85 / 3, 0.62),
    (('Bad', 'Bad', 'Normal'), 0.1, 0.1),
    (('Normal', 'Good', 'Bad'), 1.15 / 3, 0.38),
    (('Good', 'Good', 'Good'), 0.9, 0.9),
  )
  def test_mean(self, labels, exact, rounded):
    scale = Scale()
    reward = weights.video_reward(_labels(*labels), scale)
    self.assertAlmostEqual(reward, exact, delta=1e-15)
    reward = weights.video_reward(_labels(*labels), scale, 2)
    self.assertEqual(reward, rounded)

  def test_ten_scores(self):
    rewards = {
      weights.video_reward(_labels(*labels), Scale(), 2)
      for labels in itertools.product(hra.LABELS, repeat=3)
    }
    self.assertEqual(
      sorted(rewards, reverse=True),
      [0.9, 0.67, 0.62, 0.43, 0.38, 0.33, 0.2, 0.15, 0.1, 0.05],
    )

  @parameterized.parameters((OURS, [0.38, 0.67]), (THEIRS, [0.62, 0.1]))
  def test_published_answers(self, root, expected):
    require(root)
    path = root / 'lift_sample' / 'reference' / 'critic_output_13b.json'
    rewards = []
    for item in json.loads(path.read_text(encoding='utf-8')):
      labels = {
        dimension: answers.split_answer(item[key])[0]
        for dimension in hra.DIMENSIONS
        for key in item
        if key.startswith(dimension)
      }
      rewards.append(weights.video_reward(labels, Scale(), 2))
    self.assertEqual(rewards, expected)

  @parameterized.parameters(
    ({'semantic': 'Good', 'motion': 'Good'}, 'no label for fidelity'),
    (_labels('Good', 'Good', 'Bad') | {'sound': 'Bad'}, "for 'sound'"),
    (_labels('Good', 'Great', 'Bad'), "label 'Great'"),
    (_labels('Good', None, 'Bad'), 'label None'),
  )
  def test_bad_labels(self, labels, message):
    with self.assertRaisesRegex(errors.UserError, message):
      weights.video_reward(labels, Scale())


class RewardMapTest(parameterized.TestCase):
  def test_order(self):
    reward_map = weights.RewardMap(good=1.0, normal=0.5, bad=0)
    self.assertEqual(reward_map.scores(), (1.0, 0.5, 0))
    for label, score in zip(hra.LABELS, reward_map.scores(), strict=True):
      self.assertEqual(reward_map.scale().score(label), score)

  @parameterized.parameters(
    {'good': 1.1},
    {'bad': -0.01},
    {'normal': math.nan},
    {'good': math.inf},
    {'good': True},
    {'normal': '0.2'},
    {'normal': None},
    {'normal': 0.95},
    {'bad': 0.3},
  )
  def test_refused(self, **scores):
    with self.assertRaisesRegex(errors.UserError, 'reward map') as caught:
      weights.RewardMap(**scores)
    self.assertNotIn('\n', str(caught.exception))

  def test_equal_scores_are_no_preference(self):
    self.assertEqual(weights.RewardMap(1, 1, 1).scores(), (1, 1, 1))


class ScaleTest(parameterized.TestCase):
  """Rewards of the config and of a rubric."""

  QUESTIONS = {'taste': ' In good taste?'}
  OTHERS = {'Good': 1.0, 'Normal': 0.5, 'Bad': 0.0}

  def test_of_one(self):
    plain = Rubric(self.QUESTIONS)
    other = Rubric(self.QUESTIONS, rewards=self.OTHERS)
    changed = weights.RewardMap(good=0.8)
    self.assertEqual(weights.RewardMap().scale(), Scale())
    self.assertEqual(changed.scale().rewards, (0.8, 0.2, 0.05))
    self.assertEqual(changed.scale(plain).rewards, (0.8, 0.2, 0.05))
    self.assertEqual(changed.scale(plain).dimensions, ('taste',))
    for reward_map in (weights.RewardMap(), weights.RewardMap(1, 0.5, 0)):
      self.assertEqual(reward_map.scale(other).rewards, (1.0, 0.5, 0.0))

  def test_of_both(self):
    other = Rubric(self.QUESTIONS, rewards=self.OTHERS)
    with self.assertRaisesRegex(errors.UserError, 'leave those of the config'):
      weights.RewardMap(good=0.8).scale(other)

  def test_other_labels(self):
    rubric = Rubric(self.QUESTIONS, ('Yes', 'No'), {'Yes': 0.7, 'No': 0.1})
    scale = weights.RewardMap(good=0.8).scale(rubric)
    self.assertEqual(weights.video_reward({'taste': 'No'}, scale), 0.1)
    with self.assertRaisesRegex(errors.UserError, "label 'Good'; write one of"):
      weights.video_reward({'taste': 'Good'}, scale)
