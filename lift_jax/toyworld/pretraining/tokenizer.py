"""Word-level tokenizer for captions of the toy world.

Its vocabulary is that of the captions; other words are `<unk>`. Like T5's
tokenizer, it pads with token 0 and ends every text with token 1.
"""

import pathlib
import re

from lift_jax.toyworld import scenes

_SPECIAL = ('<pad>', '</s>', '<unk>')

# Tokens of the longest caption, with its end token.
MAX_LENGTH = 16


def words() -> tuple[str, ...]:
  """Every word and punctuation mark of the captions, sorted."""
  captions = ' '.join(scene.caption for scene in scenes.all_scenes())
  return tuple(sorted(set(re.findall(r'\w+|[^\w\s]', captions.lower()))))


def vocabulary_size() -> int:
  return len(_SPECIAL) + len(words())


def write(folder: pathlib.Path) -> None:
  """Writes tokenizer.json and tokenizer_config.json for transformers."""
  # Imported here, as transformers takes seconds to import.
  import tokenizers
  from tokenizers import models, normalizers, pre_tokenizers, processors
  from transformers import PreTrainedTokenizerFast

  pad, end, unknown = _SPECIAL
  ids = {token: index for index, token in enumerate((*_SPECIAL, *words()))}
  tokenizer = tokenizers.Tokenizer(models.WordLevel(ids, unk_token=unknown))
  tokenizer.normalizer = normalizers.Lowercase()
  tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()
  tokenizer.post_processor = processors.TemplateProcessing(
    single=f'$A {end}', special_tokens=[(end, ids[end])]
  )
  PreTrainedTokenizerFast(
    tokenizer_object=tokenizer, pad_token=pad, eos_token=end, unk_token=unknown
  ).save_pretrained(folder)
