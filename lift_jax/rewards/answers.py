"""The text format of critic answers: a label, a full stop and the rationale."""

from collections.abc import Sequence
import re

from lift_jax.data.rubric import LABELS
from lift_jax.errors import UserError


def split_answer(text: str, labels: Sequence[str] = LABELS) -> tuple[str, str]:
  """Splits an answer into its label and rationale.

  Only a label at the beginning counts: a good video may have 'no Bad frames'.

  Args:
    text: the critic's answer; white space around it is stripped.
    labels: of the rubric of its training.

  Returns:
    One of the labels, and the rest after '.' or ',', which may be empty.

  Raises:
    UserError: the answer does not begin with a label.
  """
  text = text.strip()
  begin = _label_at_start(text, labels)
  if begin is None:
    start = text if len(text) < 40 else text[:40] + '...'
    raise UserError(
      f'the answer {start!r} does not begin with {", ".join(labels)} and a '
      'full stop; use a critic trained on this answer format, with the '
      'questions and the prompt template of its training'
    )
  return begin[1], text[begin.end() :].strip()


def rationale_of(text: str, labels: Sequence[str] = LABELS) -> str:
  """The rationale of an answer; all of a text that begins with no label."""
  text = text.strip()
  begin = _label_at_start(text, labels)
  return text[begin.end() :].strip() if begin else text


def _label_at_start(text: str, labels: Sequence[str]) -> re.Match[str] | None:
  # Critics answer 'Good. No obvious problems.', sometimes with a comma.
  return re.match(rf'({"|".join(map(re.escape, labels))})(?:[.,]|\Z)', text)


def format_answer(
  label: str, rationale: str, labels: Sequence[str] = LABELS
) -> str:
  """The answer that a critic is trained on, the inverse of `split_answer`.

  Args:
    label: one of the labels.
    rationale: '' trains a critic that gives none.
    labels: of the rubric.

  Raises:
    UserError: an unknown label.
  """
  if label not in labels:
    raise UserError(f'label {label!r}; write one of {", ".join(labels)}')
  return f'{label}. {rationale.strip()}'.strip()
