"""What critics with a Llama or Qwen3 decoder have in common."""

import abc
import functools
import hashlib
import pathlib
from typing import Protocol

from lift_jax.errors import UserError
from lift_jax.models.critics import Critic
from lift_jax.models.llama import flops
from lift_jax.models.llama.config import LlamaConfig


class LlamaCritic(Critic):
  """A critic whose `config.llm` is a `LlamaConfig`."""

  lora_targets = (
    'llm/blocks/attn/to_(q|k|v|out)',
    'llm/blocks/mlp/(gate|up|down)',
  )

  @abc.abstractmethod
  def file_hashes(self) -> list[str]:
    """Hashes of the weights and of the tokenizer's files."""

  @functools.cached_property
  def fingerprint(self) -> str:
    parts = [repr(self.config), *self.file_hashes()]
    parts += [adapter.fingerprint for adapter in self.adapters]
    return hashlib.sha256('\n'.join(parts).encode()).hexdigest()[:16]

  def decoder_flops(self, num_tokens: int, num_logits: int) -> float:
    return flops.decoder_flops(self.config.llm, num_tokens, num_logits)

  def attention_flops(self, num_tokens: int) -> float:
    return flops.attention_flops(self.config.llm, num_tokens)


class _Vocabulary(Protocol):
  vocab_size: int


def check_vocabulary(
  path: pathlib.Path, tokenizer: _Vocabulary, llm: LlamaConfig
) -> None:
  """Raises UserError if the tokenizer has tokens without an embedding."""
  if tokenizer.vocab_size > llm.vocab_size:
    raise UserError(
      f'{path}: the tokenizer has {tokenizer.vocab_size} tokens, the language '
      f'model {llm.vocab_size}; use both from the same model'
    )
