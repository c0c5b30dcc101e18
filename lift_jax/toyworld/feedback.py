"""Simulated feedback on generated clips, in the published format.

Simulated annotators answer through the store of `lift annotate`, whose export
is the feedback.
"""

from collections.abc import Mapping, Sequence
import pathlib
import shutil

from lift_jax.annotation import export
from lift_jax.annotation.entities import RATER, Answer, Settings
from lift_jax.annotation.store import Store
from lift_jax.data.rubric import Rubric
from lift_jax.errors import UserError
from lift_jax.runtime.files import json_sha256, write_json, write_text
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
      gets all ratings, whose labels may disagree, and NAME_project is the
      annotation project.
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
  project = target.with_name(f'{target.stem}_project')
  shutil.rmtree(project, ignore_errors=True)  # of an earlier attempt
  project.mkdir(parents=True)
  export_folder = project / 'export'
  with Store.create(
    project,
    Settings(
      Rubric(questions),
      str(root.resolve()),
      raters_per_clip=len(annotator_pool),
    ),
  ) as store:
    _answer(store, rated, annotator_pool)
    export.write_export(store, export_folder)
  # The settled labels last: if their file exists, both do.
  write_json(
    target.with_name(f'{target.stem}_all.json'),
    annotators.all_entries(rated, questions),
  )
  settled = (export_folder / export.HRA).read_text(encoding='utf-8')
  write_text(target, settled)
  return rated


def _answer(
  store: Store,
  rated: Sequence[Rated],
  annotator_pool: Sequence[annotators.Annotator],
) -> None:
  """Gives the answers of annotators to the tasks of a project."""
  tasks = store.add_tasks([([(one.video, one.caption)], '') for one in rated])
  for index, annotator in enumerate(annotator_pool):
    person = store.add_person(annotator.name, RATER).id
    for task, item in zip(tasks, rated, strict=True):
      verdicts = item.ratings[index]
      store.save_answer(
        person,
        Answer(
          id=json_sha256([annotator.name, task])[:32],
          task=task,
          labels={name: one.label for name, one in verdicts.items()},
          reasons={name: one.rationale for name, one in verdicts.items()},
          seconds=0.0,
        ),
      )
