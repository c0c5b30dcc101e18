"""Token ids, against the slow tokenizer of transformers and SentencePiece.

What transformers 5 still has of its slow Llama tokenizer is the layer below:
`SentencePieceBackend` cuts out special tokens and encodes the rest. The one
space that the Llama layer puts before a text is written out in these tests.
"""

import json
import pathlib
import tempfile

from absl.testing import parameterized
import sentencepiece
import transformers
from transformers import tokenization_utils_sentencepiece

from lift_jax import errors
from lift_jax.data import hra
from lift_jax.models import critic_tokens
from lift_jax.models.vila import prompt
from lift_jax.models.vila.tokenizer import (
  IMAGE_TOKEN,
  PromptTokenizer,
  default_template,
)
from tests.models.selections import first_frames

CORPUS = [
  f'{label}. A {size} {animal} {verb} in the {place}, and the video shows it '
  f'well. USER: ASSISTANT: user assistant system Answer the questions. Please '
  f'identify the {what} issues in this video.'
  for label in hra.LABELS
  for size in ('small', 'large')
  for animal in ('cat', 'dog', 'crane')
  for verb in ('sleeps', 'runs')
  for place in ('pond', 'garden')
  for what in ('semantic', 'motion')
] * 3

QUESTION = ' Please identify the motion issues in this video.'
CAPTION = 'A cat sleeps in the garden.'
ANSWER = 'Bad. The cat runs.'

# As in Llama: three special tokens, then the bytes.
UNK, BOS, EOS = range(3)
NEWLINE = 3 + ord('\n')

YI_CONFIG = {
  'add_bos_token': False,
  'bos_token': '<|startoftext|>',
  'eos_token': {'content': '<|im_end|>', 'lstrip': False},
  'pad_token': '<unk>',
  'unk_token': '<unk>',
}


def _train(folder, **settings):
  """A tokenizer.model as Llama's is made: BPE, bytes, no normalisation."""
  folder.mkdir()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(CORPUS),
    model_prefix=str(folder / 'tokenizer'),
    num_threads=1,
    minloglevel=2,
    **{
      'model_type': 'bpe',
      'vocab_size': 480,
      'byte_fallback': True,
      'normalization_rule_name': 'identity',
      'remove_extra_whitespaces': False,
      'allow_whitespace_only_pieces': True,
      'split_digits': True,
      'hard_vocab_limit': False,
      'unk_id': UNK,
      'bos_id': BOS,
      'eos_id': EOS,
      'pad_id': -1,
      **settings,
    },
  )
  (folder / 'tokenizer.vocab').unlink()


class TokensTest(parameterized.TestCase):
  @classmethod
  def setUpClass(cls):
    super().setUpClass()
    root = cls.enterClassContext(tempfile.TemporaryDirectory())
    cls.root = pathlib.Path(root)
    cls.llama_folder = cls.root / 'llama'
    _train(cls.llama_folder)
    cls.llama = PromptTokenizer(cls.llama_folder, 'vicuna_v1', 4)
    cls.pieces = sentencepiece.SentencePieceProcessor(
      model_file=str(cls.llama_folder / 'tokenizer.model')
    )
    # Yi's special tokens are pieces of its vocabulary, and no space is put
    # before texts.
    cls.yi_folder = cls.root / 'yi'
    _train(
      cls.yi_folder,
      bos_piece='<|startoftext|>',
      eos_piece='<|endoftext|>',
      control_symbols='<|im_start|>,<|im_end|>',
      add_dummy_prefix=False,
    )
    cls._write(cls.yi_folder, YI_CONFIG)
    cls.yi = PromptTokenizer(cls.yi_folder, 'hermes-2', 4)

  @classmethod
  def _write(cls, folder, config, name='tokenizer_config.json'):
    (folder / name).write_text(json.dumps(config), encoding='utf-8')

  def _copy(self, name, config=None, source=None):
    folder = pathlib.Path(self.enterContext(tempfile.TemporaryDirectory()))
    folder = folder / name
    folder.mkdir()
    model = ((source or self.llama_folder) / 'tokenizer.model').read_bytes()
    (folder / 'tokenizer.model').write_bytes(model)
    if config is not None:
      self._write(folder, config)
    return folder

  def _slow(self, folder, legacy=False, **names):
    return tokenization_utils_sentencepiece.SentencePieceBackend(
      vocab_file=str(folder / 'tokenizer.model'), legacy=legacy, **names
    )


class InferenceTest(TokensTest):
  def test_chunk_by_chunk(self):
    """Each text between frames is encoded separately."""
    encode = self.pieces.encode  # Puts one space before a text.
    frame = [IMAGE_TOKEN] * 4
    newline = [self.pieces.piece_to_id('\u2581'), NEWLINE]
    self.assertEqual(
      self.llama.inference(CAPTION, QUESTION, first_frames(3)),
      [
        BOS,
        *encode(f'{prompt.VICUNA_V1.system} USER: '),
        *frame,
        *newline,
        *frame,
        *newline,
        *frame,
        *newline,
        *encode(f'\n{CAPTION}{QUESTION} ASSISTANT:')[2:],
      ],
    )

  @parameterized.parameters(
    '\n',
    'A cat.',
    ' A cat.',
    '  two spaces  ',
    '\n A cat.\n\nIt sleeps. ',
    '\u2581A cat\u2581\u2581sleeps',
    'Ein Kätzchen schläft 12345 😺 \t mal.',
    'Good. A cat.</s>',
    '</s>',
    '</s> A <s>cat<unk>.',
    ' </s>A cat',
  )
  def test_one_text(self, text):
    slow = self._slow(
      self.llama_folder, unk_token='<unk>', bos_token='<s>', eos_token='</s>'
    )
    expected = slow.tokenize('\u2581' + text.replace('\u2581', ' '))
    if text.startswith('</s>'):
      # LlamaTokenizer removes that space.
      self.assertEqual(expected.pop(0), '\u2581')
    self.assertEqual(
      self.llama._encode(text), slow.convert_tokens_to_ids(expected)
    )

  def test_transformers_drops_one_leading_space(self):
    folder = self._copy('llm', {'tokenizer_class': 'LlamaTokenizer'})
    auto = transformers.AutoTokenizer.from_pretrained(str(folder))
    for text in ('\n', 'A cat.', '\nA  cat in Ö.', f'{CAPTION}{QUESTION}'):
      ids = self.llama._encode(text)
      for same in (text, f' {text}'):
        self.assertEqual(auto(same, add_special_tokens=False).input_ids, ids)
      self.assertNotEqual(self.llama._encode(f' {text}'), ids)

  def test_no_text_has_no_tokens(self):
    self.assertEqual(self.llama._encode(''), [])
    self.assertEqual(self.yi._encode(''), [])

  def test_space_before_caption(self):
    without = self.llama.inference(CAPTION, QUESTION, first_frames(1))
    space = self.llama.inference(
      CAPTION, QUESTION, first_frames(1), space_before_caption=True
    )
    first = without.index(NEWLINE) + 1
    # 'A' with and without the mark of a space; the same from there on.
    self.assertEqual(self.pieces.id_to_piece(without[first]), 'A')
    self.assertEqual(self.pieces.id_to_piece(space[first]), '\u2581A')
    self.assertEqual(space[:first], without[:first])
    self.assertEqual(space[first + 1 :], without[first + 1 :])

  def test_hermes(self):
    """No BOS, special tokens as one id each, and no space after them."""
    start, end = 3, 4
    frame = [IMAGE_TOKEN] * 4
    pieces = sentencepiece.SentencePieceProcessor(
      model_file=str(self.yi_folder / 'tokenizer.model')
    )
    encode = pieces.encode
    self.assertEqual(pieces.id_to_piece(start), '<|im_start|>')
    self.assertEqual(pieces.id_to_piece(end), '<|im_end|>')
    self.assertNotEqual(encode('A')[0], encode(' A')[0])
    self.assertEqual(
      self.yi.inference(CAPTION, QUESTION, first_frames(2)),
      [
        start,
        *encode('system\nAnswer the questions.'),
        end,
        start,
        *encode('user\n'),
        *frame,
        *encode('\n'),
        *frame,
        *encode(f'\n{CAPTION}{QUESTION}'),
        end,
        start,
        *encode('assistant\n'),
      ],
    )
    self.assertIsNone(self.yi.bos_id)
    self.assertEqual((self.yi.stop_ids, self.yi.pad_id), ((end,), UNK))

  @parameterized.parameters((None,), (True,), (False,))
  def test_hermes_spaces_follow_the_folder(self, legacy):
    names = {'bos_token': '<s>', 'eos_token': '</s>', 'unk_token': '<unk>'}
    added = {
      '480': {'content': '<|im_start|>', 'special': True},
      '481': {'content': '<|im_end|>', 'special': True},
    }
    config = {**names, 'added_tokens_decoder': added, 'legacy': legacy}
    folder = self._copy('llm', config)
    tokenizer = PromptTokenizer(folder, 'hermes-2', 1)
    self.assertEqual(tokenizer.vocab_size, 482)
    legacy = legacy is not False
    slow = self._slow(folder, legacy, **names)
    slow.add_tokens(['<|im_start|>', '<|im_end|>'], special_tokens=True)
    for text in ('\n', 'A cat<|im_end|>', ' A cat<|im_end|> sleeps<|im_end|>'):
      space = '' if legacy else '\u2581'
      expected = slow.convert_tokens_to_ids(slow.tokenize(space + text))
      self.assertEqual(tokenizer._encode(text), expected)
    (start,) = tokenizer._encode('<|im_start|>')
    self.assertEqual(start, 480)

  @parameterized.parameters(True, False)
  def test_vicuna_spaces_are_its_own(self, legacy):
    folder = self._copy('llm', {'legacy': legacy})
    tokenizer = PromptTokenizer(folder, 'vicuna_v1', 4)
    self.assertEqual(
      tokenizer.training(CAPTION, QUESTION, first_frames(2), ANSWER),
      self.llama.training(CAPTION, QUESTION, first_frames(2), ANSWER),
    )


class TrainingTest(TokensTest):
  @parameterized.parameters('llama', 'yi')
  def test_targets(self, name):
    tokenizer = getattr(self, name)
    ids, is_target = tokenizer.training(
      CAPTION, QUESTION, first_frames(2), ANSWER, space_before_caption=False
    )
    self.assertLen(is_target, len(ids))
    before = tokenizer.inference(CAPTION, QUESTION, first_frames(2))
    self.assertEqual(ids[: len(before)], before)
    self.assertEqual(
      is_target,
      [False] * len(before) + [True] * (len(ids) - len(before)),
    )
    answer = ids[len(before) :]
    self.assertEqual((answer[-1],), tokenizer.stop_ids)
    space = tokenizer.template.before_answer
    if name == 'llama':
      # This one puts the template's space there itself.
      self.assertEqual(answer[:-1], self.pieces.encode(ANSWER))
    text = ''.join(map(tokenizer._pieces.id_to_piece, answer[:-1]))
    self.assertEqual(text.replace('\u2581', ' '), space + ANSWER)

  def test_question_contains_the_answer(self):
    """Targets are at the answer, not where its text occurs earlier."""
    question = f' ASSISTANT: {ANSWER}'
    ids, is_target = self.llama.training(
      CAPTION, question, first_frames(1), ANSWER
    )
    answer = [*self.pieces.encode(ANSWER), EOS]
    self.assertEqual(sum(is_target), len(answer))
    self.assertEqual(ids[-len(answer) :], answer)

  def test_published_space_is_the_default(self):
    ids, _ = self.llama.training(CAPTION, QUESTION, first_frames(1), ANSWER)
    before = self.llama.inference(
      CAPTION, QUESTION, first_frames(1), space_before_caption=True
    )
    self.assertEqual(ids[: len(before)], before)

  @parameterized.parameters('', ' Good.', 'Good. \n')
  def test_answer_with_space_around_it(self, answer):
    with self.assertRaisesRegex(errors.UserError, '^x.json record 3: '):
      self.llama.training(
        CAPTION, QUESTION, first_frames(1), answer, where='x.json record 3'
      )

  def test_token_spans_prompt_and_answer(self):
    folder = self.root / f'edge{id(self)}'
    _train(folder, user_defined_symbols=':\u2581Good')
    tokenizer = PromptTokenizer(folder, 'vicuna_v1', 4)
    with self.assertRaisesRegex(
      errors.UserError, 'spans the end of the prompt and'
    ):
      tokenizer.training(CAPTION, QUESTION, first_frames(1), 'Good.')


class RefusedTest(TokensTest):
  def _message(self, call, *args, **kwargs):
    with self.assertRaises(errors.UserError) as caught:
      call(*args, **kwargs)
    message = str(caught.exception)
    self.assertNotIn('\n', message)
    return message

  def test_length(self):
    ids, _ = self.llama.training(CAPTION, QUESTION, first_frames(8), ANSWER)
    for length in (len(ids), len(ids) - 1):
      tokenizer = PromptTokenizer(
        self.llama_folder, 'vicuna_v1', 4, max_length=length
      )
      if length == len(ids):
        tokenizer.training(CAPTION, QUESTION, first_frames(8), ANSWER)
      else:
        message = self._message(
          tokenizer.training,
          CAPTION,
          QUESTION,
          first_frames(8),
          ANSWER,
          where='a.json x',
        )
        self.assertStartsWith(message, f'a.json x: {len(ids)} tokens, 32 of')
        message = self._message(
          tokenizer.inference, CAPTION * 9, QUESTION, first_frames(8)
        )
        self.assertStartsWith(message, f"caption '{CAPTION}")

  @parameterized.parameters('<image>', '</s>', '<s>', '<unk>')
  def test_special_tokens_in_texts(self, mark):
    text, frames = f'A {mark} cat.', first_frames(1)
    for name, args in (
      ('caption', (text, QUESTION, frames, ANSWER)),
      ('question', (CAPTION, text, frames, ANSWER)),
      ('answer', (CAPTION, QUESTION, frames, text)),
    ):
      message = self._message(self.llama.training, *args, where='r 1')
      self.assertStartsWith(message, f'r 1: the {name} contains {mark!r}')
      if name != 'answer':
        self.assertIn(name, self._message(self.llama.inference, *args[:3]))

  def test_folders(self):
    empty = self.root / 'nothing'
    message = self._message(PromptTokenizer, empty, 'vicuna_v1', 4)
    self.assertStartsWith(message, f'{empty / "tokenizer.model"}: ')
    folder = self._copy('llm')
    for content in (b'', b'no model'):
      (folder / 'tokenizer.model').write_bytes(content)
      message = self._message(PromptTokenizer, folder, 'vicuna_v1', 4)
      self.assertIn('not a SentencePiece model', message)

  def test_another_models_template(self):
    message = self._message(PromptTokenizer, self.llama_folder, 'hermes-2', 4)
    self.assertIn('no token <|im_end|>, <|im_start|> in', message)
    self._message(PromptTokenizer, self.llama_folder, 'vicuna', 4)

  def test_numbers(self):
    self._message(PromptTokenizer, self.llama_folder, 'vicuna_v1', 0)

  @parameterized.parameters(
    ('{', 'not readable as JSON'),
    ('[]', 'not a JSON object'),
    ('{"add_eos_token": true}', 'add_eos_token'),
    ('{"bos_token": null}', 'bos_token is null'),
    ('{"bos_token": 3}', 'neither a text nor'),
    ('{"eos_token": {"lstrip": true}}', 'neither a text nor'),
    ('{"added_tokens_decoder": {"x": "<y>"}}', 'neither a text nor'),
    ('{"eos_token": {"content": "</s>", "rstrip": true}}', 'white space'),
    ('{"pad_token": "[PAD]"}', r'no token \[PAD\]'),
  )
  def test_configs(self, text, reason):
    folder = self._copy('llm')
    (folder / 'tokenizer_config.json').write_text(text)
    message = self._message(PromptTokenizer, folder, 'vicuna_v1', 4)
    self.assertRegex(message, reason)
    self.assertStartsWith(message, str(folder))

  def test_names_in_another_file(self):
    folder = self._copy('llm', {'add_bos_token': True})
    self._write(folder, {'pad_token': '[PAD]'}, 'special_tokens_map.json')
    self._write(folder, {'[PAD]': 480}, 'added_tokens.json')
    tokenizer = PromptTokenizer(folder, 'vicuna_v1', 4)
    message = self._message(
      tokenizer.inference, 'A [PAD] cat.', QUESTION, first_frames(1)
    )
    self.assertIn("contains '[PAD]', a special token", message)

  def test_padding_token_beyond_the_vocabulary(self):
    """No sequence has it: padding is masked, and may be any other token."""
    folder = self._copy('llm', {'pad_token': '[PAD]'})
    self._write(folder, {'[PAD]': 480}, 'added_tokens.json')
    tokenizer = PromptTokenizer(folder, 'vicuna_v1', 4)
    self.assertEqual((tokenizer.pad_id, tokenizer.vocab_size), (UNK, 480))

  def test_byte_order_mark(self):
    folder = self._copy('llm')
    (folder / 'tokenizer_config.json').write_bytes(
      b'\xef\xbb\xbf{"add_bos_token": false}'
    )
    self.assertIsNone(PromptTokenizer(folder, 'vicuna_v1', 4).bos_id)

  def test_tokenizer_that_deletes_spaces(self):
    folder = self.root / f'spaces{id(self)}'
    _train(folder, remove_extra_whitespaces=True)
    message = self._message(PromptTokenizer, folder, 'vicuna_v1', 4)
    self.assertIn('deletes white space', message)


class DecodeTest(TokensTest):
  @parameterized.parameters('llama', 'yi')
  def test_answer(self, name):
    tokenizer = getattr(self, name)
    for text in (ANSWER, 'Good. 猫 sleeps,\nwell.'):
      ids, is_target = tokenizer.training(
        CAPTION, QUESTION, first_frames(1), text
      )
      answer = ids[is_target.index(True) :]
      self.assertEqual(tokenizer.decode(answer), text)
      self.assertEqual(tokenizer.decode(answer[:-1]), text)
      # Tokens after the end, while others of the batch continue.
      self.assertEqual(tokenizer.decode([*answer, *answer, 0]), text)
    self.assertEqual(tokenizer.decode([]), '')

  def test_unknown_id(self):
    with self.assertRaisesRegex(errors.UserError, 'token 9999 is not'):
      self.llama.decode([300, 9999])


class LabelTest(TokensTest):
  def test_labels_are_those_of_the_feedback(self):
    self.assertEqual(critic_tokens.LABELS, hra.LABELS)

  def test_llama(self):
    """With the space before an answer."""
    expected = {
      label: self.pieces.piece_to_id('\u2581' + label) for label in hra.LABELS
    }
    self.assertNotIn(UNK, expected.values())
    self.assertEqual(critic_tokens.label_ids(self.llama), expected)
    self.assertEqual(
      critic_tokens.label_tokens(self.llama),
      {label: [index] for label, index in expected.items()},
    )

  def test_hermes(self):
    """Without it: after a newline."""
    found = critic_tokens.label_tokens(self.yi)
    for label, ids in found.items():
      pieces = [self.yi._pieces.id_to_piece(index) for index in ids]
      self.assertEqual(''.join(pieces), label)
      self.assertEqual(critic_tokens.label_ids(self.yi)[label], ids[0])

  def test_same_first_token(self):
    """A character tokenizer: every answer begins with a space."""
    folder = self.root / f'letters{id(self)}'
    _train(folder, model_type='char')
    tokenizer = PromptTokenizer(folder, 'vicuna_v1', 4)
    lengths = [
      len(ids) for ids in critic_tokens.label_tokens(tokenizer).values()
    ]
    self.assertEqual(lengths, [5, 7, 4])
    with self.assertRaisesRegex(errors.UserError, 'are not distinct'):
      critic_tokens.label_ids(tokenizer)

  def test_token_with_full_stop(self):
    folder = self.root / f'stop{id(self)}'
    _train(folder, user_defined_symbols='Bad.')
    tokenizer = PromptTokenizer(folder, 'vicuna_v1', 4)
    with self.assertRaisesRegex(errors.UserError, "'Bad' and the start of"):
      critic_tokens.label_ids(tokenizer)


class DefaultTemplateTest(TokensTest):
  def test_special_tokens_decide(self):
    self.assertEqual(default_template(self.llama_folder), 'vicuna_v1')
    self.assertEqual(default_template(self.yi_folder), 'hermes-2')


class SharedPrefixTest(TokensTest):
  @parameterized.parameters(
    ([[1, 2, 3, 4], [1, 2, 5, 4]], 2),
    ([[1, 2, 3], [1, 2, 3]], 2),
    ([[1, 2], [1, 2, 3, 4], [1, 2, 3]], 1),
    ([[1, 2], [3, 2]], 0),
    ([[7]], 0),
    ([[7, 8, 9]], 2),
  )
  def test_prompts(self, prompts, expected):
    self.assertEqual(critic_tokens.shared_prefix(prompts), expected)

  def test_questions_of_one_video(self):
    questions = hra.read_questions(critic_tokens.questions_path()).values()
    prompts = [
      self.llama.inference(CAPTION, text, first_frames(8)) for text in questions
    ]
    shared = critic_tokens.shared_prefix(prompts)
    # All up to the question, which begins a word of its own.
    message = prompt.user_message(CAPTION, '', 8, space_before_caption=False)
    text = prompt.render(prompt.VICUNA_V1, message)
    before = self.llama._ids(text.removesuffix(' ASSISTANT:'))
    self.assertGreaterEqual(shared, len(before))
    self.assertEqual(prompts[0][: len(before)], before)
    self.assertLess(shared, min(map(len, prompts)) - 10)
