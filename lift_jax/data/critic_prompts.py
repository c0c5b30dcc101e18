"""The questions that a critic was trained on, stored alongside its weights.

A critic answers only the questions that it was trained on. Those of a published
critic come with its code; those of ours are in prompts.json of the folder that
training writes, in the format that `hra.read_questions` reads.
"""

from collections.abc import Mapping
import dataclasses
import pathlib

from lift_jax.data.hra import DIMENSIONS, read_questions
from lift_jax.data.json_records import parse_json, read_text
from lift_jax.errors import UserError
from lift_jax.runtime.files import write_json

NAME = 'prompts.json'


@dataclasses.dataclass(frozen=True)
class CriticPrompts:
  """The questions of a critic.

  Attributes:
    questions: by dimension; each begins with a space.
    space_before_caption: whether there is a space before the caption.
  """

  questions: Mapping[str, str]
  space_before_caption: bool


def write_prompts(
  folder: pathlib.Path, questions: Mapping[str, str], template: str
) -> None:
  """Writes the questions of a trained critic; training adds the space."""
  write_json(
    folder / NAME,
    {
      'questions': dict(questions),
      'space_before_caption': True,
      'template': template,
    },
  )


def find_prompts(
  given: str, folders: list[pathlib.Path], template: str
) -> CriticPrompts:
  """Finds and reads the prompts of a critic.

  Args:
    given: prompt JSON, of training or as published; '' takes the one that
      training wrote.
    folders: of the adapter, if any, and the critic.
    template: that the job uses.

  Raises:
    UserError: there is no prompt JSON, or it is for another template.
  """
  candidates = [folder / NAME for folder in folders]
  path = (
    pathlib.Path(given)
    if given
    else next(filter(pathlib.Path.exists, candidates), None)
  )
  if path is None:
    raise UserError(
      f'{folders[-1]}: no {NAME} in the folder of this critic; give the '
      'questions that it was trained on, as '
      '--config.prompts.questions=FILE.json'
    )
  questions = read_questions(path)
  prompts = parse_json(str(path), read_text(str(path), path), 'an object')
  # Published prompts name no template, and the published inference code omits
  # the space of training.
  trained_with = prompts.get('template', template)
  if trained_with != template:
    raise UserError(
      f'{path}: this critic was trained with the template {trained_with!r}; '
      'set model.template to it'
    )
  return CriticPrompts(
    {dimension: questions[dimension] for dimension in DIMENSIONS},
    bool(prompts.get('space_before_caption', False)),
  )
