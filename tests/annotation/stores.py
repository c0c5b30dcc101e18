"""Small annotation projects for tests of the store."""

import itertools

from lift_jax.annotation.entities import (
  LEAD,
  RATER,
  Answer,
  GivenAnswer,
  Settings,
)
from lift_jax.annotation.store import Store
from lift_jax.data.rubric import Rubric

RUBRIC = Rubric(
  {'semantic': ' As asked?', 'motion': ' Smooth?', 'fidelity': ' Clean?'}
)
_numbers = itertools.count()


def create(folder, rubric=RUBRIC, **settings) -> Store:
  """An empty project; its clips are in the same folder."""
  settings = {'raters_per_clip': 2} | settings
  return Store.create(folder, Settings(rubric, str(folder), **settings))


def add_clips(store: Store, folder, number: int, category=None) -> list[str]:
  """Adds clips with empty files; returns the ids of their tasks."""
  tasks = []
  for index in range(number):
    video = f'{category or "x"}{index}.mp4'
    (folder / video).touch()
    tasks.append(([(video, f'Caption {video}.')], category or ''))
  return store.add_tasks(tasks)


def add_people(store: Store, number: int = 2) -> tuple[list[int], int]:
  """(ids of raters, id of a lead)."""
  raters = [store.add_person(f'rater {n}', RATER).id for n in range(number)]
  return raters, store.add_person('lead', LEAD).id


def answer(task, /, labels='Good', reason='', **changes) -> Answer:
  """An answer with a new id; `labels` is one for all, or by dimension."""
  if isinstance(labels, str):
    labels = dict.fromkeys(task.dimensions, labels)
  return Answer(
    **{
      'id': f'answer-{next(_numbers):012}',
      'task': task.id,
      'labels': labels,
      'reasons': dict.fromkeys(labels, reason),
      'seconds': 2.0,
    }
    | changes
  )


def answer_of(store: Store, person: int, task: str) -> GivenAnswer | None:
  """A person's current answer to a task; None without one."""
  given = store.recent_answers(person, limit=1000)
  return next((one for one in given if one.task.id == task), None)


def rate(store: Store, person: int, task: str, labels='Good', reason=''):
  """Saves an answer of a person to a task."""
  shown = store.task(person, task)
  store.save_answer(person, answer(shown, labels, reason))
