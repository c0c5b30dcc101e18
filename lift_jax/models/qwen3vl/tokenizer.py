"""Tokenizer of Qwen3-VL critics: prompts and answers to token ids, and back."""

from collections.abc import Sequence
import pathlib
import re
import tempfile
from typing import Any

from lift_jax.errors import UserError, listing
from lift_jax.models.qwen3vl import prompt
from lift_jax.models.qwen3vl.prompt import QwenTemplate
from lift_jax.models.qwen3vl.video import PatchSelection
from lift_jax.runtime import storage

# Files that a tokenizer is read from: the first, or the next two.
TOKENIZER_FILES = (
  'tokenizer.json',
  'vocab.json',
  'merges.txt',
  'tokenizer_config.json',
)


class QwenTokenizer:
  """Tokenizes prompts and answers; see `critic_protocols.Tokenizer`.

  Args:
    folder: of the model.
    template: form of a prompt.
    max_length: tokens in a sequence at most, frames included.

  Attributes:
    max_length: see above.
    pad_id: padding token.
    stop_ids: tokens that end an answer.
    video_id: token in place of a token of the frames.
    vocab_size: one more than the largest id.

  Raises:
    UserError: a file is missing or cannot be read, or is of a tokenizer without
      the special tokens of a prompt.
  """

  def __init__(
    self, folder: pathlib.Path, template: QwenTemplate, max_length: int
  ):
    self._tokenizer, self._template = _load(folder), template
    self.max_length = max_length
    # Tokens that are found in any text, before it is encoded.
    ids = self._tokenizer.get_added_vocab()
    if missing := {*prompt.SPECIAL_TOKENS} - ids.keys():
      raise UserError(
        f'{folder}: the tokenizer has no {listing(missing)}; use that of the '
        'published model'
      )
    self._special = re.compile('|'.join(map(re.escape, ids)))
    self.pad_id: int = ids[prompt.END_OF_TEXT]
    self.stop_ids: tuple[int, ...] = (
      ids[prompt.END],
      ids[prompt.END_OF_TEXT],
    )
    self.video_id: int = ids[prompt.VIDEO]
    self.vocab_size = max(self._tokenizer.get_vocab().values()) + 1

  def inference(
    self,
    caption: str,
    question: str,
    frames: PatchSelection,
    *,
    space_before_caption: bool = False,
    where: str = '',
  ) -> list[int]:
    """Token ids of a prompt; see `critic_protocols.Tokenizer`.

    `space_before_caption` is ignored: only released VILA critics differ in it.
    """
    del space_before_caption
    where = where or f'caption {caption[:60]!r}'
    self._check_text(where, caption=caption, question=question)
    ids = self._encode(
      prompt.render_prompt(
        self._template,
        frames.timestamps,
        frames.tokens_per_patch,
        caption + question,
      )
    )
    self._check_length(ids, where)
    return ids

  def training(
    self,
    caption: str,
    question: str,
    frames: PatchSelection,
    answer: str,
    *,
    space_before_caption: bool = False,
    where: str = '',
  ) -> tuple[list[int], list[bool]]:
    """Token ids of a prompt with its answer; see `critic_protocols.Tokenizer`.

    Raises:
      UserError: as in `inference`, or the answer is empty or has white space
        around it.
    """
    where = where or f'caption {caption[:60]!r}'
    if not answer or answer != answer.strip():
      raise UserError(
        f'{where}: the answer {answer[:40]!r} is empty or has white space '
        'around it; write a label and a rationale'
      )
    self._check_text(where, answer=answer)
    before = self.inference(caption, question, frames, where=where)
    ids = [*before, *self.answer_ids(answer), self.stop_ids[0]]
    self._check_length(ids, where)
    return ids, [False] * len(before) + [True] * (len(ids) - len(before))

  def answer_ids(self, answer: str) -> list[int]:
    """Token ids of an answer; no token spans its start, as it begins a line."""
    return self._encode(answer)

  def decode(self, ids: Sequence[int]) -> str:
    """The text of an answer, up to the first stop token if there is one."""
    ids = list(ids)
    ends = [ids.index(stop) for stop in self.stop_ids if stop in ids]
    text = self._tokenizer.decode(
      ids[: min(ends, default=len(ids))], skip_special_tokens=True
    )
    return text.strip()

  def _encode(self, text: str) -> list[int]:
    return self._tokenizer.encode(text, add_special_tokens=False)

  def _check_text(self, where: str, **texts: str) -> None:
    """Raises UserError for texts with special tokens."""
    for name, text in texts.items():
      if found := self._special.search(text):
        raise UserError(
          f'{where}: the {name} contains {found[0]!r}, a special token of the '
          'prompt; delete it'
        )

  def _check_length(self, ids: list[int], where: str) -> None:
    if len(ids) > self.max_length:
      num_video = ids.count(self.video_id)
      raise UserError(
        f'{where}: {len(ids)} tokens, {num_video} of them for frames, but the '
        f'critic takes at most {self.max_length}; shorten the texts or delete '
        'the record'
      )


def _load(folder: pathlib.Path) -> Any:
  """The tokenizer of transformers."""
  # Imported here, as transformers takes seconds to import.
  from transformers import Qwen2Tokenizer

  found = [name for name in TOKENIZER_FILES if (folder / name).is_file()]
  if not {*TOKENIZER_FILES[:1]} <= {*found} and (
    not {*TOKENIZER_FILES[1:3]} <= {*found}
  ):
    raise UserError(
      f'{folder}: no {TOKENIZER_FILES[0]}; copy the tokenizer of the published '
      'model there'
    )
  # Without the weights, which may be in a bucket.
  with tempfile.TemporaryDirectory() as local:
    for name in found:
      storage.copy_file(folder / name, pathlib.Path(local) / name)
    try:
      return Qwen2Tokenizer.from_pretrained(local, local_files_only=True)
    # The library raises exceptions of no particular type.
    except Exception as error:
      reason = (
        str(error).splitlines()[0] if str(error) else type(error).__name__
      )
      raise UserError(
        f'{folder}: the tokenizer cannot be read ({reason}); copy '
        f'{", ".join(found)} from the published model again'
      ) from None
