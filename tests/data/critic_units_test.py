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
from lift_jax.data.rubric import LABELS, Scale
from lift_jax.data.video import ClipInfo
from lift_jax.errors import UserError
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


def pair(first, second, overall='same', **dimensions):
  return PairRecord(
    'A  CAT.', (first, second), tuple(map(pathlib.Path('/data').joinpath,
    (first, second))), overall, dimensions, '', {}, '',
  )  # fmt: skip


def units_of(examples, pairs=(), use_ratings=True):
  return critic_units.pair_units(
    examples, pairs, LABELS, use_ratings=use_ratings, seed=0
  )


def better_of(members, preference):
  """The indices in the order first better, or None for a tie."""
  if preference[1]:
    return None
  return members if preference[0] else members[::-1]


def test_ratings_of_two_clips():
  examples = [
    example('a', 'Bad'),
    example('b', 'Good'),
    example('c', 'Good'),
    example('d', 'Bad', caption='A dog.'),
    example('a', 'Bad', dimension='fidelity'),
  ]
  units = units_of(examples)
  pairs = {
    frozenset(pair[0]): better_of(*pair)
    for unit in units
    for pair in unit.pairs
  }
  assert pairs == {
    frozenset({0, 1}): (1, 0),
    frozenset({0, 2}): (2, 0),
    frozenset({1, 2}): None,
  }
  # Those without a partner come two by two.
  assert [u.members for u in units if not u.pairs] == [(3, 4)]


def test_people_take_precedence_over_ratings():
  examples = [example('a', 'Bad'), example('b', 'Good'), example('c', None)]
  pairs = [
    pair('a', 'b', motion='first'),
    pair('c', 'a', motion='second', fidelity='first'),
  ]
  units = units_of(examples, pairs)
  assert [(pair[0], better_of(*pair)) for u in units for pair in u.pairs] == [
    ((0, 1), (0, 1)),
    ((2, 0), (0, 2)),
  ]
  # What is not rated is in no couple.
  assert units_of(examples, (), use_ratings=False) == [
    critic_units.Unit((0, 1), (NO_PAIR,))
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
  assert rest == [critic_units.Unit((2, 2), (NO_PAIR,))]


FIRST, SAME, SECOND = (
  (1.0, 0.0, 0.0),
  (0.0, 1.0, 0.0),
  (0.0, 0.0, 1.0),
)
NO_PAIR = (0.0, 0.0, 0.0)


def overall_units_of(examples, pairs, by_dimension=True):
  return critic_units.overall_units(
    examples,
    pairs,
    LABELS,
    ('motion', 'fidelity'),
    by_dimension=by_dimension,
    use_ratings=True,
    seed=0,
  )


def test_overall():
  """A couple for each dimension, with what is known of it in its order."""
  examples = [
    example('a', 'Bad', dimension='fidelity'),
    example('a', 'Bad'),
    example('b', 'Good'),
    example('b', None, dimension='fidelity'),
    example('c', 'Good'),
    example('d', 'Good', caption='A dog.'),
    example('d', 'Bad', caption='A dog.', dimension='fidelity'),
  ]
  pairs = [
    pair('a', 'b', 'first', fidelity='same'),
    pair('a', 'c', 'second'),  # c has no question about fidelity
  ]
  whole, *others = overall_units_of(examples, pairs)
  # That b moves better is from ratings.
  assert whole == critic_units.Unit((1, 2, 0, 3), (SECOND, SAME), FIRST)
  # Others are pairs of ratings and couples, as many as there are dimensions.
  assert [len(unit.members) for unit in others] == [4, 4]
  assert not any(any(unit.overall) for unit in others)
  compared = {frozenset(m) for unit in others for m, _ in unit.pairs}
  assert compared == {frozenset({1, 4}), frozenset({2, 4})}
  members = {index for unit in others for index in unit.members}
  assert members == {1, 2, 4, 5, 6}

  whole, *others = overall_units_of(examples, pairs, by_dimension=False)
  assert whole == critic_units.Unit((1, 2, 0, 3), (NO_PAIR,) * 2, FIRST)
  assert not any(unit.pairs for unit in others)
  # Rated, and in no other unit.
  members = {index for unit in others for index in unit.members}
  assert members == {4, 5, 6}


def test_overall_needs_one_shape():
  wide = {'selection': FrameSelection((0,), 18, is_short=True)}
  examples = [
    example(video, dimension=name, **(wide if video == 'b' else {}))
    for video in 'ab'
    for name in ('motion', 'fidelity')
  ]
  units = overall_units_of(examples, [pair('a', 'b', 'first')])
  assert not any(any(unit.overall) for unit in units)


def test_weights_of_dimensions():
  """Rewards vary by .05 in one dimension and by .2 in another: 4 to 1."""
  scale = Scale(('motion', 'fidelity'), LABELS, (0.5, 0.4, 0.1))
  examples = [
    example('a', 'Good'),
    example('b', 'Normal'),
    example('c', None),
    example('a', 'Good', dimension='fidelity'),
    example('b', 'Bad', dimension='fidelity'),
  ]
  weights = critic_units.dimension_weights(examples, scale.dimensions, scale)
  assert weights == pytest.approx((1.6, 0.4))
  # Votes count, not the majority.
  record = dataclasses.replace(
    examples[1].record, votes={'Normal': 1, 'Bad': 2}
  )
  examples[1] = dataclasses.replace(examples[1], record=record)
  weights = critic_units.dimension_weights(examples, scale.dimensions, scale)
  assert weights == pytest.approx((8 / 7, 6 / 7))
  with pytest.raises(UserError, match='all 1 ratings .* dimension motion'):
    critic_units.dimension_weights(examples[:1], scale.dimensions, scale)


def test_padding():
  units = critic_units.single_units([example('a'), example('b', length=12)])
  assert units == [critic_units.Unit((0,)), critic_units.Unit((1,))]
  share = critic_units.padding_share(
    units, [example('a'), example('b', length=12)]
  )
  assert share == pytest.approx(1 - 10 / 20)
