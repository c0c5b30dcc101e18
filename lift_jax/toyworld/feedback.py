"""Simulated feedback on generated clips, in the published format."""

from collections.abc import Mapping, Sequence
import pathlib

from lift_jax.errors import UserError
from lift_jax.runtime.files import write_json
from lift_jax.toyworld import annotators, checkers
from lift_jax.toyworld.annotators import Rated


def questions_path() -> pathlib.Path:
  """Path of the questions that annotators answer."""
  return pathlib.Path(__file__).with_name('questions.json')


def annotate(
  root: pathlib.Path,
  clips: Sequence[tuple[str, str]],
  target: pathlib.Path,
  questions: Mapping[str, str],
  seed: int,
  annotator_pool: Sequence[annotators.Annotator] = annotators.ANNOTATORS,
) -> list[Rated]:
  """Rates clips by simulated annotators and writes the ratings.

  Args:
    root: the folder that video paths are relative to.
    clips: (video, caption) of each clip.
    target: file for the settled labels, NAME.json; NAME_all.json next to it
      gets all ratings, whose labels may disagree.
    questions: the questions by dimension.
    seed: of the annotators' errors, which also depend on the index of a clip.
    annotator_pool: the annotators who rate each clip.

  Raises:
    UserError: no clip, or one that is not of the toy world.
  """
  if not clips:
    raise UserError(f'{target}: no clip to rate; give at least one')
  rated = []
  for index, (name, caption) in enumerate(clips):
    verdicts, _ = checkers.check_video(
      root / name, caption, f'clip to rate, record {index} ({name})'
    )
    rated.append(
      annotators.rate_clip(
        name, caption, verdicts, annotator_pool, (seed, index)
      )
    )
  target.parent.mkdir(parents=True, exist_ok=True)
  # The settled labels last: if their file exists, both do.
  write_json(
    target.with_name(f'{target.stem}_all.json'),
    annotators.all_entries(rated, questions),
  )
  write_json(target, annotators.settled_entries(rated, questions))
  return rated
