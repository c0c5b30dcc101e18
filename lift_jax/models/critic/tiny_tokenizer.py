"""A small Llama-like tokenizer, for critics that are not pretrained."""

import io
import json
import pathlib

import sentencepiece

from lift_jax.models.critic import prompt
from lift_jax.models.critic.tokens import LABELS

# Every byte is a token, so that any text can be said; the rest are pieces of
# the texts below.
_VOCAB_SIZE = 512


def write(folder: pathlib.Path) -> None:
  """Writes tokenizer.model and tokenizer_config.json.

  It is trained on the critic's own prompts: the same text gives the same file.
  """
  folder.mkdir(parents=True, exist_ok=True)
  questions = json.loads(prompt.questions_path().read_text(encoding='utf-8'))
  texts = [prompt.VICUNA_V1.system, 'USER: ASSISTANT:']
  texts += list(questions['questions'].values())
  # The labels often enough to become tokens of their own.
  texts += [f'ASSISTANT: {label}.' for label in LABELS for _ in range(50)]
  # Written by us: SentencePiece would note the path in the file.
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(texts),
    model_writer=model,
    model_type='bpe',
    vocab_size=_VOCAB_SIZE,
    hard_vocab_limit=False,
    byte_fallback=True,
    character_coverage=1.0,
    normalization_rule_name='identity',
    remove_extra_whitespaces=False,
    allow_whitespace_only_pieces=True,
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
