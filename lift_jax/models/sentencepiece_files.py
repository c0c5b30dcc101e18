"""Files of a SentencePiece tokenizer, as slow tokenizers of transformers have.

  *.model                   the SentencePiece model
  tokenizer_config.json     names of special tokens, and options
  special_tokens_map.json   names of special tokens, up to transformers 4.33
  added_tokens.json         ids of tokens that the model lacks, likewise

Only the first is required.
"""

from collections.abc import Mapping, Sequence
import pathlib
from typing import Any

import sentencepiece

from lift_jax.errors import UserError, listing
from lift_jax.runtime.files import read_json

CONFIG = 'tokenizer_config.json'
NAMES = 'special_tokens_map.json'
ADDED = 'added_tokens.json'


def load_pieces(
  path: pathlib.Path, overrides: bytes = b''
) -> sentencepiece.SentencePieceProcessor:
  """Loads a SentencePiece model.

  Args:
    path: of the file.
    overrides: appended to it: in a protocol buffer, later values of a field
      override earlier ones.

  Raises:
    UserError: the file is missing or of another kind.
  """
  try:
    model = path.read_bytes()
  except OSError as error:
    raise UserError(
      f'{path}: {error.strerror}; copy the file from the published model'
    ) from None
  try:
    pieces = sentencepiece.SentencePieceProcessor(model_proto=model + overrides)
    num_pieces = pieces.get_piece_size()
  except (RuntimeError, ValueError):
    pieces, num_pieces = None, 0
  if pieces is None or not num_pieces:
    raise UserError(
      f'{path}: not a SentencePiece model; copy the file from the published '
      'model again'
    )
  return pieces


def read_config(
  folder: pathlib.Path, defaults: Mapping[str, str]
) -> dict[str, Any]:
  """The content of tokenizer_config.json.

  Args:
    folder: of the tokenizer.
    defaults: names of the required special tokens, by key.

  Raises:
    UserError: a file is not JSON, or a required token has no name.
  """
  config = {**defaults, **_read(folder / NAMES), **_read(folder / CONFIG)}
  for key in defaults:
    if config[key] is None:
      raise UserError(
        f'{folder / CONFIG}: {key} is null; set it to the name of the token'
      )
  return config


def special_ids(
  folder: pathlib.Path,
  config: Mapping[str, Any],
  pieces: sentencepiece.SentencePieceProcessor,
  keys: Sequence[str],
  *,
  known: Mapping[str, int] | None = None,
  wanted: Sequence[str] = (),
  remedy: str,
) -> dict[str, int]:
  """The ids of special tokens: added ones, and those that the config names.

  Args:
    folder: of the tokenizer.
    config: from `read_config`.
    pieces: from `load_pieces`.
    keys: of tokens in the config.
    known: ids of more tokens, by name.
    wanted: names of tokens that must be there too.
    remedy: what the error about a token without id recommends.

  Raises:
    UserError: a token has no name or no id.
  """
  try:
    texts = [token_text(config[key]) for key in keys]
    texts += map(token_text, config.get('additional_special_tokens') or ())
  except (KeyError, TypeError, ValueError):
    raise _bad_token(folder) from None
  ids = {**(known or {}), **_added_ids(folder, config)}
  names = dict.fromkeys([*ids, *texts, *wanted])
  for name in names:
    index = pieces.piece_to_id(name)
    # An unknown name has the id of the unknown token.
    if name not in ids and pieces.id_to_piece(index) == name:
      ids[name] = index
  if missing := names.keys() - ids:
    raise UserError(
      f'{folder}: no token {listing(missing)} in its SentencePiece model or '
      f'{CONFIG}; {remedy}'
    )
  return ids


def _added_ids(
  folder: pathlib.Path, config: Mapping[str, Any]
) -> dict[str, int]:
  """Ids of the tokens that the files add to the model, by name."""
  try:
    ids = {name: int(index) for name, index in _read(folder / ADDED).items()}
    added = config.get('added_tokens_decoder') or {}
    return ids | {token_text(token): int(i) for i, token in added.items()}
  except (AttributeError, KeyError, TypeError, ValueError):
    raise _bad_token(folder) from None


def token_text(token: Any) -> str:
  """The text of a token, which may be an object with its properties.

  Raises:
    KeyError, TypeError, ValueError: it has none.
  """
  text = token if isinstance(token, str) else token['content']
  if not isinstance(text, str) or not text:
    raise ValueError(text)
  return text


def _bad_token(folder: pathlib.Path) -> UserError:
  return UserError(
    f'{folder / CONFIG}: a special token is neither a text nor an object with '
    '"content"; copy the file from the published model again'
  )


def _read(path: pathlib.Path) -> dict[str, Any]:
  """A JSON object; an empty one if there is no such file."""
  return read_json(path) if path.exists() else {}
