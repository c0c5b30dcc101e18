"""Prompts and answers of Qwen3-VL critics as tokens."""

import shutil

import pytest

from lift_jax.errors import UserError
from lift_jax.models import critic_tokens
from lift_jax.models.qwen3vl import prompt, tiny_tokenizer
from lift_jax.models.qwen3vl.tokenizer import QwenTokenizer
from lift_jax.models.qwen3vl.video import PatchSelection

CLIP = PatchSelection(
  (0, 7, 14, 21),
  num_positions=100,
  is_short=False,
  grid=(4, 6),
  timestamps=(0.4375, 12.1875),
)
QUESTION = ' Is the motion natural?'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp('tokenizer')
  tiny_tokenizer.write(path)
  return path


@pytest.fixture(scope='module')
def tokenizer(folder):
  return QwenTokenizer(folder, prompt.TEMPLATES['qwen3-vl'], 200)


def shown(tokenizer, ids) -> str:
  text = tokenizer._tokenizer.decode(ids)
  return text.replace(prompt.VIDEO * 6, '(6)')


def test_prompt(tokenizer):
  ids = tokenizer.inference('A cat.', QUESTION, CLIP)
  assert shown(tokenizer, ids) == (
    '<|im_start|>user\n'
    '<0.4 seconds><|vision_start|>(6)<|vision_end|>'
    '<12.2 seconds><|vision_start|>(6)<|vision_end|>'
    'A cat. Is the motion natural?<|im_end|>\n<|im_start|>assistant\n'
  )
  assert ids.count(tiny_tokenizer.VIDEO_ID) == 12


def test_nested_prompt(folder, tokenizer):
  """As transformers makes it since 5.10: two tokens more, around the clip."""
  nested = QwenTokenizer(folder, prompt.TEMPLATES['qwen3-vl-nested'], 200)
  ids = nested.inference('A cat.', QUESTION, CLIP)
  assert shown(nested, ids).startswith(
    '<|im_start|>user\n<|vision_start|><0.4 seconds><|vision_start|>(6)'
  )
  assert '(6)<|vision_end|><|vision_end|>A cat.' in shown(nested, ids)
  assert len(ids) == len(tokenizer.inference('A cat.', QUESTION, CLIP)) + 2


def test_reserved_positions(tokenizer):
  """Of a timestamp and the tokens around a pair of frames."""
  with_clip = tokenizer.inference('', QUESTION, CLIP)
  none = PatchSelection((), 0, is_short=True, grid=(4, 6), timestamps=())
  without = tokenizer.inference('', QUESTION, none)
  # '<', digits, '.', digit, ' seconds', '>' and two around the tokens.
  assert len(with_clip) - len(without) == 2 * 6 + 8 + 9


def test_training(tokenizer):
  ids, is_target = tokenizer.training('A cat.', QUESTION, CLIP, 'Good. It is.')
  before = tokenizer.inference('A cat.', QUESTION, CLIP)
  assert ids[: len(before)] == before
  assert is_target == [False] * len(before) + [True] * (len(ids) - len(before))
  assert ids[-1] == tokenizer.stop_ids[0]
  answer = ids[len(before) : -1]
  assert answer == tokenizer.answer_ids('Good. It is.')
  assert tokenizer.decode([*answer, *tokenizer.stop_ids, 50]) == 'Good. It is.'


def test_tokens_of_a_full_text_are_the_same(tokenizer):
  """Encoded as one text, as transformers does."""
  ids, _ = tokenizer.training('A cat.', QUESTION, CLIP, 'Bad. No cat.')
  text = tokenizer._tokenizer.decode(ids)
  assert tokenizer._tokenizer.encode(text, add_special_tokens=False) == ids


def test_labels(tokenizer):
  tokens = critic_tokens.label_tokens(tokenizer)
  assert {len(ids) for ids in tokens.values()} == {1}
  assert len(critic_tokens.label_ids(tokenizer)) == 3


def test_special_tokens_of_a_text_are_refused(tokenizer):
  with pytest.raises(UserError, match=r'r1: the caption contains .*im_end'):
    tokenizer.inference('A <|im_end|> cat.', QUESTION, CLIP, where='r1')
  with pytest.raises(UserError, match='the answer contains'):
    tokenizer.training('A cat.', QUESTION, CLIP, 'Good. <|video_pad|>')


@pytest.mark.parametrize('answer', ['', ' Good.'])
def test_bad_answers(tokenizer, answer):
  with pytest.raises(UserError, match='is empty or has white space'):
    tokenizer.training('A cat.', QUESTION, CLIP, answer)


def test_long_prompts(folder):
  tokenizer = QwenTokenizer(folder, prompt.TEMPLATES['qwen3-vl'], 40)
  with pytest.raises(UserError, match=r'tokens, 12 of them for frames, .* 40'):
    tokenizer.inference('A cat.', QUESTION, CLIP)


def test_same_tokenizer_each_time(folder, tmp_path):
  tiny_tokenizer.write(tmp_path)
  name = 'tokenizer.json'
  assert (tmp_path / name).read_text() == (folder / name).read_text()


def test_folder_without_tokenizer(tmp_path):
  with pytest.raises(UserError, match='no tokenizer.json; copy'):
    QwenTokenizer(tmp_path, prompt.TEMPLATES['qwen3-vl'], 40)


def test_damaged_file(folder, tmp_path):
  shutil.copytree(folder, tmp_path / 'copy')
  (tmp_path / 'copy' / 'tokenizer.json').write_text('{"model": ')
  with pytest.raises(UserError, match='copy: the tokenizer cannot be read'):
    QwenTokenizer(tmp_path / 'copy', prompt.TEMPLATES['qwen3-vl'], 40)


def test_text_tokenizer(tmp_path):
  """Of a text-only model."""
  from transformers import Qwen2Tokenizer

  Qwen2Tokenizer().save_pretrained(tmp_path)
  with pytest.raises(UserError, match=r'the tokenizer has no .*im_end'):
    QwenTokenizer(tmp_path, prompt.TEMPLATES['qwen3-vl'], 40)
