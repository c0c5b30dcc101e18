"""Tokenizers of both kinds, against the libraries that made them."""

import json
import logging
import pathlib
import tempfile
import unicodedata

from absl.testing import parameterized
import numpy as np
import sentencepiece
import transformers
from transformers import tokenization_utils_sentencepiece

from lift_jax import errors
from lift_jax.models.t5 import tokenizer as tokenizer_lib
from tests.models.t5 import spiece

CAPTIONS = (
  'A red ball rolls to the left.',
  '',
  'Two blue squares circle a green triangle, slowly.',
)

VOCAB_SIZE = 384  # of the text encoder

# First and last letters of scripts, and of marks that combine with them.
SCRIPTS = {
  'Latin': (0x41, 0x24F),
  'Greek': (0x391, 0x3C9),
  'Cyrillic': (0x410, 0x44F),
  'Armenian': (0x531, 0x556),
  'Hebrew': (0x5D0, 0x5EA),
  'Arabic': (0x621, 0x652),
  'Devanagari': (0x905, 0x94D),
  'Bengali': (0x985, 0x9CD),
  'Tamil': (0xB85, 0xBCD),
  'Thai': (0xE01, 0xE4E),
  'Tibetan': (0xF40, 0xF84),
  'Georgian': (0x10D0, 0x10FA),
  'Jamo': (0x1100, 0x11C2),
  'Ethiopic': (0x1200, 0x1248),
  'Vietnamese': (0x1EA0, 0x1EF9),
  'Punctuation': (0x2000, 0x203E),
  'Letterlike': (0x2100, 0x214F),
  'Hiragana': (0x3041, 0x309F),
  'Katakana': (0x30A1, 0x30FE),
  'Han': (0x4E00, 0x4E80),
  'Hangul': (0xAC00, 0xAC80),
  'Compatibility': (0xFB00, 0xFB4F),
  'Fullwidth': (0xFF01, 0xFF9F),
  'Emoji': (0x1F600, 0x1F64F),
}
MARKS = (0x300, 0x301, 0x302, 0x308, 0x323, 0x32E, 0x3099, 0x309A, 0x200D)


def _strings(number):
  """Texts of all scripts, composed, decomposed and with combining marks."""
  rng = np.random.default_rng(0)
  forms = (None, 'NFC', 'NFD', 'NFKC', 'NFKD')
  scripts = list(SCRIPTS.values())
  for index in range(number):
    first, last = scripts[index % len(scripts)]
    text = ''
    for code in rng.integers(first, last + 1, rng.integers(1, 12)):
      text += chr(code)
      text += chr(rng.choice(MARKS)) if rng.random() < 0.3 else ''
      text += (
        rng.choice(
          ('  ', ' ', '\t', '\n', '\u3000', 'red ball'),
        )
        if rng.random() < 0.2
        else ''
      )
    form = forms[index // len(scripts) % len(forms)]
    yield text if form is None else unicodedata.normalize(form, text)


class TokenizerTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    root = pathlib.Path(cls.enterClassContext(tempfile.TemporaryDirectory()))
    cls.folders = {'t5': root / 't5', 'byt5': root / 'byt5'}
    cls.folders['t5'].mkdir()
    spiece.train(cls.folders['t5'])
    transformers.ByT5Tokenizer().save_pretrained(cls.folders['byt5'])
    cls.tokenizers = {
      name: tokenizer_lib.load_tokenizer(folder)
      for name, folder in cls.folders.items()
    }

  def test_t5_ids_are_those_of_sentencepiece(self):
    processor = sentencepiece.SentencePieceProcessor(
      model_file=str(self.folders['t5'] / 'spiece.model')
    )
    ids, truncated = tokenizer_lib.tokenize(
      self.tokenizers['t5'], CAPTIONS, 60, VOCAB_SIZE
    )
    self.assertEqual(ids.dtype, np.int32)
    self.assertEqual(ids.shape, (3, 60))
    self.assertEqual(truncated, [False] * 3)
    for row, caption in zip(ids.tolist(), CAPTIONS, strict=True):
      expected = [*processor.encode(caption), 1]
      self.assertEqual(row, expected + [0] * (60 - len(expected)))

  def test_byt5_ids_are_bytes(self):
    """Bytes come after the three special tokens pad 0, eos 1, unk 2."""
    ids, _ = tokenizer_lib.tokenize(
      self.tokenizers['byt5'], ['aé', ''], 5, VOCAB_SIZE
    )
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
    tokenizer = transformers.AutoTokenizer.from_pretrained(self.folders[name])
    ids, truncated = tokenizer_lib.tokenize(
      self.tokenizers[name], CAPTIONS, max_length, VOCAB_SIZE
    )
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
        self.tokenizers[name], ['a red ball ' * 200, 'a'], 226, VOCAB_SIZE
      )
    self.assertEqual(truncated, [True, False])
    self.assertEqual(ids[0, -1], 1)
    self.assertNotIn(1, ids[0, :-1])
    self.assertNotIn(0, ids[0])

  def test_no_captions(self):
    ids, truncated = tokenizer_lib.tokenize(
      self.tokenizers['byt5'], [], 7, VOCAB_SIZE
    )
    self.assertEqual(ids.shape, (0, 7))
    self.assertEqual(truncated, [])

  def test_sentinels_follow_the_vocabulary(self):
    encode = self.tokenizers['t5'].encode
    self.assertEqual(encode('<extra_id_0>'), [139, 1])
    self.assertEqual(encode('<extra_id_99> <pad>'), [40, 0, 1])

  @parameterized.parameters(
    'a ball</s>', 'a <extra_id_7> ball', '<extra_id_11>rolls <unk> left', '</s>'
  )
  def test_special_tokens_are_cut_out(self, text):
    """As by the slow tokenizer, whose lower layer transformers still has."""
    slow = tokenization_utils_sentencepiece.SentencePieceBackend(
      vocab_file=str(self.folders['t5'] / 'spiece.model'),
      legacy=True,
      eos_token='</s>',
      unk_token='<unk>',
      pad_token='<pad>',
    )
    slow.add_tokens(
      [f'<extra_id_{i}>' for i in reversed(range(100))], special_tokens=True
    )
    expected = slow.convert_tokens_to_ids(slow.tokenize(text))
    if expected[-1] != 1:
      expected.append(1)
    self.assertEqual(self.tokenizers['t5'].encode(text), expected)

  def test_token_that_the_encoder_lacks(self):
    """Harmless until a caption has it."""
    tokenizer = self.tokenizers['t5']
    tokenizer_lib.tokenize(tokenizer, ['a ball'], 9, vocab_size=40)
    with self.assertRaisesRegex(
      errors.UserError, "^caption '<extra_id_0>' has token 139, but the text"
    ):
      tokenizer_lib.tokenize(tokenizer, ['<extra_id_0>'], 9, vocab_size=139)


class UnicodeTest(parameterized.TestCase):
  # T5's own rule comes first.
  @parameterized.parameters('nmt_nfkc', 'nfkc', 'nmt_nfkc_cf', 'identity')
  def test_ids_are_those_of_sentencepiece(self, rule):
    strings = [
      'e\u0323\u0302',
      unicodedata.normalize('NFD', '한글 비디오'),
      '\u30ab\u3099 \u30cf\u309a',
      *_strings(2000),
    ]
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    spiece.train(
      folder,
      more_texts=strings[:500],
      vocab_size=2000,
      hard_vocab_limit=False,
      normalization_rule_name=rule,
      character_coverage=1.0,
    )
    processor = sentencepiece.SentencePieceProcessor(
      model_file=str(folder / 'spiece.model')
    )
    tokenizer = tokenizer_lib.load_tokenizer(folder)
    ids, _ = tokenizer_lib.tokenize(tokenizer, strings, 226, 2100)
    num_known = 0
    for row, text in zip(ids.tolist(), strings, strict=True):
      expected = processor.encode(text)
      num_known += sum(index != 2 for index in expected)
      expected.append(1)
      self.assertEqual(row, expected + [0] * (226 - len(expected)), text)
    # The strings say something: their characters are known.
    self.assertGreater(num_known, 5 * len(strings))


class LoadTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))

  def _message(self, folder):
    with self.assertRaises(errors.UserError) as caught:
      tokenizer_lib.load_tokenizer(folder)
    message = str(caught.exception)
    self.assertNotIn('\n', message)
    self.assertStartsWith(message, f'{folder}')
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
    self.assertIn('not a SentencePiece model', self._message(self.folder))

  @parameterized.parameters(
    ({'extra_ids': -1}, 'extra_ids is -1; give'),
    ({'extra_ids': True}, 'extra_ids is True; give'),
    ({'eos_token': None}, 'eos_token is null'),
    ({'pad_token': '[PAD]'}, r'no token \[PAD\] in its SentencePiece model'),
    ({'added_tokens_decoder': {'x': '<y>'}}, 'neither a text nor an object'),
  )
  def test_bad_config(self, change, message):
    spiece.train(self.folder)
    file = self.folder / 'tokenizer_config.json'
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    self.assertRegex(self._message(self.folder), message)

  def test_added_tokens(self):
    spiece.train(self.folder)
    (self.folder / 'added_tokens.json').write_text('{"<style>": 140}')
    tokenizer = tokenizer_lib.load_tokenizer(self.folder)
    self.assertEqual(tokenizer.encode('<style>'), [140, 1])

  def test_without_config(self):
    spiece.train(self.folder)
    expected = tokenizer_lib.load_tokenizer(self.folder).encode('a red ball')
    (self.folder / 'tokenizer_config.json').unlink()
    tokenizer = tokenizer_lib.load_tokenizer(self.folder)
    self.assertEqual(tokenizer.encode('a red ball'), expected)

  def test_another_kind(self):
    (self.folder / 'vocab.txt').write_text('[PAD]\n[UNK]\n[CLS]\n[SEP]\n')
    (self.folder / 'tokenizer_config.json').write_text(
      '{"tokenizer_class": "BertTokenizer"}'
    )
    self.assertIn('does not end', self._message(self.folder))
