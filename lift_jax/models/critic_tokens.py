"""Tokens of a critic's prompts and answers.

Legend: B batch, N tokens, D width.
"""

from collections.abc import Sequence
import pathlib

import jax
import jax.numpy as jnp
import numpy as np

from lift_jax.errors import UserError
from lift_jax.models.critic_protocols import Tokenizer

# An answer begins with one of these, unless the critic was trained with others.
LABELS = ('Good', 'Normal', 'Bad')


def label_tokens(
  tokenizer: Tokenizer, labels: Sequence[str] = LABELS
) -> dict[str, list[int]]:
  """Token ids of each label at the start of an answer.

  Raises:
    UserError: the tokens of a label depend on the full stop after it.
  """
  tokens = {}
  for label in labels:
    alone, ended = map(tokenizer.answer_ids, (label, f'{label}.'))
    if ended[: len(alone)] != alone:
      raise UserError(
        f'the tokenizer encodes the answer {label!r} and the start of '
        f'{label + "."!r} differently; use one that separates words from full '
        'stops, such as that of Llama'
      )
    tokens[label] = alone
  return tokens


def label_ids(
  tokenizer: Tokenizer, labels: Sequence[str] = LABELS
) -> dict[str, int]:
  """The first token of an answer with each label.

  Raises:
    UserError: two labels have the same first token, so that the first token of
      an answer does not determine its label; or as in `label_tokens`.
  """
  first = {
    label: tokens[0]
    for label, tokens in label_tokens(tokenizer, labels).items()
  }
  if len(set(first.values())) < len(first):
    raise UserError(
      f'the first tokens of the labels, {first}, are not distinct; use a '
      'tokenizer with a larger vocabulary, or other labels'
    )
  return first


def shared_prefix(prompts: Sequence[Sequence[int]]) -> int:
  """Length of the longest common prefix of the prompts of one video.

  The decoder computes it once. It excludes at least the last token of each
  prompt, which predicts the answer.

  Args:
    prompts: token ids of one or more prompts, none of them empty.
  """
  for index, column in enumerate(zip(*prompts, strict=False)):
    if len(set(column)) > 1:
      return index
  return min(map(len, prompts)) - 1


def last_token(
  x_bnd: jax.Array, lengths_b: jax.Array | np.ndarray
) -> jax.Array:
  """[B, D]: the last of the first `lengths_b` >= 1 tokens of each sequence."""
  return jnp.take_along_axis(x_bnd, lengths_b[:, None, None] - 1, axis=1)[:, 0]


def questions_path() -> pathlib.Path:
  """Path of the questions that critics of this project are trained on.

  Released critics know only the questions that they were trained on, which are
  in a file of their own.
  """
  return pathlib.Path(__file__).with_name('questions.json')
