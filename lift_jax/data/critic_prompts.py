"""How a critic was asked in training, kept beside its weights.

A critic answers the questions that it was trained on and no others. Those of a
published critic come with its code; those of ours lie in prompts.json of the
folder that training writes, in the form that `hra.read_questions` reads.
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
  """What a critic is asked.

  Attributes:
    questions: by dimension; each begins with a space.
    space_before_caption: whether the caption's line begins with a space.
  """

  questions: Mapping[str, str]
  space_before_caption: bool


def write_prompts(
  folder: pathlib.Path, questions: Mapping[str, str], template: str
) -> None:
  """Keeps what a critic of our own was asked; training puts the space."""
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
  """The prompts of a critic.

  Args:
    given: prompt JSON, of training or as published; '' looks for the one that
      training wrote.
    folders: of the critic and its adapter, the latter first.
    template: that the job uses.

  Raises:
    UserError: there is none, or it is for another template.
  """
  beside = [folder / NAME for folder in folders]
  path = (
    pathlib.Path(given)
    if given
    else next(filter(pathlib.Path.exists, beside), None)
  )
  if path is None:
    raise UserError(
      f'{folders[-1]}: no {NAME} beside this critic; give the questions that '
      'it was trained on, as --config.prompts.questions=FILE.json'
    )
  questions = read_questions(path)
  kept = parse_json(str(path), read_text(str(path), path), 'an object')
  # Published questions name no template, and their critics are asked without
  # the space that they were trained with.
  trained_with = kept.get('template', template)
  if trained_with != template:
    raise UserError(
      f'{path}: this critic was trained with the template {trained_with!r}; '
      'set model.template to it'
    )
  return CriticPrompts(
    {dimension: questions[dimension] for dimension in DIMENSIONS},
    bool(kept.get('space_before_caption', False)),
  )
