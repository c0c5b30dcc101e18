"""Votes of critics, labels of people, and labels that agree."""

import pathlib

import pytest

from lift_jax.data.hra import DIMENSIONS, HRARecord
from lift_jax.data.rubric import LIFT
from lift_jax.scoring import corrections
from lift_jax.scoring.config import RewardConfig

pytestmark = pytest.mark.fast

_REWARD = RewardConfig(0.9, 0.2, 0.05, 'labels', 2)


def scored(name: str, *labels: str, confidence: float = 0.9, **others) -> dict:
  """A record; its labels are semantic, motion and fidelity."""
  by_dimension = dict(zip(DIMENSIONS, labels, strict=True))
  rest = (1 - confidence) / 2
  return {
    'video': f'videos/{name}.mp4',
    'caption': f'A {name}.',
    'score': 0.5,
    'labels': by_dimension,
    'probabilities': {
      dimension: dict.fromkeys(('Good', 'Normal', 'Bad'), rest)
      | {label: confidence}
      for dimension, label in by_dimension.items()
    },
  } | others


def failed(name: str) -> dict:
  return {'video': f'videos/{name}.mp4', 'caption': f'A {name}.', 'error': '?'}


def test_choose():
  """No answer counts first, then disagreement, then uncertainty."""
  good = ('Good', 'Good', 'Good')
  votes = [
    [scored('sure', *good, confidence=0.9), scored('sure', *good)],
    [scored('unsure', *good, confidence=0.4)] * 2,
    [scored('split', *good), scored('split', 'Bad', 'Good', 'Good')],
    [failed('no'), failed('no')],
  ]
  assert corrections.choose(votes, 0.0, LIFT) == []
  assert corrections.choose(votes, 0.25, LIFT) == [3]
  assert corrections.choose(votes, 0.5, LIFT) == [2, 3]
  assert corrections.choose(votes, 0.75, LIFT) == [1, 2, 3]
  assert corrections.choose(votes, 1.0, LIFT) == [0, 1, 2, 3]


def test_choose_without_probabilities():
  """One that failed counts neither for nor against the others."""
  votes = [
    [scored('a', *labels), scored('a', *others), failed('a')]
    for labels, others in (
      (('Good',) * 3, ('Good', 'Good', 'Normal')),
      (('Good',) * 3, ('Good', 'Good', 'Bad')),
    )
  ]
  for ballot in votes:
    for record in ballot[:2]:
      del record['probabilities']
  assert corrections.choose(votes, 0.5, LIFT) == [1]


def _of_person(name: str, dimension: str, label: str) -> HRARecord:
  video = f'videos/{name}.mp4'
  return HRARecord(
    video, pathlib.Path(video), f'A {name}.', '', dimension, label, '', 'f', 'r'
  )


def test_correct():
  """People take precedence over the vote, dimension by dimension."""
  good = ('Good',) * 3
  votes = [
    [scored('a', *good), *[scored('a', 'Bad', 'Good', 'Bad')] * 2],
    [scored('b', *good), *[scored('b', 'Bad', 'Bad', 'Bad')] * 2],
    [failed('c'), *[scored('c', 'Bad', 'Bad', 'Bad')] * 2],
    [failed('d'), *[failed('d')] * 2],
  ]  # fmt: skip
  people = corrections.labels_of_people(
    [_of_person('a', 'semantic', 'Normal'), _of_person('d', 'motion', 'Good')]
  )
  a, b, c = corrections.correct(votes, [0, 2, 3], people, _REWARD)
  assert list(a['labels'].values()) == ['Normal', 'Good', 'Bad']
  assert (a['corrected_by'], a['score']) == ('people', 0.38)
  assert (b['labels'], b['score']) == (votes[1][0]['labels'], 0.5)
  assert b['corrected_by'] == ''
  assert (c['corrected_by'], c['score']) == ('vote', 0.05)
  assert 'error' not in c


def test_temperatures():
  """A sure critic agrees with itself; an unsure one only at times."""
  sure = scored('a', 'Good', 'Normal', 'Bad', confidence=1 - 1e-9)
  agreed = corrections.agreed_between_temperatures(sure, (0.7, 1.0), 0)
  assert agreed == sure['labels']
  numbers = [
    len(
      corrections.agreed_between_temperatures(
        scored(f'{n}', 'Good', 'Good', 'Good', confidence=1 / 3), (0.7, 1.0), 0
      )
    )
    for n in range(200)
  ]
  # Two independent draws of three equal labels.
  assert sum(numbers) / 600 == pytest.approx(1 / 3, abs=0.06)
  assert corrections.agreed_between_temperatures(failed('a'), (1, 2), 0) == {}


def test_critics():
  first = scored('a', 'Good', 'Normal', 'Bad')
  other = scored('a', 'Good', 'Bad', 'Bad')
  assert corrections.agreed_between_critics([first, other, first]) == {
    'semantic': 'Good',
    'fidelity': 'Bad',
  }
  assert corrections.agreed_between_critics([first, failed('a')]) == {}
