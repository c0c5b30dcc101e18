"""Which clips and pairs an objective trains on."""

import dataclasses
import types

import numpy as np
import pytest

from lift_jax.data.pair_records import PairRecord
from lift_jax.data.pipeline import EncodedPair, ScoredEntry
from lift_jax.errors import UserError
from lift_jax.rewards.pairs import PairConfig
from lift_jax.training import alignment_data
from lift_jax.training.objectives import ObjectiveConfig
from lift_jax.training.objectives.dpo import DPO
from lift_jax.training.objectives.likelihood import SFT, Rejection
from lift_jax.training.objectives.nft import NFT

pytestmark = pytest.mark.fast


def scored(caption, reward, is_real=False, bucket=(1, 2, 2), **dimensions):
  entry = types.SimpleNamespace(
    video=f'{caption}-{reward}', bucket=bucket, motion=0.5
  )
  return ScoredEntry(entry, caption, reward, is_real, dimensions)


PAIRS = PairConfig(
  every_dimension=True,
  min_gap=0.01,
  drop_share=0.0,
  min_motion=0.0,
  per_prompt=1,
)
CLIPS = [
  scored('a', 0.9),
  scored('a', 0.2),
  scored('b', 0.4),
  scored('b', 0.6, bucket=(2, 2, 2)),
  scored('r', 1.0, is_real=True),
]


class TestMakeData:
  def test_all_clips(self):
    config = ObjectiveConfig('sft', sft=SFT())
    data = alignment_data.make_data(CLIPS, config, None)
    assert [unit[0].reward for unit in data.units] == [0.9, 0.2, 0.4, 0.6, 1.0]
    assert data.description == []
    assert data.pairs == []

  def test_optimality(self):
    """Among the clips of a prompt; real clips are left out."""
    config = ObjectiveConfig('nft', nft=NFT(0.1, 5.0))
    data = alignment_data.make_data(CLIPS, config, None)
    assert data.description == ['4 of 5 clips are used']
    with pytest.raises(UserError, match='leaves none of 1 clips'):
      alignment_data.make_data(CLIPS[4:], config, None)
    a = 0.35 / (np.std([0.9, 0.2, 0.4, 0.6]) + 1e-4) / 10
    b = a * 0.1 / 0.35
    np.testing.assert_allclose(
      [unit[0].optimality for unit in data.units],
      [0.5 + a, 0.5 - a, 0.5 - b, 0.5 + b],
    )

  def test_rejection(self):
    config = ObjectiveConfig('rejection', rejection=Rejection(0.6))
    data = alignment_data.make_data(CLIPS, config, None)
    assert [unit[0].reward for unit in data.units] == [0.9, 0.6, 1.0]
    assert data.description == ['3 of 5 clips are used']
    none = dataclasses.replace(config, rejection=Rejection(0.95))
    with pytest.raises(UserError, match='leaves none of 4 clips'):
      alignment_data.make_data(CLIPS[:4], none, None)

  @pytest.mark.parametrize('real_weight', [0.0, 1.0])
  def test_pairs(self, real_weight):
    """Clips of different sizes are not compared."""
    dpo = DPO(500.0, 'half', 'sigmoid', 0.0, real_weight)
    config = ObjectiveConfig('dpo', dpo=dpo)
    data = alignment_data.make_data(CLIPS, config, PAIRS)
    expected = [(CLIPS[0], CLIPS[1])]
    if real_weight:
      expected.append((CLIPS[4], CLIPS[4]))
    assert data.units == expected
    assert data.pairs == [
      {'caption': 'a', 'winner': 'a-0.9', 'loser': 'a-0.2', 'gap': 0.7}
    ]
    assert data.description[0].startswith('1 pairs of clips from 3 prompts')


DPO_CONFIG = ObjectiveConfig('dpo', dpo=DPO(500.0, 'half', 'sigmoid', 0.0, 0.0))


def compared(caption, overall, videos=('a', 'b'), buckets=((1, 2, 2),) * 2):
  """A pair that people compared; a bucket of None is a skipped clip."""
  entries = tuple(
    bucket and types.SimpleNamespace(video=video, bucket=bucket, motion=0.5)
    for video, bucket in zip(videos, buckets, strict=True)
  )
  record = PairRecord(caption, videos, videos, overall, {}, '', {}, 'p.json 1')
  return EncodedPair(record, entries)


class TestPeople:
  def test_winners_and_losers(self):
    pairs = [
      compared('x', 'first'),
      compared('X', 'second', ('c', 'd')),
      compared('y', 'same'),
      compared('z', 'first', buckets=((1, 2, 2), None)),
      compared('z', 'first', ('e', 'f'), buckets=((1, 2, 2), (2, 2, 2))),
    ]
    data = alignment_data.make_data([], DPO_CONFIG, PAIRS, pairs)
    clips = [
      [(clip.video, clip.reward) for clip in unit] for unit in data.units
    ]
    assert clips == [[('a', 1), ('b', 0)], [('d', 1), ('c', 0)]]
    assert data.pairs[1] == {
      'caption': 'X', 'winner': 'd', 'loser': 'c', 'record': 'p.json 1',
    }  # fmt: skip
    assert data.description == [
      '2 of 5 pairs that people compared (not used: no preference: 1, a clip '
      'was skipped: 1, clips of different sizes: 1; 2 of 3 prompts are without '
      'a pair)'
    ]

  @pytest.mark.parametrize('overall', ['second', 'same'])
  def test_they_overrule_the_scores(self, overall):
    pairs = [compared('a', overall, ('a-0.9', 'a-0.2'))]
    clips = [*CLIPS, scored('c', 0.9), scored('c', 0.1)]
    units = alignment_data.make_data(clips, DPO_CONFIG, PAIRS, pairs).units
    names = [(winner.video, loser.video) for winner, loser in units]
    by_people = [('a-0.2', 'a-0.9')] if overall == 'second' else []
    assert names == [*by_people, ('c-0.9', 'c-0.1')]

  def test_no_preference_at_all(self):
    with pytest.raises(UserError, match='no pair of clips to train on: 0 of 1'):
      alignment_data.make_data([], DPO_CONFIG, PAIRS, [compared('x', 'same')])

  def test_an_objective_that_does_not_compare(self):
    config = ObjectiveConfig('sft', sft=SFT())
    data = alignment_data.make_data(
      CLIPS, config, None, [compared('x', 'first')]
    )
    assert len(data.units) == len(CLIPS)
    (line,) = data.description
    assert line.startswith('the 1 pairs of data.pairs are not used')


class TestHeldOut:
  clips = [
    scored(f'prompt {index}', reward)
    for index in range(40)
    for reward in (0.1, 0.9)
  ]
  rules = dataclasses.replace(PAIRS, held_out=0.25)

  def split(self, clips, rules=rules):
    data = alignment_data.make_data(clips, DPO_CONFIG, rules)
    return [
      {winner.caption for winner, _ in units}
      for units in (data.units, data.held_out)
    ], data

  def test_by_prompt(self):
    (trained, held_out), data = self.split(self.clips)
    assert len(trained) + len(held_out) == 40
    assert 4 <= len(held_out) <= 16 and not trained & held_out
    marked = {p['caption'] for p in data.pairs if p.get('held_out')}
    assert marked == held_out
    assert data.description[1] == (
      f'{len(held_out)} of these pairs are held out, {len(held_out)} prompts'
    )

  def test_does_not_depend_on_other_prompts(self):
    (_, held_out), _ = self.split(self.clips)
    (_, fewer), _ = self.split(self.clips[20:])
    assert fewer == held_out & {clip.caption for clip in self.clips[20:]}

  def test_all(self):
    (_, held_out), _ = self.split(self.clips)
    clips = [clip for clip in self.clips if clip.caption in held_out]
    with pytest.raises(UserError, match=r'or lower pairs\.held_out'):
      self.split(clips)
