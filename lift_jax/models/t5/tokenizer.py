"""Tokenises captions for the text encoder."""

from collections.abc import Sequence
import pathlib
from typing import Any

import numpy as np

from lift_jax import errors


def load_tokenizer(folder: str | pathlib.Path) -> Any:
  """Loads the tokenizer in a local folder, through transformers.

  Nothing is downloaded, and no code in the folder is run.

  Raises:
    UserError: transformers cannot read a tokenizer there, or it does not end
      every text with an end token, as T5's do.
  """
  # transformers takes seconds to import.
  from transformers import AutoTokenizer

  folder = pathlib.Path(folder)
  if not folder.is_dir():
    # transformers would look for the name on its hub.
    raise errors.UserError(
      f'{folder}: no such folder; give the tokenizer folder of the'
      ' text-to-video model'
    )
  try:
    tokenizer: Any = AutoTokenizer.from_pretrained(
      str(folder), local_files_only=True, trust_remote_code=False
    )
  # Each tokenizer parser raises its own kinds of errors.
  except Exception as error:
    reason = str(error).strip().split('\n')[0] or type(error).__name__
    raise errors.UserError(
      f'{folder}: not a tokenizer ({reason}); give the tokenizer folder of'
      ' the text-to-video model'
    ) from error
  if tokenizer.pad_token_id is None or (
    tokenizer('').input_ids != [tokenizer.eos_token_id]
  ):
    raise errors.UserError(
      f'{folder}: this tokenizer does not end a text with one end token, or'
      ' has no padding token; give the T5 tokenizer folder of the'
      ' text-to-video model'
    )
  return tokenizer


def tokenize(
  tokenizer: Any, captions: Sequence[str], max_length: int
) -> tuple[np.ndarray, list[bool]]:
  """Token ids of captions, padded or truncated to one length.

  Truncation keeps the end token.

  Args:
    tokenizer: from `load_tokenizer`.
    captions: B texts; '' is the negative prompt.
    max_length: in tokens, including the end token.

  Returns:
    int32 [B, max_length], and for each caption whether it was truncated.
  """
  assert max_length > 0
  ids = np.full((len(captions), max_length), tokenizer.pad_token_id, np.int32)
  truncated = []
  for ids_n, caption in zip(ids, captions, strict=True):
    # Truncated here, as transformers does not report truncation; `verbose`
    # would warn about lengths that are about to be truncated.
    tokens = tokenizer(caption, truncation=False, verbose=False).input_ids
    truncated.append(len(tokens) > max_length)
    if truncated[-1]:
      tokens = [*tokens[: max_length - 1], tokenizer.eos_token_id]
    ids_n[: len(tokens)] = tokens
  return ids, truncated
