"""Units of batches: pairs from people and from ratings, couples, padding."""

import dataclasses
import itertools
import pathlib

import numpy as np
import pytest

from lift_jax.data import critic_units
from lift_jax.data.critic_examples import Example
from lift_jax.data.critic_records import PairQuestion
from lift_jax.data.hra import HRARecord
from lift_jax.data.pair_records import PairRecord
from lift_jax.data.rubric import LABELS
from lift_jax.data.video import ClipInfo
from lift_jax.models.critic_protocols import FrameSelection
from tests.models.selections import first_frames

pytestmark = pytest.mark.fast


def example(video, label='Good', caption='A cat.', dimension='motion', **more):
  path = pathlib.Path('/data') / video
  if label is None:
    record = PairQuestion(video, path, caption, ' Why?', dimension, video)
  else:
    record = HRARecord(
      video, path, caption, ' Why?', dimension, label, '', 'hra.json', ''
    )
  return dataclasses.replace(
    Example(
      record=record,
      is_real=False,
      clip=ClipInfo(8, 8.0, 32, 32),
      selection=first_frames(8),
      tokens=np.arange(5, dtype=np.int32),
      is_target=np.array([False] * 3 + [True] * 2),
      length=8,
    ),
    **more,
  )


def pair(first, second, **dimensions):
  return PairRecord(
    'A  CAT.', (first, second), tuple(map(pathlib.Path('/data').joinpath,
    (first, second))), 'same', dimensions, '', {}, '',
  )  # fmt: skip


def units_of(examples, pairs=(), use_ratings=True):
  return critic_units.pair_units(examples, pairs, LABELS, use_ratings, seed=0)


def better_of(unit):
  """The indices in the order first better, or None for a tie."""
  if unit.preference[1]:
    return None
  return unit.members if unit.preference[0] else unit.members[::-1]


def test_ratings_of_two_clips():
  examples = [
    example('a', 'Bad'),
    example('b', 'Good'),
    example('c', 'Good'),
    example('d', 'Bad', caption='A dog.'),
    example('a', 'Bad', dimension='fidelity'),
  ]
  units = units_of(examples)
  pairs = {frozenset(u.members): better_of(u) for u in units if u.is_pair}
  assert pairs == {
    frozenset({0, 1}): (1, 0),
    frozenset({0, 2}): (2, 0),
    frozenset({1, 2}): None,
  }
  # Those without a partner come two by two.
  assert [u.members for u in units if not u.is_pair] == [(3, 4)]


def test_people_take_precedence_over_ratings():
  examples = [example('a', 'Bad'), example('b', 'Good'), example('c', None)]
  pairs = [
    pair('a', 'b', motion='first'),
    pair('c', 'a', motion='second', fidelity='first'),
  ]
  units = units_of(examples, pairs)
  assert [(u.members, better_of(u)) for u in units] == [
    ((0, 1), (0, 1)),
    ((2, 0), (0, 2)),
  ]
  # What is not rated is in no couple.
  assert units_of(examples, (), use_ratings=False) == [
    critic_units.Unit((0, 1))
  ]


def test_many_clips_of_a_prompt():
  """Every clip has at most eight partners, and all of them up to nine."""
  for count, expected in ((2, 1), (8, 28), (9, 36), (30, 120)):
    examples = [example(str(index)) for index in range(count)]
    members = [unit.members for unit in units_of(examples)]
    assert len({frozenset(one) for one in members}) == len(members) == expected
    uses = np.bincount(list(itertools.chain(*members)))
    assert uses.max() - uses.min() == 0


def test_shapes():
  """Of a pair both are padded alike; other frames cannot be paired."""
  long = example('b', length=12)
  wide = example('c', selection=FrameSelection((0,), 18, is_short=True))
  examples = [example('a'), long, wide]
  first, *rest = units_of(examples)
  assert set(first.members) == {0, 1}
  assert critic_units.shape_of(first, examples)[-1] == 12
  # An odd one is its own neighbour.
  assert rest == [critic_units.Unit((2, 2))]


def test_padding():
  units = critic_units.single_units([example('a'), example('b', length=12)])
  assert units == [critic_units.Unit((0,)), critic_units.Unit((1,))]
  share = critic_units.padding_share(
    units, [example('a'), example('b', length=12)]
  )
  assert share == pytest.approx(1 - 10 / 20)
