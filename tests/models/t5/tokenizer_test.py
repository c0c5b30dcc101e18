"""Tokenizers of both kinds, against the libraries that made them."""

import json
import logging
import pathlib
import tempfile

from absl.testing import parameterized
import numpy as np
import sentencepiece
import transformers

from lift_jax import errors
from lift_jax.models.t5 import tokenizer as tokenizer_lib

CAPTIONS = (
  'A red ball rolls to the left.',
  '',
  'Two blue squares circle a green triangle, slowly.',
)


def _train_sentencepiece(folder):
  """A published T5 tokenizer folder in small: spiece.model and its config."""
  corpus = [
    f'A {size} {colour} {shape} {verb} to the {side}, slowly.'
    for size in ('small', 'large', 'tiny')
    for colour in ('red', 'green', 'blue', 'yellow')
    for shape in ('ball', 'square', 'triangle')
    for verb in ('rolls', 'jumps', 'moves', 'circles')
    for side in ('left', 'right')
  ]
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(corpus),
    model_prefix=str(folder / 'spiece'),
    model_type='unigram',
    vocab_size=40,
    pad_id=0,
    eos_id=1,
    unk_id=2,
    bos_id=-1,
    num_threads=1,
    minloglevel=2,
  )
  (folder / 'spiece.vocab').unlink()
  config = {
    'tokenizer_class': 'T5Tokenizer',
    'extra_ids': 100,
    'legacy': True,
    'model_max_length': 226,
    'pad_token': '<pad>',
    'eos_token': '</s>',
    'unk_token': '<unk>',
  }
  (folder / 'tokenizer_config.json').write_text(json.dumps(config))


class TokenizerTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    root = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
    cls.folders = {'t5': root / 't5', 'byt5': root / 'byt5'}
    cls.folders['t5'].mkdir()
    _train_sentencepiece(cls.folders['t5'])
    transformers.ByT5Tokenizer().save_pretrained(cls.folders['byt5'])
    cls.tokenizers = {
      name: tokenizer_lib.load_tokenizer(folder)
      for name, folder in cls.folders.items()
    }

  def test_t5_ids_are_those_of_sentencepiece(self):
    processor = sentencepiece.SentencePieceProcessor(
      model_file=str(self.folders['t5'] / 'spiece.model')
    )
    ids, truncated = tokenizer_lib.tokenize(self.tokenizers['t5'], CAPTIONS, 60)
    self.assertEqual(ids.dtype, np.int32)
    self.assertEqual(ids.shape, (3, 60))
    self.assertEqual(truncated, [False] * 3)
    for row, caption in zip(ids.tolist(), CAPTIONS, strict=True):
      expected = [*processor.encode(caption), 1]
      self.assertEqual(row, expected + [0] * (60 - len(expected)))

  def test_byt5_ids_are_bytes(self):
    """Bytes come after the three special tokens pad 0, eos 1, unk 2."""
    ids, _ = tokenizer_lib.tokenize(self.tokenizers['byt5'], ['aé', ''], 5)
    e_acute = 'é'.encode()
    self.assertEqual(
      ids.tolist(),
      [
        [ord('a') + 3, e_acute[0] + 3, e_acute[1] + 3, 1, 0],
        [1, 0, 0, 0, 0],
      ],
    )

  @parameterized.product(
    name=('t5', 'byt5'), max_length=(1, 2, 8, 30, 31, 49, 50, 51)
  )
  def test_cut_as_the_reference_cuts(self, name, max_length):
    tokenizer = self.tokenizers[name]
    ids, truncated = tokenizer_lib.tokenize(tokenizer, CAPTIONS, max_length)
    expected = tokenizer(
      list(CAPTIONS),
      padding='max_length',
      max_length=max_length,
      truncation=True,
    ).input_ids
    np.testing.assert_array_equal(ids, expected)
    lengths = [len(tokenizer(caption).input_ids) for caption in CAPTIONS]
    self.assertEqual(truncated, [length > max_length for length in lengths])

  @parameterized.parameters('t5', 'byt5')
  def test_long_caption_keeps_its_end(self, name):
    with self.assertNoLogs('transformers', logging.WARNING):
      ids, truncated = tokenizer_lib.tokenize(
        self.tokenizers[name], ['a red ball ' * 200, 'a'], 226
      )
    self.assertEqual(truncated, [True, False])
    self.assertEqual(ids[0, -1], 1)
    self.assertNotIn(1, ids[0, :-1])
    self.assertNotIn(0, ids[0])

  def test_no_captions(self):
    ids, truncated = tokenizer_lib.tokenize(self.tokenizers['byt5'], [], 7)
    self.assertEqual(ids.shape, (0, 7))
    self.assertEqual(truncated, [])


class LoadTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

  def _message(self, folder):
    with self.assertRaises(errors.UserError) as caught:
      tokenizer_lib.load_tokenizer(folder)
    message = str(caught.exception)
    self.assertNotIn('\n', message)
    self.assertStartsWith(message, f'{folder}: ')
    return message

  def test_no_folder(self):
    # Names such as this one stand for models on a hub.
    self.assertIn('no such folder', self._message('google-t5/t5-small'))

  def test_empty_folder(self):
    self.assertIn('not a tokenizer', self._message(self.folder))

  def test_broken_file(self):
    (self.folder / 'tokenizer_config.json').write_text('{"tokenizer_class": ')
    self.assertIn('not a tokenizer', self._message(self.folder))

  def test_broken_model(self):
    (self.folder / 'tokenizer_config.json').write_text(
      '{"tokenizer_class": "T5Tokenizer"}'
    )
    (self.folder / 'spiece.model').write_bytes(b'not sentencepiece')
    self.assertIn('tokenizer', self._message(self.folder))

  def test_another_kind(self):
    (self.folder / 'vocab.txt').write_text('[PAD]\n[UNK]\n[CLS]\n[SEP]\n')
    (self.folder / 'tokenizer_config.json').write_text(
      '{"tokenizer_class": "BertTokenizer"}'
    )
    self.assertIn('does not end', self._message(self.folder))
