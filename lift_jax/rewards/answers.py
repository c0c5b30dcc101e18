"""The text format of critic answers: a label, a full stop and the rationale."""

import re

from lift_jax.data.hra import LABELS
from lift_jax.errors import UserError

# Critics answer 'Good. No obvious problems.', sometimes with a comma.
_ANSWER = re.compile(rf'({"|".join(LABELS)})(?:[.,]|\Z)')


def split_answer(text: str) -> tuple[str, str]:
  """Splits an answer into its label and rationale.

  Only a label at the beginning counts: a good video may have 'no Bad frames'.

  Args:
    text: the critic's answer; white space around it is stripped.

  Returns:
    One of `LABELS`, and the rest after '.' or ',', which may be empty.

  Raises:
    UserError: the answer does not begin with a label.
  """
  text = text.strip()
  begin = _ANSWER.match(text)
  if begin is None:
    start = text if len(text) < 40 else text[:40] + '...'
    raise UserError(
      f'the answer {start!r} does not begin with {", ".join(LABELS)} and a '
      'full stop; use a critic trained on this answer format, with the '
      'questions and the prompt template of its training'
    )
  return begin[1], text[begin.end() :].strip()


def format_answer(label: str, rationale: str) -> str:
  """The answer that a critic is trained on, the inverse of `split_answer`.

  Args:
    label: one of `LABELS`.
    rationale: '' trains a critic that gives none.

  Raises:
    UserError: an unknown label.
  """
  if label not in LABELS:
    raise UserError(f'label {label!r}; write one of {", ".join(LABELS)}')
  return f'{label}. {rationale.strip()}'.strip()
