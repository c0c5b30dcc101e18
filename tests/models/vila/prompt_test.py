"""Exact texts of prompts."""

import json

from absl.testing import absltest, parameterized
import pytest

from lift_jax import errors
from lift_jax.data import hra
from lift_jax.data.questions import find_questions
from lift_jax.models.critic_tokens import questions_path
from lift_jax.models.vila import prompt
from tests.published import OURS, THEIRS, require

pytestmark = pytest.mark.fast


class MessageTest(absltest.TestCase):
  def test_one_line_per_frame(self):
    message = prompt.user_message(
      'A cat.', ' Why?', 3, space_before_caption=False
    )
    self.assertEqual(message, '<image>\n<image>\n<image>\nA cat. Why?')

  def test_published_training_has_a_space(self):
    message = prompt.user_message(
      'A cat.', ' Why?', 1, space_before_caption=True
    )
    self.assertEqual(message, '<image>\n A cat. Why?')


class TemplateTest(parameterized.TestCase):
  def test_vicuna(self):
    system = prompt.VICUNA_V1.system
    text = prompt.render(prompt.VICUNA_V1, 'Why?')
    self.assertEqual(text, f'{system} USER: Why? ASSISTANT:')
    text = prompt.render(prompt.VICUNA_V1, 'Why?', 'Good.')
    self.assertEqual(text, f'{system} USER: Why? ASSISTANT: Good.</s>')

  def test_hermes(self):
    before = (
      '<|im_start|>system\nAnswer the questions.<|im_end|>'
      '<|im_start|>user\nWhy?<|im_end|><|im_start|>assistant\n'
    )
    self.assertEqual(prompt.render(prompt.HERMES_2, 'Why?'), before)
    self.assertEqual(
      prompt.render(prompt.HERMES_2, 'Why?', 'Good.'),
      before + 'Good.<|im_end|>',
    )

  def test_names(self):
    for name, template in prompt.TEMPLATES.items():
      self.assertIs(prompt.get_template(name), template)
    with self.assertRaisesRegex(errors.UserError, "'v1'.*hermes-2, vicuna_v1"):
      prompt.get_template('v1')


class QuestionsTest(absltest.TestCase):
  def setUp(self):
    super().setUp()
    self.questions = hra.read_questions(questions_path())

  def test_one_for_each_dimension(self):
    self.assertCountEqual(self.questions, hra.DIMENSIONS)

  def test_found_again_in_feedback(self):
    """Also without the file: by their endings and their topics."""
    captions = ('A cat sleeps.', 'Two dogs run over a bridge.', 'Rain')
    texts = [
      f'\n {caption}{question}'
      for caption in captions
      for question in self.questions.values()
    ]
    self.assertCountEqual(find_questions(texts), self.questions.values())
    for dimension, question in self.questions.items():
      named = [name for name in hra.DIMENSIONS if name in question]
      self.assertEqual(named, [dimension])

  def test_is_part_of_the_package(self):
    setup = questions_path().parents[2] / 'setup.py'
    self.assertIn('questions.json', setup.read_text(encoding='utf-8'))


def _published(root):
  require(root)
  path = root / 'critic_prompts.json'
  return json.loads(path.read_text(encoding='utf-8'))


class PublishedTest(parameterized.TestCase):
  @parameterized.parameters(OURS, THEIRS)
  def test_rendered_example(self, root):
    published = _published(root)
    example = published['rendered_example_vicuna_v1_inference']
    question = published['questions'][example['dimension']]
    message = prompt.user_message(
      example['caption'], question, 8, space_before_caption=False
    )
    self.assertEqual(
      prompt.render(prompt.get_template('vicuna_v1'), message),
      example['prompt'],
    )

  @parameterized.product(
    root=(OURS, THEIRS),
    name=('vicuna_v1', 'hermes-2'),
    is_training=(True, False),
  )
  def test_forms(self, root, name, is_training):
    file = _published(root)
    published = file['templates'][name]
    form = 'training_format' if is_training else 'inference_format'
    answer = file['vidgen_fixed_answer'] if is_training else None
    self.assertEqual(
      prompt.render(prompt.get_template(name), 'Why?', answer),
      published[form].format(
        system=published['system'], user_message='Why?', answer=answer
      ),
    )
