"""The tokenizer for captions of the toy world."""

from absl.testing import absltest
import numpy as np
import pytest

from lift_jax.models.t5.tokenizer import load_tokenizer, tokenize
from lift_jax.toyworld import scenes
from lift_jax.toyworld.pretraining import tokenizer

CAPTIONS = [scene.caption for scene in scenes.all_scenes()]


class TokenizerTest(absltest.TestCase):
  @pytest.fixture(autouse=True)
  def _setting(self, tmp_path):
    self.folder = tmp_path
    tokenizer.write(tmp_path)
    self.tokenizer = load_tokenizer(tmp_path)

  def ids(self, *captions):
    return tokenize(
      self.tokenizer,
      captions,
      tokenizer.MAX_LENGTH,
      tokenizer.vocabulary_size(),
    )

  def test_captions(self):
    """Each has distinct tokens, without unknown ones or truncation."""
    ids, was_cut = self.ids(*CAPTIONS)
    self.assertFalse(any(was_cut))
    self.assertLen(np.unique(ids, axis=0), len(CAPTIONS))
    self.assertNotIn(2, ids)
    self.assertEqual(ids.max() + 1, tokenizer.vocabulary_size())
    # The longest needs the full length.
    self.assertEqual((ids != 0).sum(axis=1).max(), tokenizer.MAX_LENGTH)

  def test_words(self):
    """A token is a word or punctuation mark; an end token follows."""
    ids, _ = self.ids(
      'A small red circle moves upwards over a pink background.'
    )
    self.assertEqual((ids[0] != 0).sum(), 12)
    self.assertEqual(ids[0, 11], 1)
    self.assertEqual(ids[0, 0], ids[0, 7])  # 'A' and 'a'

  def test_others(self):
    ids, _ = self.ids('', 'a dog')
    self.assertEqual(ids[0, :2].tolist(), [1, 0])
    self.assertEqual(ids[1, 1:4].tolist(), [2, 1, 0])

  def test_same_files(self):
    before = {path.name: path.read_bytes() for path in self.folder.iterdir()}
    tokenizer.write(self.folder)
    after = {path.name: path.read_bytes() for path in self.folder.iterdir()}
    self.assertEqual(before, after)


if __name__ == '__main__':
  absltest.main()
