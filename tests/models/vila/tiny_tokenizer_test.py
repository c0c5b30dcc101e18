"""Tokenizers of random critics: deterministic, and for any text."""

import pytest

from lift_jax.models.critic_tokens import label_ids, label_tokens
from lift_jax.models.vila import prompt, tiny_tokenizer
from lift_jax.models.vila.tokenizer import PromptTokenizer
from tests.models.selections import first_frames


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp('tokenizer') / 'llm'
  tiny_tokenizer.write(path)
  return path


@pytest.fixture(scope='module')
def tokenizer(folder):
  return PromptTokenizer(folder, 'vicuna_v1', 4)


def test_same_files_again(folder, tmp_path):
  tiny_tokenizer.write(tmp_path)
  files = sorted(path.name for path in tmp_path.iterdir())
  assert files == ['tokenizer.model', 'tokenizer_config.json']
  for name in files:
    assert (tmp_path / name).read_bytes() == (folder / name).read_bytes()


def test_special_tokens_are_those_of_llama(tokenizer):
  assert (tokenizer.pad_id, tokenizer.bos_id) == (0, 1)
  assert tokenizer.stop_ids == (2,)


def test_fits_the_smallest_critic(tokenizer):
  assert tokenizer.vocab_size <= 512  # vocab_size of models/tiny.py


def test_labels_are_one_token_each(tokenizer):
  assert {len(ids) for ids in label_tokens(tokenizer).values()} == {1}
  assert len(set(label_ids(tokenizer).values())) == 3


@pytest.mark.parametrize(
  'answer',
  [
    'Good. No obvious problems.',
    'Bad.',
    'Normal. Two  spaces,\na second line\tand a tab.',
    'Bad. Ünïcödé, 中文, a 🦆 and a \u200b.',
  ],
)
def test_any_answer_round_trips(tokenizer, answer):
  ids, is_target = tokenizer.training(
    'Ein Zürcher 🐕.', ' Why?', first_frames(2), answer
  )
  learnt = [i for i, target in zip(ids, is_target, strict=True) if target]
  assert tokenizer.decode(learnt) == answer
  # No character is unknown.
  assert tokenizer.pad_id not in ids


def test_our_prompts_are_short(tokenizer):
  """Words are tokens: bytes would be 5 times as long."""
  system = prompt.VICUNA_V1.system
  ids = tokenizer.inference(system, '', first_frames(0))
  assert len(ids) < len(system)


def test_other_templates(tmp_path):
  """Answers may be on lines of their own, as frames are."""
  tiny_tokenizer.write(tmp_path, template=prompt.HERMES_2)
  tokenizer = PromptTokenizer(tmp_path, 'hermes-2', 4)
  assert {len(ids) for ids in label_tokens(tokenizer).values()} == {1}
  assert len(set(label_ids(tokenizer).values())) == 3
  one, two = (
    tokenizer.inference('A', ' Why?', first_frames(num)) for num in (1, 2)
  )
  assert len(two) - len(one) == 4 + 1


def test_words_of_texts_are_tokens(tmp_path):
  texts = ['A wombat hibernates.', 'Wombats, two of them!']
  tiny_tokenizer.write(tmp_path, texts, 640, prompt.HERMES_2)
  tokenizer = PromptTokenizer(tmp_path, 'hermes-2', 4)
  bare = len(tokenizer.inference('', '', first_frames(0)))
  ids = tokenizer.inference(
    ' A wombat hibernates.', ' Wombats of them!', first_frames(0)
  )
  # The space of the first line is that of its newline.
  assert len(ids) - bare <= 3 + 1 + 3 + 1 + 1
