"""Small Llama-like tokenizers, for tiny and randomly initialised critics."""

from collections.abc import Iterable
import io
import json
import pathlib
import re

import sentencepiece

from lift_jax.models.critic_tokens import LABELS, questions_path
from lift_jax.models.vila import prompt

# Every byte is a token, so that any text can be encoded; the others are learned
# from the texts below.
VOCAB_SIZE = 512

# Repetitions of texts whose words must become one token each.
_REPETITIONS = 50


def write(
  folder: pathlib.Path,
  texts: Iterable[str] = (),
  vocab_size: int = VOCAB_SIZE,
  template: prompt.Template = prompt.VICUNA_V1,
) -> None:
  """Writes tokenizer.model and tokenizer_config.json.

  The tokenizer is trained on the critic's prompts; it is deterministic.

  Args:
    folder: the folder to write to.
    texts: their words become one token each, if the vocabulary is large enough;
      the intermediate merges of a word are tokens, too.
    vocab_size: number of tokens at most.
    template: prompt template; others with special tokens are not supported by
      the result.
  """
  folder.mkdir(parents=True, exist_ok=True)
  words = dict.fromkeys(
    word for text in texts for word in re.findall(r'\w+', text)
  )
  # In memory, as SentencePiece would store the path in the file.
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter([*_own_texts(template), *words, *words]),
    model_writer=model,
    model_type='bpe',
    vocab_size=vocab_size,
    hard_vocab_limit=False,
    byte_fallback=True,
    character_coverage=1.0,
    normalization_rule_name='identity',
    remove_extra_whitespaces=False,
    allow_whitespace_only_pieces=True,
    control_symbols=[
      token for token in template.special_tokens if token != '</s>'
    ],
    user_defined_symbols=_line_breaks(template),
    num_threads=1,
    minloglevel=2,
  )
  (folder / 'tokenizer.model').write_bytes(model.getvalue())
  (folder / 'tokenizer_config.json').write_text(
    json.dumps(
      {
        'tokenizer_class': 'LlamaTokenizer',
        'bos_token': '<s>',
        'eos_token': '</s>',
        'unk_token': '<unk>',
        'add_bos_token': True,
        'add_eos_token': False,
        'legacy': False,
      },
      indent=1,
    )
    + '\n'
  )


def _line_breaks(template: prompt.Template) -> list[str]:
  """Line breaks as tokens of their own.

  If an answer begins on a new line, no token may be part of both the answer and
  the prompt. A line break after a frame, which is preceded by a space, is one
  token, too.
  """
  return ['\u2581\n', '\n'] if template.assistant.endswith('\n') else []


def _own_texts(template: prompt.Template) -> list[str]:
  """Texts that the prompts of all critics consist of."""
  questions = json.loads(questions_path().read_text(encoding='utf-8'))
  texts = [prompt.VICUNA_V1.system, 'USER: ASSISTANT:']
  texts += list(questions['questions'].values())
  # Repeated, so that labels become tokens of their own.
  texts += [
    f'ASSISTANT: {label}.' for label in LABELS for _ in range(_REPETITIONS)
  ]
  if template != prompt.VICUNA_V1:
    # Likewise the words of the template, and labels at the start of an answer.
    lines = [template.system, template.user, template.assistant]
    lines += [f'{template.assistant}{label}.' for label in LABELS]
    for token in template.special_tokens:
      lines = [line.replace(token, '\n') for line in lines]
    texts += lines * _REPETITIONS
  return texts
