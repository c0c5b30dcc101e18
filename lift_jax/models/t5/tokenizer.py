"""Tokenises captions for the text encoder.

CogVideoX was trained with the slow T5Tokenizer of transformers 4, a wrapper
around SentencePiece, which transformers 5 replaced by a tokenizer that
normalises decomposed Unicode otherwise. So a `spiece.model` is read by
SentencePiece itself, and this module reimplements the wrapper: a text is split
at special tokens, each part is encoded, and the end token appended.

A folder without `spiece.model` is read by transformers.
"""

from collections.abc import Callable, Sequence
import dataclasses
import pathlib
import re
from typing import Any

import numpy as np

from lift_jax import errors
from lift_jax.models import sentencepiece_files
from lift_jax.runtime import storage

_MODEL = 'spiece.model'

# Values of `tokenizer_class`; other classes have a file of this name, too.
_T5_CLASSES = ('T5Tokenizer', 'T5TokenizerFast')

# Defaults of T5Tokenizer: names of tokens, and the number of sentinels that
# follow the vocabulary.
_TOKENS = {'eos_token': '</s>', 'pad_token': '<pad>', 'unk_token': '<unk>'}
_OPTIONS = {'tokenizer_class': _T5_CLASSES[0], 'extra_ids': 100}


@dataclasses.dataclass(frozen=True)
class Tokenizer:
  """A tokenizer that ends every text with one end token.

  Attributes:
    encode: the ids of a text, the end token included.
    pad_id: padding token.
    eos_id: end token.
  """

  encode: Callable[[str], list[int]]
  pad_id: int
  eos_id: int


def load_tokenizer(folder: str | pathlib.Path) -> Tokenizer:
  """Loads the tokenizer in a local folder.

  Nothing is downloaded, and no code in the folder is run.

  Raises:
    UserError: there is no tokenizer, or it does not end every text with an end
      token, as T5's do.
  """
  folder = storage.to_path(folder)
  if not folder.is_dir():
    # transformers would look for the name on its hub.
    raise errors.UserError(
      f'{folder}: no such folder; give the tokenizer folder of the'
      ' text-to-video model'
    )
  if (folder / _MODEL).is_file():
    config = _OPTIONS | sentencepiece_files.read_config(folder, _TOKENS)
    if config['tokenizer_class'] in _T5_CLASSES:
      return _load_sentencepiece(folder, config)
  return _load_auto(folder)


def _load_sentencepiece(
  folder: pathlib.Path, config: dict[str, Any]
) -> Tokenizer:
  pieces = sentencepiece_files.load_pieces(folder / _MODEL)
  num_extra, num_pieces = config['extra_ids'], pieces.get_piece_size()
  if type(num_extra) is not int or num_extra < 0:
    raise errors.UserError(
      f'{folder / sentencepiece_files.CONFIG}: extra_ids is {num_extra!r}; '
      'give the number of sentinel tokens, 100 in published models'
    )
  # The first sentinel is the last token.
  sentinels = {
    f'<extra_id_{index}>': num_pieces + num_extra - 1 - index
    for index in range(num_extra)
  }
  ids = sentencepiece_files.special_ids(
    folder,
    config,
    pieces,
    tuple(_TOKENS),
    known=sentinels,
    remedy='copy the tokenizer from the published model again',
  )
  # Longest first, as one may be a prefix of another.
  names = sorted(ids, key=len, reverse=True)
  special = re.compile(f'({"|".join(map(re.escape, names))})')
  pad_id, eos_id = (
    ids[sentencepiece_files.token_text(config[key])]
    for key in ('pad_token', 'eos_token')
  )

  def encode(text: str) -> list[int]:
    tokens = []
    for index, part in enumerate(special.split(text)):
      # Every other part is a special token.
      tokens += [ids[part]] if index % 2 else pieces.encode(part)
    # A text that ends with the end token does not get another.
    return tokens if tokens[-1:] == [eos_id] else [*tokens, eos_id]

  return Tokenizer(encode, pad_id, eos_id)


def _load_auto(folder: pathlib.Path) -> Tokenizer:
  """Loads it through transformers."""
  # transformers takes seconds to import.
  from transformers import AutoTokenizer

  try:
    with storage.local_folder(folder) as local:
      tokenizer: Any = AutoTokenizer.from_pretrained(
        str(local), local_files_only=True, trust_remote_code=False
      )
  # Each tokenizer parser raises its own kinds of errors.
  except Exception as error:
    reason = str(error).strip().split('\n')[0] or type(error).__name__
    raise errors.UserError(
      f'{folder}: not a tokenizer ({reason}); give the tokenizer folder of'
      ' the text-to-video model'
    ) from error

  def encode(text: str) -> list[int]:
    # `tokenize` truncates, as transformers does not report truncation;
    # `verbose` would warn about lengths that are about to be truncated.
    return tokenizer(text, truncation=False, verbose=False).input_ids

  if tokenizer.pad_token_id is None or encode('') != [tokenizer.eos_token_id]:
    raise errors.UserError(
      f'{folder}: this tokenizer does not end a text with one end token, or'
      ' has no padding token; give the T5 tokenizer folder of the'
      ' text-to-video model'
    )
  return Tokenizer(encode, tokenizer.pad_token_id, tokenizer.eos_token_id)


def tokenize(
  tokenizer: Tokenizer,
  captions: Sequence[str],
  max_length: int,
  vocab_size: int,
) -> tuple[np.ndarray, list[bool]]:
  """Token ids of captions, padded or truncated to one length.

  Truncation keeps the end token.

  Args:
    tokenizer: from `load_tokenizer`.
    captions: B texts; '' is the negative prompt.
    max_length: in tokens, including the end token.
    vocab_size: of the text encoder.

  Returns:
    int32 [B, max_length], and for each caption whether it was truncated.

  Raises:
    UserError: a token is not in the vocabulary of the text encoder.
  """
  assert max_length > 0
  ids = np.full((len(captions), max_length), tokenizer.pad_id, np.int32)
  truncated = []
  for ids_n, caption in zip(ids, captions, strict=True):
    tokens = tokenizer.encode(caption)
    truncated.append(len(tokens) > max_length)
    if truncated[-1]:
      tokens = [*tokens[: max_length - 1], tokenizer.eos_id]
    ids_n[: len(tokens)] = tokens
    # A token without a row in the embedding is harmless until a caption has it.
    if (largest := ids_n.max()) >= vocab_size:
      raise errors.UserError(
        f'caption {caption[:40]!r} has token {largest}, but the text encoder '
        f'has only {vocab_size}; use the tokenizer that was published with it'
      )
  return ids, truncated
