"""Labels and rationales of answers; malformed answers raise."""

import json

from absl.testing import parameterized
import pytest

from lift_jax import errors
from lift_jax.data import hra
from lift_jax.rewards import answers
from tests.published import OURS, THEIRS, require

pytestmark = pytest.mark.fast

KEYS = ('semantic consistency', 'fidelity issues', 'motion issues')


class SplitTest(parameterized.TestCase):
  @parameterized.parameters(
    ('Good. Basically correct.', 'Good', 'Basically correct.'),
    ('Bad, the hands are missing.', 'Bad', 'the hands are missing.'),
    ('Normal', 'Normal', ''),
    ('Normal.', 'Normal', ''),
    ('  Good.\n', 'Good', ''),
    ('Good.No problems.', 'Good', 'No problems.'),
    # The reference finds labels anywhere, Normal first, and then Bad.
    ('Good. Normal light, no Bad frames.', 'Good', None),
    ('Bad. Would be Normal, or Good.', 'Bad', None),
  )
  def test_answers(self, text, label, rationale):
    found = answers.split_answer(text)
    self.assertEqual(found[0], label)
    if rationale is not None:
      self.assertEqual(found[1], rationale)
      self.assertEqual(answers.rationale_of(text), rationale)

  def test_rationale_without_label(self):
    self.assertEqual(answers.rationale_of(' It is good. '), 'It is good.')

  @parameterized.parameters(
    '',
    'good. Lower case.',
    'Goodness, a cat.',
    'Good because nothing moves.',
    'Good! Great.',
    'Very Good.',
    'The video is Good.',
    '"Good." it said.',
    'Label: Bad.',
    'Badly drawn.\nGood.',
  )
  def test_no_label(self, text):
    with self.assertRaises(errors.UserError) as caught:
      answers.split_answer(text)
    self.assertIn(repr(text), str(caught.exception))
    self.assertNotIn('\n', str(caught.exception))

  def test_long_text_is_cut(self):
    with self.assertRaisesRegex(errors.UserError, r"'(ha ){13}h\.\.\.'"):
      answers.split_answer('ha ' * 200)

  @parameterized.parameters(OURS, THEIRS)
  def test_released_critics(self, root):
    require(root)
    num_answers = 0
    reference = root / 'lift_sample' / 'reference'
    for path in sorted(reference.glob('critic_output_*.json')):
      for item in json.loads(path.read_text(encoding='utf-8')):
        for key in KEYS:
          label, rationale = answers.split_answer(item[key])
          self.assertEqual(f'{label}. {rationale}', item[key])
          num_answers += 1
    self.assertEqual(num_answers, 12)


class FormatTest(parameterized.TestCase):
  @parameterized.product(
    label=hra.LABELS, rationale=('', 'The cat has no Good paws, and no tail.')
  )
  def test_taken_apart_again(self, label, rationale):
    text = answers.format_answer(label, rationale)
    self.assertEqual(answers.split_answer(text), (label, rationale))

  def test_form(self):
    self.assertEqual(
      answers.format_answer('Bad', ' No tail.\n'), 'Bad. No tail.'
    )
    self.assertEqual(answers.format_answer('Good', ''), 'Good.')

  def test_no_label(self):
    with self.assertRaisesRegex(errors.UserError, "'Fine'.*Good, Normal, Bad"):
      answers.format_answer('Fine', 'It is.')
