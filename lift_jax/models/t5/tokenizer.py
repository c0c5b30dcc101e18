"""Captions to token ids, as the text encoder was trained on them."""

from collections.abc import Sequence
import pathlib
from typing import Any

import numpy as np

from lift_jax import errors


def load_tokenizer(folder: str | pathlib.Path) -> Any:
  """The tokenizer saved in a local folder, through transformers.

  Nothing is fetched from a network, and no code that the folder may hold is
  run.

  Raises:
    UserError: the folder holds no tokenizer that transformers can read, or
      one that does not end every text, as T5's do.
  """
  # transformers takes seconds to import.
  from transformers import AutoTokenizer

  folder = pathlib.Path(folder)
  if not folder.is_dir():
    # transformers would take the name for one on its hub.
    raise errors.UserError(
      f'{folder}: no such folder; give the tokenizer folder of the'
      ' text-to-video model'
    )
  try:
    tokenizer = AutoTokenizer.from_pretrained(
      str(folder), local_files_only=True, trust_remote_code=False
    )
  # A tokenizer file can be wrong in as many ways as there are parsers of it.
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
  """Ids of captions, padded or cut to one length.

  A caption that is too long loses its last tokens, never its end token.

  Args:
    tokenizer: from `load_tokenizer`.
    captions: B texts; '' is the negative prompt.
    max_length: tokens of each row, the end token included.

  Returns:
    int32 [B, max_length], and for each caption whether it was cut.
  """
  assert max_length > 0
  ids = np.full((len(captions), max_length), tokenizer.pad_token_id, np.int32)
  truncated = []
  for row, caption in zip(ids, captions, strict=True):
    # Cut here and not by transformers, which does not say what it cut;
    # `verbose` would warn of a length that is about to be cut.
    tokens = tokenizer(caption, truncation=False, verbose=False).input_ids
    truncated.append(len(tokens) > max_length)
    if truncated[-1]:
      tokens = [*tokens[: max_length - 1], tokenizer.eos_token_id]
    row[: len(tokens)] = tokens
  return ids, truncated
