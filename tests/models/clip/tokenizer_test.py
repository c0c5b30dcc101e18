"""Texts to ids, and folders that have no tokenizer of CLIP."""

from absl.testing import parameterized
import numpy as np
import pytest

from lift_jax.errors import UserError
from lift_jax.models.clip.tokenizer import load_tokenizer, tokenize
from tests.models.clip.tiny_clip import write_tokenizer

START, END = 512, 513


class TokenizerTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.folder = tmp_path
    write_tokenizer(tmp_path)

  def test_ids(self):
    """Lower case, white space collapsed, bytes of each word, its end marked."""
    encode = load_tokenizer(self.folder)
    at = {chr(33 + index): index for index in range(94)}
    ids, lengths = tokenize(encode, ['A  Cat', ''], 8, 514)
    np.testing.assert_array_equal(
      ids,
      [
        [START, 256 + at['a'], at['c'], at['a'], 256 + at['t'], END, 0, 0],
        [START, END, 0, 0, 0, 0, 0, 0],
      ],
    )
    np.testing.assert_array_equal(lengths, [6, 2])

  def test_truncated(self):
    encode = load_tokenizer(self.folder)
    ids, lengths = tokenize(encode, ['abcdefgh'], 5, 514)
    self.assertEqual(ids[0, [0, -1]].tolist(), [START, END])
    self.assertEqual(lengths.tolist(), [5])

  def test_of_another_network(self):
    encode = load_tokenizer(self.folder)
    with self.assertRaisesRegex(UserError, "'a' has token 513, but .* 500;"):
      tokenize(encode, ['a'], 5, 500)

  def refused(self, message):
    with self.assertRaisesRegex(UserError, message) as caught:
      load_tokenizer(self.folder)
    self.assertNotIn('\n', str(caught.exception))

  def test_without_its_files(self):
    """From a config alone transformers makes a tokenizer of no words."""
    (self.folder / 'merges.txt').unlink()
    (self.folder / 'config.json').write_text('{"model_type": "clip"}')
    self.refused('no tokenizer; copy tokenizer.json, vocab.json, merges.txt')

  def test_damaged(self):
    (self.folder / 'vocab.json').write_text('{"a": 0')
    self.refused(r'no tokenizer \(.+\); copy tokenizer.json')
