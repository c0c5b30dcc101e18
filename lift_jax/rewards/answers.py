"""Answers of the critic, as text: a label, a full stop and the reason."""

import re

from lift_jax.data.hra import LABELS
from lift_jax.errors import UserError

# Critics write 'Good. No obvious problems.', at times with a comma.
_ANSWER = re.compile(rf'({"|".join(LABELS)})(?:[.,]|\Z)')


def split_answer(text: str) -> tuple[str, str]:
  """The label that an answer begins with, and the reason it gives.

  A label later in the text counts for nothing: a good video may well have 'no
  Bad frames'.

  Args:
    text: what the critic wrote; white space around it is left out.

  Returns:
    One of `LABELS`, and the rest after '.' or ',', which may be empty.

  Raises:
    UserError: the answer begins with no label, so that there is no reward.
  """
  text = text.strip()
  begin = _ANSWER.match(text)
  if begin is None:
    start = text if len(text) < 40 else text[:40] + '...'
    raise UserError(
      f'the answer {start!r} does not begin with {", ".join(LABELS)} and a '
      'full stop; use a critic trained to answer so, with the questions and '
      'the prompt template of its training'
    )
  return begin[1], text[begin.end() :].strip()


def format_answer(label: str, rationale: str) -> str:
  """The answer that a critic is trained on; `split_answer` takes it apart.

  Args:
    label: one of `LABELS`.
    rationale: the reason; '' trains a critic that gives none.

  Raises:
    UserError: another label.
  """
  if label not in LABELS:
    raise UserError(f'label {label!r}; write one of {", ".join(LABELS)}')
  return f'{label}. {rationale.strip()}'.strip()
