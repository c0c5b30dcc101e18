"""Which clips of a prompt are compared."""

import dataclasses
import random

import pytest

from lift_jax.errors import UserError
from lift_jax.rewards.pairs import PairConfig, make_pairs

pytestmark = pytest.mark.fast

_CONFIG = PairConfig(
  every_dimension=False,
  min_gap=0.01,
  drop_share=0.0,
  min_motion=0.0,
  per_prompt=1,
)


@dataclasses.dataclass(frozen=True)
class _Clip:
  video: str
  caption: str
  reward: float
  dimensions: dict[str, float] = dataclasses.field(default_factory=dict)
  motion: float = 0.1


def _clip(video, reward, caption='a dog', motion=0.1, **dimensions):
  return _Clip(video, caption, reward, dimensions, motion)


def _names(clips, **changes):
  found = make_pairs(clips, dataclasses.replace(_CONFIG, **changes))
  return [(winner.video, loser.video) for winner, loser in found.pairs]


def test_best_against_worst():
  clips = [
    _clip(name, reward)
    for name, reward in zip('abcd', (0.5, 0.9, 0.1, 0.6), strict=True)
  ]
  assert _names(clips) == [('b', 'c')]
  assert _names(clips, per_prompt=2) == [('b', 'c'), ('d', 'a')]
  assert _names(clips, per_prompt=2, min_gap=0.2) == [('b', 'c')]
  random.Random(0).shuffle(clips)
  assert _names(clips, per_prompt=3) == [('b', 'c'), ('d', 'a')]


def test_winner_in_every_dimension():
  clips = [
    _clip('a', 0.9, semantic=1.0, motion_smoothness=0.0),
    _clip('b', 0.5, semantic=0.5, motion_smoothness=0.5),
    _clip('c', 0.1, semantic=0.5, motion_smoothness=0.5),
  ]
  assert _names(clips) == [('a', 'c')]
  assert _names(clips, every_dimension=True) == [('b', 'c')]


def test_winners_move():
  clips = [_clip('a', 0.9, motion=0.0), _clip('b', 0.5), _clip('c', 0.1)]
  assert _names(clips, min_motion=0.01) == [('b', 'c')]


def test_smallest_gaps_are_dropped():
  clips = []
  for prompt, gap in (('p', 0.2), ('q', 0.4), ('r', 0.1), ('s', 0.3)):
    clips += [_clip(f'{prompt}1', gap, prompt), _clip(f'{prompt}2', 0, prompt)]
  found = make_pairs(clips, dataclasses.replace(_CONFIG, drop_share=0.5))
  assert [winner.caption for winner, _ in found.pairs] == ['q', 's']
  assert found.num_dropped == 2
  assert found.num_prompts == 4


def test_prompts_without_a_pair():
  clips = [
    _clip('a', 0.5, 'alone'),
    _clip('b', 0.5, 'equal'), _clip('c', 0.5, 'equal'),
    _clip('d', 0.9, 'mixed', x=0.0), _clip('e', 0.1, 'mixed', x=1.0),
    _clip('f', 0.9, 'still', motion=0, x=1.0), _clip('g', 0.1, 'still', x=1.0),
    _clip('h', 0.9, 'good', x=1.0), _clip('i', 0.1, 'good', x=1.0),
  ]  # fmt: skip
  config = dataclasses.replace(_CONFIG, every_dimension=True, min_motion=0.01)
  assert make_pairs(clips, config).without_pair == {
    'only one clip': 1,
    'no gap': 1,
    'no winner in every dimension': 1,
    'no winner that moves': 1,
  }
  with pytest.raises(UserError, match=r'no pair among 8 clips of 5 prompts'):
    make_pairs(clips[:-1], config)


@pytest.mark.parametrize(
  'changes',
  [
    {'min_gap': 0.0},
    {'drop_share': 1.0},
    {'per_prompt': 0},
    {'min_motion': -1.0},
    {'held_out': 1.0},
    {'held_out_every_steps': 0},
  ],
)
def test_settings(changes):
  (name,) = changes
  with pytest.raises(UserError, match=f'pairs.{name}'):
    dataclasses.replace(_CONFIG, **changes)
