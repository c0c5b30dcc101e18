"""Small projects for tests of the pages, and servers of them."""

from collections.abc import Iterator
import contextlib
import functools
import pathlib
import tempfile
import threading
import time

import numpy as np

from lift_jax.annotation.entities import LEAD, RATER, Person, Settings
from lift_jax.annotation.store import Store
from lift_jax.annotation.web import server
from lift_jax.data import rubric
from lift_jax.data.video_write import write_mp4

QUESTIONS = {
  'semantic': ' Does the clip show what the caption says?',
  'motion': ' Does everything move as it should?',
  'fidelity': ' Does every picture look clean?',
}
FPS = 8


@functools.cache
def clip_bytes(seed: int, num_frames: int = 12) -> bytes:
  """An mp4 file: a square that moves over a plain background."""
  rng = np.random.default_rng(seed)
  frames_thw3 = np.empty((num_frames, 64, 96, 3), np.uint8)
  frames_thw3[:] = rng.integers(150, 250, 3)
  colour = rng.integers(0, 120, 3)
  for time_, frame in enumerate(frames_thw3):
    left = 4 + 6 * time_
    frame[22:42, left : left + 20] = colour
  with tempfile.TemporaryDirectory() as folder:
    path = pathlib.Path(folder) / 'clip.mp4'
    write_mp4(path, frames_thw3, FPS)
    return path.read_bytes()


def make_store(
  folder: pathlib.Path,
  num_clips: int = 3,
  num_pairs: int = 0,
  questions: dict[str, str] | None = None,
  **settings,
) -> Store:
  """A project with clips to rate and pairs to compare."""
  questions = questions or QUESTIONS
  names = [f'clips/{index:03d}.mp4' for index in range(num_clips)]
  for index, name in enumerate(names):
    path = folder / 'data' / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(clip_bytes(index))
  first = names[:1]
  workdir = folder / 'Toy clips'
  workdir.mkdir()
  store = Store.create(
    workdir,
    Settings(
      rubric.from_json(
        {
          'questions': questions,
          'guideline': 'Watch each clip twice before you rate it.',
          'levels': {name: {'Good': 'All is well.'} for name in questions},
          'examples': {name: {'Good': first} for name in questions},
        }
      ),
      str(folder / 'data'),
      **settings,
    ),
  )
  store.add_tasks(
    [([(name, caption_of(index))], '') for index, name in enumerate(names)]
  )
  store.add_tasks(
    [
      ([(names[index], 'Two squares'), (names[-1 - index], 'Two squares')], '')
      for index in range(num_pairs)
    ]
  )
  return store


def caption_of(index: int) -> str:
  return f'A square moves to the right, take {index}'


def add_rater(store: Store, name: str = 'Ada') -> tuple[Person, str]:
  """A rater, and the path of the personal link."""
  return _add(store, name, RATER)


def add_lead(store: Store, name: str = 'Grace') -> tuple[Person, str]:
  return _add(store, name, LEAD)


def _add(store: Store, name: str, role: str) -> tuple[Person, str]:
  person = store.add_person(name, role)
  return person, f'/enter/{store.issue_token(person.id)}'


@contextlib.contextmanager
def serving(store: Store, host: str = '127.0.0.1') -> Iterator[str]:
  """Serves a project from a thread; yields the URL."""
  with server.listen(host, 0) as listener:
    running = server.make_server(store)
    thread = threading.Thread(target=running.run, args=([listener],))
    thread.start()
    try:
      while not running.started:
        time.sleep(0.01)
      yield server.url_of(listener)
    finally:
      running.should_exit = True
      thread.join()
