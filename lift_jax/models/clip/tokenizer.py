"""Tokenises texts for CLIP, by the tokenizer in its folder."""

from collections.abc import Callable, Sequence
import pathlib
from typing import Any

import numpy as np

from lift_jax.errors import UserError
from lift_jax.runtime import storage

# A folder has the first, the others, or all.
_FILES = ('tokenizer.json', 'vocab.json', 'merges.txt')

# From a text to its ids, the first and the last token included.
Tokenizer = Callable[[str], list[int]]


def load_tokenizer(folder: pathlib.Path) -> Tokenizer:
  """Loads the tokenizer of a CLIP folder through transformers.

  Nothing is downloaded, and no code in the folder is run.

  Raises:
    UserError: the folder has no tokenizer of CLIP.
  """
  # transformers takes seconds to import.
  from transformers import AutoTokenizer

  remedy = f'copy {", ".join(_FILES)} from the published folder'
  # Without them transformers makes a tokenizer that knows no word.
  if not any(
    all((folder / name).is_file() for name in names)
    for names in (_FILES[:1], _FILES[1:])
  ):
    raise UserError(f'{folder}: no tokenizer; {remedy}')
  try:
    with storage.local_folder(folder) as local:
      tokenizer: Any = AutoTokenizer.from_pretrained(
        str(local), local_files_only=True, trust_remote_code=False
      )
  # Each tokenizer parser raises its own kinds of errors.
  except Exception as error:
    reason = str(error).strip().split('\n')[0] or type(error).__name__
    raise UserError(f'{folder}: no tokenizer ({reason}); {remedy}') from error

  def encode(text: str) -> list[int]:
    # `tokenize` truncates; `verbose` would warn about it.
    return tokenizer(text, truncation=False, verbose=False).input_ids

  if encode('') != [tokenizer.bos_token_id, tokenizer.eos_token_id]:
    raise UserError(
      f'{folder}: its tokenizer does not put a text between a first and a last '
      f'token, as that of CLIP; {remedy}'
    )
  return encode


def tokenize(
  encode: Tokenizer, texts: Sequence[str], max_length: int, vocab_size: int
) -> tuple[np.ndarray, np.ndarray]:
  """Token ids of texts, padded or truncated, and their lengths.

  Truncation keeps the last token.

  Args:
    encode: from `load_tokenizer`.
    texts: B texts.
    max_length: in tokens, including the first and the last.
    vocab_size: of the text encoder.

  Returns:
    int32 [B, max_length], and int32 [B].

  Raises:
    UserError: a token is not in the vocabulary of the text encoder.
  """
  ids_bn = np.zeros((len(texts), max_length), np.int32)
  length_b = np.zeros(len(texts), np.int32)
  for slot, text in enumerate(texts):
    ids = encode(text)
    if len(ids) > max_length:
      ids = [*ids[: max_length - 1], ids[-1]]
    if max(ids) >= vocab_size:
      raise UserError(
        f'{text[:40]!r} has token {max(ids)}, but the text encoder has only '
        f'{vocab_size}; use the tokenizer that was published with it'
      )
    ids_bn[slot, : len(ids)], length_b[slot] = ids, len(ids)
  return ids_bn, length_b
