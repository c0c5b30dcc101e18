"""Many raters at once, on a server that gets killed: docs/annotation.md.

  python benchmarks/annotate.py --workdir=DIR [--raters=50] [--answers=20]
    [--kills=20] [--think=0.5] [--seed=0]

Serves a project from a process of its own. Each rater opens a personal link,
and then in turn asks for tasks, loads the clip, thinks, and sends an answer,
until all have sent their answers. Prints the latency of the requests and
whether all answers are in the project.

Then more answers are given while the server is killed (SIGKILL) at random
moments and started again. Raters do what the page does: they send an answer
again, with the same id, until it is confirmed. Prints how many confirmed
answers were lost or are there twice: none must be.

DIR must be empty or missing.
"""

import argparse
import asyncio
import collections
from collections.abc import Awaitable, Callable
import contextlib
import dataclasses
import pathlib
import random
import re
import signal
import sqlite3
import statistics
import sys
import time

import httpx2
import numpy as np

from lift_jax.annotation import store as store_lib
from lift_jax.annotation.entities import RATER, Settings
from lift_jax.annotation.store import Store
from lift_jax.annotation.web import server
from lift_jax.data import rubric
from lift_jax.data.hra import DIMENSIONS
from lift_jax.data.video_write import write_mp4

_RUBRIC = rubric.from_json(
  {'questions': {name: f' Judge the {name}.' for name in DIMENSIONS}}
)
_TIMEOUT = 900.0  # seconds, for each part
_PAUSE = 0.5  # seconds before a request is sent again


@dataclasses.dataclass
class Load:
  """What raters did.

  Attributes:
    confirmed: ids of answers that the server confirmed.
    seconds: latencies of requests that were answered, by path.
    repeated: requests that were sent again.
  """

  confirmed: list[str] = dataclasses.field(default_factory=list)
  seconds: dict[str, list[float]] = dataclasses.field(
    default_factory=lambda: collections.defaultdict(list)
  )
  repeated: int = 0


class Rater:
  """Somebody with the page open."""

  def __init__(self, url: str, link: str, load: Load, rng: random.Random):
    self._http = httpx2.AsyncClient(base_url=url, timeout=30)
    self._link, self._load, self._rng = link, load, rng

  async def rate(self, num_answers: int, think: float) -> None:
    async with self._http:
      page = await self._persist('page', lambda: self._http.get('/'), True)
      (token,) = re.findall('csrf-token" content="(.+?)"', page.text)
      self._http.headers['X-CSRF-Token'] = token
      for _ in range(num_answers):
        await self._answer(think)

  async def _answer(self, think: float) -> None:
    reply = await self._persist('tasks', lambda: self._post('tasks', {}))
    task = reply.json()['tasks'][0]
    await self._persist('clip', lambda: self._http.get(task['clips'][0]['url']))
    await asyncio.sleep(self._rng.uniform(0.5, 1.5) * think)
    labels = {name: self._rng.choice(_RUBRIC.labels) for name in DIMENSIONS}
    answer = {
      'id': f'{self._rng.getrandbits(128):032x}',
      'task': task['id'],
      'labels': labels,
      'reasons': {name: f'It is {label}.' for name, label in labels.items()},
      'seconds': 3.0,
      'skip': '',
      'replaces': '',
    }
    await self._persist('answer', lambda: self._post('answers', answer))
    self._load.confirmed.append(answer['id'])

  def _post(self, name: str, body: dict) -> Awaitable[httpx2.Response]:
    return self._http.post(f'/api/{name}', json=body)

  async def _persist(
    self,
    kind: str,
    request: Callable[[], Awaitable[httpx2.Response]],
    enter: bool = False,
  ) -> httpx2.Response:
    """Sends a request until it is answered, as the page does."""
    while True:
      start = time.monotonic()
      try:
        if enter:
          await self._http.get(self._link)
        response = await request()
      except httpx2.TransportError:
        self._load.repeated += 1
        await asyncio.sleep(_PAUSE)
        continue
      response.raise_for_status()
      self._load.seconds[kind].append(time.monotonic() - start)
      return response


class ServerProcess:
  """The server in a process of its own, always on the same port."""

  def __init__(self, workdir: pathlib.Path):
    self._workdir = workdir
    self._port = 0

  async def start(self) -> str:
    """Returns the URL once connections are accepted."""
    self._process = await asyncio.create_subprocess_exec(
      sys.executable, __file__, f'--serve={self._workdir}',
      f'--port={self._port}', stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    assert self._process.stdout
    url = (await self._process.stdout.readline()).decode().strip()
    self._port = int(url.rpartition(':')[2])
    return url

  async def stop(self, number: signal.Signals = signal.SIGINT) -> None:
    self._process.send_signal(number)
    await self._process.wait()


def main(argv: list[str]) -> int:
  parser = argparse.ArgumentParser()
  parser.add_argument('--workdir', type=pathlib.Path)
  parser.add_argument('--raters', type=int, default=50)
  parser.add_argument('--answers', type=int, default=20)
  parser.add_argument('--kills', type=int, default=20)
  parser.add_argument('--think', type=float, default=0.5)
  parser.add_argument('--seed', type=int, default=0)
  parser.add_argument('--serve', type=pathlib.Path, help=argparse.SUPPRESS)
  parser.add_argument('--port', type=int, default=0, help=argparse.SUPPRESS)
  args = parser.parse_args(argv)
  if args.serve:
    with Store.open(args.serve) as store:
      server.serve(
        store, '127.0.0.1', args.port, lambda url: print(url, flush=True)
      )
    return 0
  return asyncio.run(_measure(args))


async def _measure(args: argparse.Namespace) -> int:
  links = make_project(args.workdir, args.raters, 2 * args.answers)
  process = ServerProcess(args.workdir)
  url = await process.start()
  rng = random.Random(args.seed)
  calm = Load()
  start = time.monotonic()
  await _rate(url, links, calm, rng, args)
  print(f'{args.raters} raters, {time.monotonic() - start:.1f} s')
  for kind, seconds in calm.seconds.items():
    ms = 1e3 * np.array(seconds)
    print(
      f'  {kind:8} {len(ms):5} requests: median {statistics.median(ms):.0f}, '
      f'95th percentile {np.percentile(ms, 95):.0f}, most {ms.max():.0f} ms'
    )
  killed = Load()
  rating = asyncio.create_task(_rate(url, links, killed, rng, args))
  kills = 0
  while kills < args.kills and not rating.done():
    await asyncio.sleep(rng.uniform(0.1, 1.5))
    await process.stop(signal.SIGKILL)
    kills += 1
    await process.start()
  await rating
  await process.stop()
  print(f'{kills} kills, {killed.repeated} requests sent again')
  confirmed = calm.confirmed + killed.confirmed
  lost, extra, twice = compare(args.workdir, confirmed)
  print(
    f'{len(confirmed)} answers confirmed: {lost} lost, {extra} unknown, '
    f'{twice} twice'
  )
  return 1 if lost or extra or twice or kills < args.kills else 0


async def _rate(
  url: str,
  links: list[str],
  load: Load,
  rng: random.Random,
  args: argparse.Namespace,
) -> None:
  raters = [
    Rater(url, link, load, random.Random(rng.getrandbits(64))) for link in links
  ]
  async with asyncio.timeout(_TIMEOUT):
    await asyncio.gather(
      *(rater.rate(args.answers, args.think) for rater in raters)
    )


def make_project(
  workdir: pathlib.Path, num_raters: int, num_answers: int
) -> list[str]:
  """A project with enough clips; returns the paths of personal links."""
  (workdir / 'clips').mkdir(parents=True)
  rng = np.random.default_rng(0)
  frames_thw3 = rng.integers(0, 256, (16, 128, 192, 3), np.uint8)
  write_mp4(workdir / 'clips' / '0.mp4', frames_thw3)
  clip = (workdir / 'clips' / '0.mp4').read_bytes()
  num_clips = num_raters * num_answers // 3 + num_answers
  videos = [f'clips/{index}.mp4' for index in range(num_clips)]
  for video in videos:
    (workdir / video).write_bytes(clip)
  with Store.create(
    workdir, Settings(_RUBRIC, str(workdir.resolve()))
  ) as store:
    store.add_tasks(
      [([(video, f'noise, take {n}')], '') for n, video in enumerate(videos)]
    )
    people = [
      store.add_person(f'rater {index}', RATER) for index in range(num_raters)
    ]
    return [f'/enter/{store.issue_token(person.id)}' for person in people]


def compare(
  workdir: pathlib.Path, confirmed: list[str]
) -> tuple[int, int, int]:
  """Numbers of confirmed answers that are lost, of others, and of doubles."""
  with contextlib.closing(
    sqlite3.connect(workdir / store_lib.NAME)
  ) as connection:
    rows = connection.execute('SELECT id, task, person FROM answers').fetchall()
  stored = {row[0] for row in rows}
  by_subject = collections.Counter(row[1:] for row in rows)
  return (
    len(set(confirmed) - stored),
    len(stored - set(confirmed)),
    sum(count - 1 for count in by_subject.values())
    + len(confirmed)
    - len(set(confirmed)),
  )


if __name__ == '__main__':
  sys.exit(main(sys.argv[1:]))
