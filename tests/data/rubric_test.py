"""Rubrics: dimensions, labels and rewards as data."""

import dataclasses
import json

import pytest

from lift_jax.data import rubric
from lift_jax.errors import UserError
from lift_jax.models.critic_tokens import questions_path

pytestmark = pytest.mark.fast

FULL = {
  'questions': {'speed': ' How fast?', 'camera motion': ' Steady?'},
  'labels': ['Yes', 'Hardly', 'No', 'Never'],
  'rewards': {'Yes': 1, 'Hardly': 0.5, 'No': 0.5, 'Never': 0},
  'guideline': 'Look twice.',
  'levels': {'speed': {'Yes': 'As in reality.'}},
  'examples': {'speed': {'No': ['a.mp4', 'b.mp4']}},
}


def read(folder, value):
  path = folder / 'questions.json'
  path.write_text(json.dumps(value))
  return rubric.read_rubric(path)


def test_full(tmp_path):
  found = read(tmp_path, FULL | {'notes': []})
  assert found.dimensions == ('speed', 'camera motion')
  assert found.scale == rubric.Scale(
    ('speed', 'camera motion'),
    ('Yes', 'Hardly', 'No', 'Never'),
    (1.0, 0.5, 0.5, 0.0),
  )
  assert found.scale.classes == ('Never', 'No', 'Hardly', 'Yes')
  assert found.scale.score('Hardly') == 0.5
  assert found.examples == {'speed': {'No': ('a.mp4', 'b.mp4')}}
  assert read(tmp_path, rubric.to_json(found)) == found


def test_default(tmp_path):
  found = read(tmp_path, {'questions': {'motion': ' Smooth?'}})
  assert found.scale == dataclasses.replace(rubric.LIFT, dimensions=('motion',))


def test_ours():
  """LiFT's three, with what each label means (arXiv 2412.04814, table 5)."""
  found = rubric.read_rubric(questions_path())
  assert found.scale == rubric.LIFT
  assert found.guideline
  assert {name: tuple(texts) for name, texts in found.levels.items()} == (
    dict.fromkeys(rubric.DIMENSIONS, rubric.LABELS)
  )


def test_names(tmp_path):
  """Published keys are LiFT's dimensions; others are names of their own."""
  published = {'motion issues': ' a', 'semantic consistency': ' b'}
  assert read(tmp_path, {'questions': published}).dimensions == (
    'motion',
    'semantic',
  )
  own = {'camera motion': ' a', 'taste': ' b'}
  assert read(tmp_path, {'questions': own}).dimensions == (
    'camera motion',
    'taste',
  )


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'questions': {}}, 'is empty; add a question'),
    ({'questions': {'a\nb': ' x'}}, 'plain name'),
    ({'questions': {' a': ' x'}}, 'plain name'),
    ({'labels': 'Good'}, 'not a list of strings'),
    ({'labels': ['Yes']}, 'two or more different labels'),
    ({'labels': ['Yes', 'Yes']}, 'two or more different labels'),
    ({'labels': ['Yes', 'No.']}, "label 'No.' is followed by"),
    ({'rewards': {'Yes': 1}}, 'give one for each of Yes, Hardly'),
    ({'rewards': FULL['rewards'] | {'No': 2}}, "reward of 'No' is 2"),
    ({'rewards': FULL['rewards'] | {'No': True}}, "reward of 'No' is True"),
    ({'rewards': FULL['rewards'] | {'No': 0.9}}, 'a worse label a higher'),
    ({'guideline': 3}, '"guideline" is a number'),
    ({'levels': {'taste': {}}}, "no question for 'taste'"),
    ({'levels': {'speed': {'Good': 'x'}}}, "'Good' is none of Yes"),
    ({'levels': {'speed': {'No': 3}}}, 'is a number; write a text'),
    ({'levels': []}, '"levels" is no object'),
    ({'examples': {'speed': {'No': [3]}}}, 'write lists of paths'),
  ],
)
def test_refused(tmp_path, change, message):
  with pytest.raises(UserError, match=message) as caught:
    read(tmp_path, FULL | change)
  assert str(caught.value).startswith(f'{tmp_path / "questions.json"}: ')


def test_own_labels_need_rewards(tmp_path):
  value = {key: FULL[key] for key in ('questions', 'labels')}
  with pytest.raises(UserError, match='labels of your own need "rewards"'):
    read(tmp_path, value)


@pytest.mark.parametrize(
  ('labels', 'winner'),
  [
    (('Good', 'Good', 'Bad'), 'Good'),
    (('Good', 'Bad'), 'Bad'),
    (('Good', 'Normal'), 'Normal'),
    (('Normal', 'Bad', 'Good'), 'Bad'),
    (('Good', 'Good', 'Normal', 'Normal', 'Bad'), 'Normal'),
  ],
)
def test_majority(labels, winner):
  assert rubric.majority(labels, rubric.LABELS) == winner
