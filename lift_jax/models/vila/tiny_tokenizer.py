"""A small Llama-like tokenizer, for critics that are not published."""

from collections.abc import Iterable
import io
import json
import pathlib
import re

import sentencepiece

from lift_jax.models.critics import LABELS, questions_path
from lift_jax.models.vila import prompt

# Every byte is a token, so that any text can be said; the rest are pieces of
# the texts below.
VOCAB_SIZE = 512

# How often a text is shown whose words must become one piece each.
_OFTEN = 50


def write(
  folder: pathlib.Path,
  texts: Iterable[str] = (),
  vocab_size: int = VOCAB_SIZE,
  template: prompt.Template = prompt.VICUNA_V1,
) -> None:
  """Writes tokenizer.model and tokenizer_config.json.

  It is trained on the critic's own prompts: the same texts give the same file.

  Args:
    folder: to write to.
    texts: their words become one token each, where there is room; each of the
      intermediate pieces that a word is merged from is a token, too.
    vocab_size: tokens at most.
    template: of the prompts; no other that has tokens of its own can be used.
  """
  folder.mkdir(parents=True, exist_ok=True)
  words = dict.fromkeys(
    word for text in texts for word in re.findall(r'\w+', text)
  )
  # Written by us: SentencePiece would note the path in the file.
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
  """Tokens that are part of no other.

  Where an answer begins on a new line, none may be part of both that and the
  prompt. Then a line break after a frame, which gets a space, is one token.
  """
  return ['\u2581\n', '\n'] if template.assistant.endswith('\n') else []


def _own_texts(template: prompt.Template) -> list[str]:
  """What the prompts of every critic consist of."""
  questions = json.loads(questions_path().read_text(encoding='utf-8'))
  texts = [prompt.VICUNA_V1.system, 'USER: ASSISTANT:']
  texts += list(questions['questions'].values())
  # The labels often enough to become tokens of their own.
  texts += [f'ASSISTANT: {label}.' for label in LABELS for _ in range(_OFTEN)]
  if template != prompt.VICUNA_V1:
    # So, too, the words of the template, and the labels after what it ends on.
    lines = [template.system, template.user, template.assistant]
    lines += [f'{template.assistant}{label}.' for label in LABELS]
    for token in template.special_tokens:
      lines = [line.replace(token, '\n') for line in lines]
    texts += lines * _OFTEN
  return texts
