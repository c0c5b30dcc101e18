"""Votes of critics, labels of people, and labels that agree."""

import pathlib

import pytest

from lift_jax.data.hra import HRARecord
from lift_jax.data.rubric import LIFT, Scale
from lift_jax.errors import UserError
from lift_jax.scoring import corrections

pytestmark = pytest.mark.fast

_OWN = Scale(('style', 'physics'), ('Yes', 'No'), (1.0, 0.25))


def scored(
  name: str,
  *labels: str,
  confidence: float = 0.9,
  scale: Scale = LIFT,
  **others,
) -> dict:
  """A record; its labels are those of the dimensions in their order."""
  by_dimension = dict(zip(scale.dimensions, labels, strict=True))
  rest = (1 - confidence) / (len(scale.labels) - 1)
  return {
    'video': f'videos/{name}.mp4',
    'caption': f'A {name}.',
    'score': 0.5,
    'labels': by_dimension,
    'probabilities': {
      dimension: dict.fromkeys(scale.labels, rest) | {label: confidence}
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
    [_of_person('a', 'semantic', 'Normal'), _of_person('d', 'motion', 'Good')],
    LIFT,
  )
  a, b, c = corrections.correct(votes, [0, 2, 3], people, LIFT, 2)
  assert list(a['labels'].values()) == ['Normal', 'Good', 'Bad']
  assert (a['corrected_by'], a['score']) == ('people', 0.38)
  assert (b['labels'], b['score']) == (votes[1][0]['labels'], 0.5)
  assert b['corrected_by'] == ''
  assert (c['corrected_by'], c['score']) == ('vote', 0.05)
  assert 'error' not in c
  assert 'ranks' not in a


def test_other_dimensions():
  """Those of a rubric, with labels of its own."""
  no, yes = (
    scored('a', *labels, scale=_OWN) for labels in (('No', 'No'), ('Yes', 'No'))
  )
  sure = scored('b', 'No', 'No', scale=_OWN)
  assert corrections.choose([[sure, sure], [no, yes]], 0.5, _OWN) == [1]
  people = corrections.labels_of_people([_of_person('b', 'style', 'Yes')], _OWN)
  a, b = corrections.correct([[no, yes, yes], [sure]], [0], people, _OWN, None)
  assert a['labels'] == b['labels'] == {'style': 'Yes', 'physics': 'No'}
  assert a['ranks'] == b['ranks'] == {'style': 1, 'physics': 0}
  assert a['score'] == b['score'] == 0.625
  assert (a['corrected_by'], b['corrected_by']) == ('vote', 'people')
  sure = scored('a', 'Yes', 'No', scale=_OWN, confidence=1 - 1e-9)
  agreed = corrections.agreed_between_temperatures(sure, (0.7, 1.0), 0, _OWN)
  assert agreed == sure['labels']
  with pytest.raises(UserError, match='about motion, but the critic rates sty'):
    corrections.labels_of_people([_of_person('a', 'motion', 'Good')], _OWN)


def test_temperatures():
  """A sure critic agrees with itself; an unsure one only at times."""
  sure = scored('a', 'Good', 'Normal', 'Bad', confidence=1 - 1e-9)
  agreed = corrections.agreed_between_temperatures(sure, (0.7, 1.0), 0, LIFT)
  assert agreed == sure['labels']
  numbers = [
    len(
      corrections.agreed_between_temperatures(
        scored(f'{n}', 'Good', 'Good', 'Good', confidence=1 / 3),
        (0.7, 1.0),
        0,
        LIFT,
      )
    )
    for n in range(200)
  ]
  # Two independent draws of three equal labels.
  assert sum(numbers) / 600 == pytest.approx(1 / 3, abs=0.06)
  agreed = corrections.agreed_between_temperatures(failed('a'), (1, 2), 0, LIFT)
  assert agreed == {}


def test_critics():
  first = scored('a', 'Good', 'Normal', 'Bad')
  other = scored('a', 'Good', 'Bad', 'Bad')
  assert corrections.agreed_between_critics([first, other, first]) == {
    'semantic': 'Good',
    'fidelity': 'Bad',
  }
  assert corrections.agreed_between_critics([first, failed('a')]) == {}
