"""The questions that a critic is asked are those that it was trained on."""

import json
import pathlib

from absl.testing import parameterized
import pytest

from lift_jax.data.critic_prompts import (
  NAME,
  CriticPrompts,
  find_prompts,
  trained_template,
  write_prompts,
)
from lift_jax.data.hra import DIMENSIONS
from lift_jax.errors import UserError
from tests.data.feedback import QUESTIONS
from tests.published import OURS, THEIRS, require

OTHERS = {name: f' Another {name} question?' for name in DIMENSIONS}


class CriticPromptsTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folders(self, tmp_path):
    self.root = tmp_path
    self.critic, self.adapter = tmp_path / 'critic', tmp_path / 'adapter'
    for folder in (self.critic, self.adapter):
      folder.mkdir()

  def find(self, given='') -> CriticPrompts:
    return find_prompts(str(given), [self.adapter, self.critic])

  def write(self, value, name='given.json') -> pathlib.Path:
    path = self.root / name
    path.write_text(value if isinstance(value, str) else json.dumps(value))
    return path

  def assert_refused(self, *words, **settings):
    with self.assertRaises(UserError) as caught:
      self.find(**settings)
    text = str(caught.exception)
    self.assertLen(text.splitlines(), 1)
    for word in words:
      self.assertIn(str(word), text)

  @parameterized.parameters('adapter', 'critic')
  def test_what_training_wrote(self, name):
    """With the space that training adds before captions."""
    backwards = dict(reversed(QUESTIONS.items()))
    write_prompts(getattr(self, name), backwards, 'vicuna_v1')
    prompts = self.find()
    self.assertEqual(
      prompts, CriticPrompts(QUESTIONS, True, template='vicuna_v1')
    )
    self.assertEqual(tuple(prompts.questions), DIMENSIONS)

  def test_adapter_first(self):
    """It was trained last."""
    write_prompts(self.critic, OTHERS, 'hermes-2')
    write_prompts(self.adapter, QUESTIONS, 'vicuna_v1')
    self.assertEqual(self.find().questions, QUESTIONS)
    self.assertEqual(self.find().template, 'vicuna_v1')
    folders = [self.adapter, self.critic]
    self.assertEqual(trained_template(folders), 'vicuna_v1')
    self.assertIsNone(trained_template([self.root]))

  def test_given_first(self):
    write_prompts(self.adapter, QUESTIONS, 'hermes-2')
    path = self.write({'questions': OTHERS})
    prompts = self.find(path)
    # The template is that of the critic all the same.
    self.assertEqual(prompts.questions, OTHERS)
    self.assertEqual(prompts.template, 'hermes-2')

  def test_given_as_published(self):
    """Other names, no template: a critic that is asked without the space."""
    path = self.write(
      {
        'questions': {f'{name} issues': text for name, text in OTHERS.items()},
        'image_token': '<image>',
      }
    )
    self.assertEqual(self.find(path), CriticPrompts(OTHERS, False))

  def test_given_as_trained(self):
    """By its path: the critic is still asked as it was trained."""
    write_prompts(self.adapter, QUESTIONS, 'vicuna_v1')
    moved = (self.adapter / NAME).rename(self.root / 'moved.json')
    self.assertEqual(
      self.find(moved), CriticPrompts(QUESTIONS, True, template='vicuna_v1')
    )

  def test_none(self):
    self.assert_refused(
      self.critic, 'no prompts.json', '--config.prompts.questions=FILE.json'
    )

  @parameterized.parameters(
    ('{', 'line 1 column 2'),
    ('[]', 'a list, not an object'),
    ({'questions': {'semantics': 'Why?'}}, 'begin it with one space'),
    ({'template': 'vicuna_v1'}, 'no "questions"'),
    (
      {'questions': OTHERS, 'template': 'vicuna_v1'},
      'has "template" alone; give both',
    ),
    (
      {'questions': OTHERS, 'space_before_caption': True},
      'has "space_before_caption" alone; give both',
    ),
    (
      {'questions': OTHERS, 'template': None, 'space_before_caption': True},
      '"template" is null; write a string',
    ),
    (
      {
        'questions': OTHERS,
        'template': 'vicuna_v1',
        'space_before_caption': 'false',
      },
      '"space_before_caption" is a string; write true or false',
    ),
  )
  def test_bad_file(self, value, words):
    for place in ('given.json', f'adapter/{NAME}'):
      path = self.write(value, place)
      given = path if place == 'given.json' else ''
      self.assert_refused(path, words, given=given)

  def test_missing_file(self):
    self.assert_refused('gone.json', 'no such file', given='gone.json')

  def test_saved_on_windows(self):
    path = self.root / 'marked.json'
    path.write_text(json.dumps({'questions': OTHERS}), encoding='utf-8-sig')
    self.assertEqual(self.find(path).questions, OTHERS)

  @parameterized.parameters((OURS, ' Do'), (THEIRS, ' Please identify the '))
  def test_published(self, root, start):
    require(root)
    prompts = self.find(root / 'critic_prompts.json')
    self.assertFalse(prompts.space_before_caption)
    self.assertEqual(tuple(prompts.questions), DIMENSIONS)
    for dimension, text in prompts.questions.items():
      self.assertStartsWith(text, start)
      self.assertRegex(text, rf'\bthe {dimension}\b')
