"""Simulated feedback on generated clips: what annotators say of a folder.

`lift train_critic` reads it as it reads that of people.
"""

from collections.abc import Mapping, Sequence
import pathlib

from lift_jax.data.json_records import location
from lift_jax.errors import UserError
from lift_jax.runtime.files import write_json
from lift_jax.toyworld import annotators, checkers
from lift_jax.toyworld.annotators import Rated


def questions_path() -> pathlib.Path:
  """The questions that annotators answer, a prompt JSON."""
  return pathlib.Path(__file__).with_name('questions.json')


def annotate(
  root: pathlib.Path,
  clips: Sequence[tuple[str, str]],
  target: pathlib.Path,
  questions: Mapping[str, str],
  seed: int,
  people: Sequence[annotators.Annotator] = annotators.ANNOTATORS,
) -> list[Rated]:
  """Lets people rate clips, and writes what they say in the published form.

  Args:
    root: the folder that videos are relative to.
    clips: (video, caption) of each.
    target: of the settled labels, NAME.json; beside it NAME_all.json holds
      everything that people said, of which labels may disagree.
    questions: what they are asked, by dimension.
    seed: of their errors; those of a clip also depend on its number.
    people: who they are.

  Raises:
    UserError: no clip, or one that is not of the toy world.
  """
  if not clips:
    raise UserError(f'{target}: no clip to rate; give at least one')
  rated = []
  for index, (name, caption) in enumerate(clips):
    verdicts, _ = checkers.check_video(
      root / name, caption, f'{location("clip to rate,", index)} ({name})'
    )
    rated.append(
      annotators.rate_clip(name, caption, verdicts, people, (seed, index))
    )
  target.parent.mkdir(parents=True, exist_ok=True)
  # The settled ones last: where they are, everything is.
  write_json(
    target.with_name(f'{target.stem}_all.json'),
    annotators.all_entries(rated, questions),
  )
  write_json(target, annotators.settled_entries(rated, questions))
  return rated
