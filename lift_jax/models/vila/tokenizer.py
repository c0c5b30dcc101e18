"""Tokenizer of VILA critics: prompts and answers to token ids, and back.

Released critics were trained with the slow LlamaTokenizer of transformers 4.37,
applied separately to each text between two frames. It is a wrapper around
SentencePiece, which transformers 5 replaced by a Llama tokenizer that drops a
space at the start of a text. So this module uses SentencePiece directly and
reimplements the wrapper:

* the text is split at special tokens first, then each part is encoded;
* with "legacy", each part is encoded with the options of the SentencePiece
  file, for Llama with a space put before it. Otherwise one space is put before
  the full text, and none before the parts that follow a special token.

With Llama's vocabulary the newline between two frames is [29871, 13]: that
space and the newline.
"""

from collections.abc import Mapping, Sequence
import pathlib
import re
from typing import Any

import sentencepiece

from lift_jax.errors import UserError, listing
from lift_jax.models import sentencepiece_files
from lift_jax.models.critic_protocols import FrameSelection
from lift_jax.models.vila import prompt
from lift_jax.runtime import storage

# Placeholder for an image token, as in LLaVA; not an id of the vocabulary.
IMAGE_TOKEN = -200

# Context length of Vicuna and Yi-34B.
MAX_LENGTH = 4096

_NO_FRAMES = FrameSelection((), num_positions=0, is_short=True)

_MODEL = 'tokenizer.model'

# All files that a tokenizer is read from; only the first is required.
TOKENIZER_FILES = (
  _MODEL,
  sentencepiece_files.CONFIG,
  sentencepiece_files.NAMES,
  sentencepiece_files.ADDED,
)

# Defaults of LlamaTokenizer.
_DEFAULTS = {'bos_token': '<s>', 'eos_token': '</s>', 'unk_token': '<unk>'}

# Turns `add_dummy_prefix` of a SentencePiece file off: field 3 of the protocol
# buffer is normalizer_spec, and its field 3 is this option.
_NO_DUMMY_PREFIX = b'\x1a\x02\x18\x00'


class PromptTokenizer:
  """Tokenizes prompts and answers; see `critic_protocols.Tokenizer`.

  Attributes:
    template: prompt template.
    tokens_per_frame: tokens of a frame.
    max_length: tokens in a sequence at most, frames included.
    bos_id: first token of every sequence; None if the model has none.
    stop_ids: the one token that ends every answer.
    pad_id: padding token, which is masked: the unknown token, as in VILA. A
      padding token of the files may have no row in the embedding.
    vocab_size: one more than the largest id of a sequence.
  """

  def __init__(
    self,
    folder: str | pathlib.Path,
    template: str | prompt.Template,
    tokens_per_frame: int,
    *,
    max_length: int = MAX_LENGTH,
  ):
    """Reads tokenizer.model and tokenizer_config.json of a language model.

    Without a tokenizer_config.json, the special tokens are those of Llama.

    Args:
      folder: of the language model; `llm` in a VILA-1.5 folder.
      template: one of `prompt.TEMPLATES`, or its name.
      tokens_per_frame: 196 for VILA-1.5 13b, 256 for 40b.
      max_length: tokens in a sequence at most.

    Raises:
      UserError: an unknown template, a file that is missing or unlike Llama's,
        or a vocabulary without the template's special tokens.
    """
    folder = storage.to_path(folder)
    if isinstance(template, str):
      template = prompt.get_template(template)
    if tokens_per_frame < 1 or max_length < 1:
      raise UserError(
        f'tokens_per_frame {tokens_per_frame}, max_length {max_length}: give '
        'positive numbers'
      )
    self.template = template
    self.tokens_per_frame = tokens_per_frame
    self.max_length = max_length
    config = _read_config(folder)
    legacy = template.legacy
    if legacy is None:
      # None, too, means the behaviour before this option was introduced.
      legacy = config.get('legacy') is not False
    self._pieces = _load_pieces(folder / _MODEL, legacy)
    self._legacy = legacy
    self._special_ids = _special_ids(
      folder, config, self._pieces, template.special_tokens
    )
    # Longest first, as one may be a prefix of another.
    names = sorted(self._special_ids, key=len, reverse=True)
    self._special = re.compile(f'({"|".join(map(re.escape, names))})')
    self.bos_id = None
    if config.get('add_bos_token', True):
      self.bos_id = self._id_of(config['bos_token'])
    self.stop_ids: tuple[int, ...] = (self._id_of(template.stop),)
    self.pad_id = self._id_of(config['unk_token'])
    # Other special tokens may have any id: texts that contain them are refused.
    used = [self._pieces.get_piece_size() - 1, self.pad_id]
    used += [self._id_of(token) for token in template.special_tokens]
    used += [] if self.bos_id is None else [self.bos_id]
    self.vocab_size = max(used) + 1

  def inference(
    self,
    caption: str,
    question: str,
    frames: FrameSelection,
    *,
    space_before_caption: bool = False,
    where: str = '',
  ) -> list[int]:
    """Token ids of a prompt, up to the start of the answer.

    Args:
      caption: prompt of the video.
      question: appended to the caption; begins with a space.
      frames: selected frames of the video; each becomes `tokens_per_frame`
        times the id `IMAGE_TOKEN`.
      space_before_caption: see `prompt.user_message`; the inference code of
        released critics has no space.
      where: name of the record in errors; by default its caption.

    Raises:
      UserError: a text contains a special token, or the prompt is too long.
    """
    where, num_frames = where or _quote(caption), len(frames.indices)
    self._check_text(where, caption=caption, question=question)
    message = prompt.user_message(
      caption, question, num_frames, space_before_caption=space_before_caption
    )
    ids = self._ids(prompt.render(self.template, message))
    self._check_length(ids, num_frames, where)
    return ids

  def training(
    self,
    caption: str,
    question: str,
    frames: FrameSelection,
    answer: str,
    *,
    space_before_caption: bool = True,
    where: str = '',
  ) -> tuple[list[int], list[bool]]:
    """Token ids of a prompt with its answer and stop token, and loss mask.

    Args:
      caption: as in `inference`.
      question: as in `inference`.
      frames: as in `inference`.
      answer: without leading or trailing white space.
      space_before_caption: see `prompt.user_message`; published feedback has
        it.
      where: as in `inference`.

    Returns:
      The ids, and True for the tokens of the answer and the stop token. The
      other ids are those of `inference`.

    Raises:
      UserError: as in `inference`, or the answer is empty, or a token spans the
        end of the prompt and the start of the answer.
    """
    where, num_frames = where or _quote(caption), len(frames.indices)
    if not answer or answer != answer.strip():
      raise UserError(
        f'{where}: the answer {answer[:40]!r} is empty or has white space '
        'around it; write a label and a rationale'
      )
    self._check_text(where, caption=caption, question=question, answer=answer)
    message = prompt.user_message(
      caption, question, num_frames, space_before_caption=space_before_caption
    )
    # Encoded together, as in training: SentencePiece merges across parts.
    ids = self._ids(prompt.render(self.template, message, answer))
    before = self._ids(prompt.render(self.template, message))
    if ids[: len(before)] != before:
      raise UserError(
        f'{where}: a token spans the end of the prompt and the start of the '
        'answer; use a tokenizer that splits at words, such as that of Llama'
      )
    self._check_length(ids, num_frames, where)
    return ids, [False] * len(before) + [True] * (len(ids) - len(before))

  def answer_ids(self, answer: str) -> list[int]:
    """Token ids of an answer as they follow a prompt, without stop token."""
    ids, is_target = self.training('A cat.', ' Why?', _NO_FRAMES, answer)
    return ids[is_target.index(True) : -1]

  def decode(self, ids: Sequence[int]) -> str:
    """The text of an answer, up to the first stop token if there is one.

    Raises:
      UserError: an id outside the vocabulary.
    """
    ids, (stop_id,) = list(ids), self.stop_ids
    if stop_id in ids:
      ids = ids[: ids.index(stop_id)]
    special = set(self._special_ids.values())
    ids = [index for index in ids if index not in special]
    if unknown := {
      index for index in ids if not 0 <= index < self._pieces.get_piece_size()
    }:
      raise UserError(
        f'token {listing(map(str, unknown))} is not in the vocabulary; use '
        f'{_MODEL} and weights of the same model'
      )
    return self._pieces.decode(ids).strip()

  def _id_of(self, token: Any) -> int:
    return self._special_ids[sentencepiece_files.token_text(token)]

  def _ids(self, text: str) -> list[int]:
    """Token ids of a text in which `prompt.IMAGE` is a frame."""
    ids = [] if self.bos_id is None else [self.bos_id]
    for index, chunk in enumerate(text.split(prompt.IMAGE)):
      if index:
        ids.extend([IMAGE_TOKEN] * self.tokens_per_frame)
      ids.extend(self._encode(chunk))
    return ids

  def _encode(self, chunk: str) -> list[int]:
    """Token ids of a text without frames."""
    if not chunk:
      return []
    if not self._legacy:
      # A text that starts with a space then has two.
      chunk = ' ' + chunk
    ids = []
    # Every other part is a special token.
    first, *rest = self._special.split(chunk)
    # There is no space before a special token at the start.
    if self._legacy or first != ' ' or not rest:
      ids.extend(self._pieces.encode(first))
    for token, part in zip(rest[::2], rest[1::2], strict=True):
      ids.append(self._special_ids[token])
      ids.extend(self._pieces.encode(part))
    return ids

  def _check_text(self, where: str, **texts: str):
    """Raises UserError for texts with special tokens or frame placeholders."""
    for name, text in texts.items():
      found = self._special.search(text)
      if found or prompt.IMAGE in text:
        token = found[0] if found else prompt.IMAGE
        raise UserError(
          f'{where}: the {name} contains {token!r}, a special token of the '
          'prompt; delete it'
        )

  def _check_length(self, ids: list[int], num_frames: int, where: str):
    if len(ids) > self.max_length:
      raise UserError(
        f'{where}: {len(ids)} tokens, {num_frames * self.tokens_per_frame} of '
        f'them for frames, but the critic takes at most {self.max_length}; '
        'shorten the texts or delete the record'
      )


def default_template(folder: pathlib.Path) -> str:
  """The template whose special tokens the tokenizer has.

  Only Yi-34B, the language model of 40b, has those of `HERMES_2`.

  Args:
    folder: of the language model.

  Raises:
    UserError: as `PromptTokenizer`.
  """
  pieces = _load_pieces(folder / _MODEL, legacy=True)
  added = _special_ids(folder, _read_config(folder), pieces, ())
  has_all = all(
    name in added or pieces.id_to_piece(pieces.piece_to_id(name)) == name
    for name in prompt.HERMES_2.special_tokens
  )
  return (prompt.HERMES_2 if has_all else prompt.VICUNA_V1).name


def _quote(caption: str) -> str:
  start = caption if len(caption) < 60 else caption[:60] + '...'
  return f'caption {start!r}'


def _load_pieces(
  path: pathlib.Path, legacy: bool
) -> sentencepiece.SentencePieceProcessor:
  """Loads the SentencePiece model, with a space before texts only if legacy."""
  pieces = sentencepiece_files.load_pieces(
    path, b'' if legacy else _NO_DUMMY_PREFIX
  )
  if not pieces.encode('  '):
    raise UserError(
      f'{path}: this tokenizer deletes white space; use one trained with '
      'remove_extra_whitespaces off, such as that of Llama'
    )
  return pieces


def _read_config(folder: pathlib.Path) -> dict[str, Any]:
  """Reads tokenizer_config.json, with defaults for the required tokens."""
  config = sentencepiece_files.read_config(folder, _DEFAULTS)
  if config.get('add_eos_token'):
    raise UserError(
      f'{folder / sentencepiece_files.CONFIG}: add_eos_token would append a '
      'stop token to every text between frames; set it to false'
    )
  return config


def _special_ids(
  folder: pathlib.Path,
  config: Mapping[str, Any],
  pieces: sentencepiece.SentencePieceProcessor,
  wanted: Sequence[str],
) -> dict[str, int]:
  """The ids of all special tokens: those of the files, and `wanted`."""
  keys = [*_DEFAULTS, *(['pad_token'] if config.get('pad_token') else [])]
  ids = sentencepiece_files.special_ids(
    folder,
    config,
    pieces,
    keys,
    wanted=wanted,
    remedy='use the prompt template that the model was trained with',
  )
  added = config.get('added_tokens_decoder') or {}
  for token in [*map(config.get, keys), *added.values()]:
    stripping = ('lstrip', 'rstrip', 'single_word')
    if isinstance(token, Mapping) and any(map(token.get, stripping)):
      raise UserError(
        f'{folder / sentencepiece_files.CONFIG}: '
        f'{sentencepiece_files.token_text(token)!r} strips the white space '
        f'next to it, which is not supported; set {listing(stripping)} to false'
      )
  return ids
