"""Tokenizer for captions of the toy world, with one token per word.

Its vocabulary is that of the grammar; any other word is `<unk>`. Like T5's, it
pads with token 0 and ends every text with token 1.
"""

import pathlib
import re

from lift_jax.toyworld import scenes

_SPECIAL = ('<pad>', '</s>', '<unk>')

# Tokens of the longest caption, including its end.
MAX_LENGTH = 16


def words() -> tuple[str, ...]:
  """All words and punctuation marks of the captions, sorted."""
  captions = ' '.join(scene.caption for scene in scenes.all_scenes())
  return tuple(sorted(set(re.findall(r'\w+|[^\w\s]', captions.lower()))))


def vocabulary_size() -> int:
  return len(_SPECIAL) + len(words())


def write(folder: pathlib.Path) -> None:
  """Writes tokenizer.json and tokenizer_config.json for transformers."""
  # transformers takes seconds to import.
  import tokenizers
  from tokenizers import models, normalizers, pre_tokenizers, processors
  from transformers import PreTrainedTokenizerFast

  pad, end, unknown = _SPECIAL
  ids = {token: number for number, token in enumerate((*_SPECIAL, *words()))}
  tokenizer = tokenizers.Tokenizer(models.WordLevel(ids, unk_token=unknown))
  tokenizer.normalizer = normalizers.Lowercase()
  tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
  tokenizer.post_processor = processors.TemplateProcessing(
    single=f'$A {end}', special_tokens=[(end, ids[end])]
  )
  PreTrainedTokenizerFast(
    tokenizer_object=tokenizer, pad_token=pad, eos_token=end, unk_token=unknown
  ).save_pretrained(folder)
