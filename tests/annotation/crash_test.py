"""A process that is killed while it saves answers loses none of them."""

import pathlib
import subprocess
import sys

from lift_jax.annotation.store import Store
from tests.annotation import stores

# Forks writers one after another and kills each at a random moment. A writer
# answers as fast as it can, and prints the id of each answer that is saved, in
# one write so that no line is cut; each is saved twice, as after a lost reply.
_WRITERS = r"""
import os, pathlib, random, signal, sys, time
from lift_jax.annotation.store import Store
from tests.annotation import stores

def write(name):
  with Store.open(pathlib.Path(sys.argv[1])) as store:
    people = [person.id for person in store.people()]
    for number in range(10**6):
      person = people[number % len(people)]
      task = store.next_tasks(person, 1)[0]
      answer = stores.answer(task, id=f'{name}-{number:016}')
      store.save_answer(person, answer)
      os.write(1, f'{answer.id}\n'.encode())
      store.save_answer(person, answer)

rng = random.Random(int(sys.argv[3]))
for kill in range(int(sys.argv[2])):
  writer = os.fork()
  if not writer:
    write(f'writer{kill}')
  time.sleep(rng.uniform(0.1, 0.5))
  os.kill(writer, signal.SIGKILL)
  os.waitpid(writer, 0)
"""


def check_kills(folder: pathlib.Path, kills: int, seed: int) -> int:
  """Kills writers at random moments; returns the number of answers."""
  with stores.create(folder, raters_per_clip=10**6) as store:
    stores.add_clips(store, folder, 300)
    stores.add_people(store, 30)
  arguments = [str(folder), str(kills), str(seed)]
  output = subprocess.run(
    [sys.executable, '-c', _WRITERS, *arguments],
    stdout=subprocess.PIPE,
    text=True,
    check=True,
  ).stdout
  acknowledged = output.splitlines()
  with Store.open(folder) as store:
    saved = [
      given.answer.id
      for person in store.people()
      for given in store.recent_answers(person.id, 10**6)
    ]
  assert len(set(saved)) == len(saved)
  assert set(acknowledged) <= set(saved)
  # At most one was saved and not acknowledged, for each kill.
  assert len(saved) <= len(acknowledged) + kills
  assert len({line.split('-')[0] for line in acknowledged}) >= kills / 2
  return len(saved)


def test_kills(tmp_path):
  assert check_kills(tmp_path, 3, seed=0) > 3
