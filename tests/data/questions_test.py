"""Questions that are found as the common endings of texts."""

import json
import random

from absl.testing import parameterized
import pytest

from lift_jax.data import hra
from lift_jax.data.questions import find_questions
from tests.data.feedback import ALIKE, CAPTIONS, QUESTIONS
from tests.published import OURS, THEIRS, require

pytestmark = pytest.mark.fast


class FindQuestionsTest(parameterized.TestCase):
  def assert_found(self, captions, questions):
    texts = [
      f'\n {caption}{question}'
      for caption in captions
      for question in questions
    ]
    self.assertEqual(find_questions(texts), tuple(questions))
    random.Random(0).shuffle(texts)
    self.assertCountEqual(find_questions(texts), questions)

  @parameterized.product(
    questions=(
      tuple(QUESTIONS.values()),
      ALIKE,
      (' Rate the motion issues.', ' Rate the fidelity issues.'),
      (' Motion?', ' Fidelity?', ' Semantic?'),
      (' Look closely. Rate motion.', ' Look closely. Rate fidelity.'),
      (QUESTIONS['motion'],),
    ),
    num_captions=(3, 4),
  )
  def test_questions(self, questions, num_captions):
    self.assert_found(CAPTIONS[:num_captions], questions)

  def test_two_captions(self):
    self.assert_found(CAPTIONS[:2], list(QUESTIONS.values()))

  def test_shared_last_words(self):
    # Enough of them that each ending would pay for itself, were it not for the
    # others.
    captions = [
      f'A {animal} {action} in the {place}.'
      for animal in ('crane', 'panda', 'cat')
      for action in ('stands', 'sleeps', 'jumps')
      for place in ('snow', 'wood')
    ]
    self.assert_found(captions, list(QUESTIONS.values()))

  def test_all_captions_end_alike(self):
    captions = [f'A {name} is seen in the snow.' for name in ('cat', 'dog')]
    self.assert_found(captions, list(QUESTIONS.values()))

  def test_captions_end_in_space(self):
    captions = [f'{caption} ' for caption in CAPTIONS]
    self.assert_found(captions, list(QUESTIONS.values()))

  def test_short_questions(self):
    # Shorter than what captions share: the endings found are too long at first.
    captions = [f'A {name}. The sky is blue.' for name in 'abcdefghij']
    captions += [f'One {name} looks at all the rest of it.' for name in 'abcd']
    self.assert_found(captions, (' Motion?', ' Fidelity?', ' Semantic?'))

  def test_texts_end_in_space(self):
    texts = [caption + text for caption in CAPTIONS for text in ALIKE]
    texts = [text + ' \n' * (index % 3) for index, text in enumerate(texts)]
    self.assertEqual(find_questions(texts), tuple(ALIKE))

  def test_captions_without_full_stop(self):
    captions = ('a crane in a pond', 'a panda in space', 'rain "on a roof"')
    self.assert_found(captions, list(QUESTIONS.values()))

  def test_one_question_each(self):
    # No caption is asked about twice.
    texts = [
      f'Clip {index} shows thing {index}.{ALIKE[index % 3]}'
      for index in range(24)
    ]
    self.assertEqual(find_questions(texts), tuple(ALIKE))

  def test_line_break_before(self):
    questions = ['\nRate the motion.', '\nRate the fidelity.']
    self.assert_found(CAPTIONS, questions)

  def test_stray_text(self):
    texts = [caption + text for caption in CAPTIONS for text in ALIKE]
    strays = ['A tram. Answer with a reason.', 'A tram.', 'Give your reason.']
    self.assertEqual(find_questions(texts + strays), tuple(ALIKE))

  @parameterized.parameters([[]], [['one']], [['one', 'two']])
  def test_nothing_in_common(self, texts):
    self.assertEqual(find_questions(texts), ())

  def test_long_texts(self):
    # Each shares one word more with the next: the deepest search there can be.
    words = [f'w{index}' for index in range(600)]
    texts = [
      f'u{index} {" ".join(words[-index:])} Rate the motion.'
      for index in range(1, 600)
    ]
    (question,) = find_questions(texts)
    self.assertLen(question.split(), 200)


class PublishedFilesTest(parameterized.TestCase):
  @parameterized.parameters((OURS, 12), (THEIRS, 40))
  def test_few_entries(self, root, limit):
    # Of a handful of entries too, nothing but whole questions is found.
    require(root)
    items = json.loads((root / 'vidgen-data.json').read_text(encoding='utf-8'))
    texts = [text for item in items for text in hra.human_texts(item)]
    questions = set(hra.read_questions(root / 'critic_prompts.json').values())
    generator = random.Random(0)
    for number in range(2, limit):
      found = find_questions(generator.sample(texts, number))
      self.assertLessEqual(set(found), questions)
