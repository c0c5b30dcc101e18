"""The questions that a critic was trained on, stored alongside its weights.

A critic answers only the questions that it was trained on. Those of a published
critic come with its code; those of ours are in prompts.json of the folder that
training writes, as part of a rubric (`data.rubric`).
"""

from collections.abc import Mapping
import dataclasses
import pathlib

from lift_jax.data.json_records import (
  RecordError,
  as_object,
  json_type,
  parse_json,
  read_text,
  text_field,
)
from lift_jax.data.rubric import (
  DIMENSIONS,
  LABELS,
  REWARDS,
  Rubric,
  read_rubric,
)
from lift_jax.errors import UserError
from lift_jax.runtime import storage
from lift_jax.runtime.files import write_json

NAME = 'prompts.json'

_TEMPLATE = 'template'
_SPACE = 'space_before_caption'


@dataclasses.dataclass(frozen=True)
class CriticPrompts:
  """The questions of a critic.

  Attributes:
    questions: by dimension; each begins with a space.
    space_before_caption: whether there is a space before the caption.
    labels: that answers begin with, from the best to the worst.
    rewards: of each label.
    template: of its training; None if no file says.
  """

  questions: Mapping[str, str]
  space_before_caption: bool
  labels: tuple[str, ...] = LABELS
  rewards: Mapping[str, float] = dataclasses.field(default_factory=REWARDS.copy)
  template: str | None = None

  @property
  def rubric(self) -> Rubric:
    return Rubric(self.questions, self.labels, self.rewards)


def write_prompts(
  folder: pathlib.Path,
  questions: Mapping[str, str],
  template: str,
  rubric: Rubric | None = None,
) -> None:
  """Writes the questions of a trained critic; training adds the space.

  Args:
    folder: of the critic.
    questions: of its training, by dimension.
    template: of its training.
    rubric: of its ratings, for labels and rewards; None for LiFT's.
  """
  rubric = rubric or Rubric(questions)
  write_json(
    folder / NAME,
    {
      'questions': dict(questions),
      'labels': list(rubric.labels),
      'rewards': dict(rubric.rewards),
      _SPACE: True,
      _TEMPLATE: template,
    },
  )


def find_prompts(given: str, folders: list[pathlib.Path]) -> CriticPrompts:
  """Finds and reads the prompts of a critic.

  Args:
    given: prompt JSON, of training or as published; '' takes the one that
      training wrote.
    folders: of the adapter, if any, and the critic.

  Raises:
    UserError: there is no prompt JSON, or it is bad.
  """
  trained = _written_by_training(folders)
  path = storage.to_path(given) if given else trained
  if path is None:
    raise UserError(
      f'{folders[-1]}: no {NAME} in the folder of this critic; give the '
      'questions that it was trained on, as '
      '--config.prompts.questions=FILE.json'
    )
  rubric = read_rubric(path)
  template, has_space = _format_of(path)
  if template is None and trained is not None:
    template, _ = _format_of(trained)
  return CriticPrompts(
    _ordered(rubric.questions),
    has_space,
    rubric.labels,
    rubric.rewards,
    template,
  )


def trained_template(folders: list[pathlib.Path]) -> str | None:
  """The template of a critic's training; None if no file says.

  Args:
    folders: of the adapter, if any, and the critic.

  Raises:
    UserError: a bad prompt JSON.
  """
  path = _written_by_training(folders)
  return None if path is None else _format_of(path)[0]


def _written_by_training(folders: list[pathlib.Path]) -> pathlib.Path | None:
  candidates = [folder / NAME for folder in folders]
  return next((file for file in candidates if file.exists()), None)


def _ordered(questions: Mapping[str, str]) -> dict[str, str]:
  """LiFT's dimensions in their order, then others in that of the file."""
  names = [name for name in DIMENSIONS if name in questions]
  names += [name for name in questions if name not in DIMENSIONS]
  return {name: questions[name] for name in names}


def _format_of(path: pathlib.Path) -> tuple[str | None, bool]:
  """(template of training, space before the caption) of a prompt JSON.

  Published ones name no template and have no such space, though training has.

  Raises:
    UserError: only one of the two is given, or a value is of another type.
  """
  try:
    prompts = as_object(
      parse_json(str(path), read_text(str(path), path), 'an object'),
      'an object',
    )
    given = [key for key in (_TEMPLATE, _SPACE) if key in prompts]
    if not given:
      return None, False
    if len(given) == 1:
      raise RecordError(
        f'has "{given[0]}" alone; give both "{_TEMPLATE}" and "{_SPACE}", as '
        'lift train_critic wrote them, or none of them for published prompts'
      )
    has_space = prompts[_SPACE]
    if not isinstance(has_space, bool):
      raise RecordError(
        f'"{_SPACE}" is {json_type(has_space)}; write true or false'
      )
    return text_field(prompts, _TEMPLATE), has_space
  except RecordError as error:
    raise UserError(f'{path}: {error}') from None
