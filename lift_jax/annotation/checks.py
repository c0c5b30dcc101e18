"""Checks of what people send: labels, reasons, names."""

from collections.abc import Mapping
import unicodedata

from lift_jax.annotation.entities import CRITIC, SKIP_CAUSES, Answer, Task
from lift_jax.errors import UserError

# Characters of a reason.
MAX_REASON = 10_000
_MAX_NAME = 100  # characters


def clean_name(name: str) -> str:
  """The name of a person without white space at its ends.

  Raises:
    UserError: it is blank, reserved, too long or more than a line.
  """
  name = unicodedata.normalize('NFC', name.strip())
  if not name or not name.isprintable() or name == CRITIC:
    raise UserError(
      f'the name {name[:40]!r} is reserved or no printable line; choose another'
    )
  if len(name) > _MAX_NAME:
    raise UserError(
      f'the name {name[:40]!r}... has {len(name)} characters; write at most '
      f'{_MAX_NAME}'
    )
  return name


def check_answer(task: Task, answer: Answer, part: bool = False) -> None:
  """Checks an answer; `part` allows missing dimensions."""
  if answer.skip:
    if answer.skip not in SKIP_CAUSES:
      raise UserError(
        f'the cause of skipping is {answer.skip[:40]!r}; choose one of '
        f'{", ".join(SKIP_CAUSES)}'
      )
    if answer.labels:
      raise UserError('a skipped clip has no labels; rate it or skip it')
    return
  check_labels(task, answer.labels, part)
  for dimension, reason in answer.reasons.items():
    if dimension not in answer.labels:
      raise UserError(
        f'a reason for {dimension[:40]!r}, which is not rated; rate it too'
      )
    check_text(reason, f'the reason for {dimension}', MAX_REASON)


def check_labels(
  task: Task, labels: Mapping[str, str], part: bool = False
) -> None:
  """Checks labels by dimension; `part` allows missing dimensions."""
  for dimension, label in labels.items():
    if dimension not in task.dimensions:
      raise UserError(
        f'no dimension {dimension[:40]!r}; rate {", ".join(task.dimensions)}'
      )
    if label not in task.labels:
      raise UserError(
        f'{dimension}: no label {label[:40]!r}; choose one of '
        f'{", ".join(task.labels)}'
      )
  missing = [name for name in task.dimensions if name not in labels]
  if missing and not part:
    raise UserError(f'no label for {", ".join(missing)}; choose one')


def check_text(text: str, subject: str, longest: int) -> None:
  if len(text) > longest:
    raise UserError(
      f'{subject} has {len(text)} characters; write at most {longest}'
    )
  for char in text:
    if unicodedata.category(char) in ('Cc', 'Cs') and char not in '\n\t':
      raise UserError(
        f'{subject} contains the character U+{ord(char):04X}, which is no '
        'text; delete it'
      )
