"""Small Qwen-like tokenizers, for tiny and randomly initialised critics."""

import json
import pathlib

from lift_jax.models.critic_tokens import LABELS, questions_path
from lift_jax.models.qwen3vl import prompt

# Every byte is a token, so that any text can be encoded; the others are learned
# from the texts below.
VOCAB_SIZE = 512
# Special tokens are the first.
VIDEO_ID = prompt.SPECIAL_TOKENS.index(prompt.VIDEO)

# Repetitions of texts whose words must become one token each.
_REPETITIONS = 50


def write(folder: pathlib.Path) -> None:
  """Writes tokenizer.json and tokenizer_config.json, the same each time."""
  # Imported here, as transformers takes seconds to import.
  from tokenizers import pre_tokenizers, trainers
  from transformers import PreTrainedTokenizerFast, Qwen2Tokenizer

  tokenizer = Qwen2Tokenizer().backend_tokenizer
  tokenizer.train_from_iterator(
    _texts(),
    trainers.BpeTrainer(
      vocab_size=VOCAB_SIZE,
      special_tokens=list(prompt.SPECIAL_TOKENS),
      initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
      show_progress=False,
    ),
  )
  PreTrainedTokenizerFast(
    tokenizer_object=tokenizer,
    eos_token=prompt.END,
    pad_token=prompt.END_OF_TEXT,
  ).save_pretrained(folder)


def _texts() -> list[str]:
  """Texts that the prompts and answers of all critics consist of."""
  questions = json.loads(questions_path().read_text(encoding='utf-8'))
  words = ['user\n', 'assistant\n', '<0.4 seconds>']
  words += [f'{label}.' for label in LABELS]
  return [*questions['questions'].values(), *(words * _REPETITIONS)]
