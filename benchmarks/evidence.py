"""Whether feedback helps, and how best to use it, in the toy world.

  python benchmarks/evidence.py --workdir=DIR [--seeds=0,1,2,3,4] \
    [--only=ARM,ARM] [--search] [--choices=FILE.json] [--processes=N] \
    [--config.SECTION.FIELD=VALUE ...]

For every seed the base model makes clips of training prompts, which checkers
and a critic label; every arm fine-tunes it on these, with as many steps and
clips a step as any other; and its clips of held-out prompts are compared with
those of the base model, from the same noise. Prints the tables of
docs/evidence.md.

Arms are named METHOD-LABELS, or METHOD-LABELS-real with the real clips too;
METHOD-LABELS-rounds is in rounds, each on clips of the model of the last. By
default all are run, the most wanted first; --only takes names, and
--only=tables prints what was measured so far.

--search chooses the settings of each method instead, by prompts and seeds that
are not reported (--seeds is then 100, and --only takes methods). It varies one
setting at a time and writes the file of --choices, which the arms read.

--processes runs seeds and arms side by side, as the networks are too small for
one of them to fill a GPU.

Everything is kept in DIR; the same command again resumes.
"""

import argparse
from collections.abc import Callable, Iterator, Sequence
import concurrent.futures
import contextlib
import dataclasses
import functools
import multiprocessing
import os
import pathlib

from evidence_parts import arms, measures, search, tables
from evidence_parts import config as evidence_config
from evidence_parts.arms import ARMS, CRITIC, METHODS
from evidence_parts.config import EvidenceConfig
from evidence_parts.study import BASE, CRITICS, Study, round_names

from lift_jax.cli import job_flags
from lift_jax.runtime import distributed

_ROUNDS = {f'{name}-rounds': ARMS[name] for name in arms.IN_ROUNDS}
_NAMES = (*ARMS, *_ROUNDS)
_TABLES = 'tables'

# Runs every call, in any order.
_Run = Callable[[Sequence[functools.partial]], None]


def main(argv: Sequence[str] | None = None) -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  parser.add_argument('--seeds', default='')
  parser.add_argument('--only', default='')
  parser.add_argument('--search', action='store_true')
  parser.add_argument('--choices', type=pathlib.Path, default=search.CHOICES)
  parser.add_argument('--processes', type=int, default=1)
  parser.add_argument('--config', default=evidence_config.__file__)
  flags, overrides = parser.parse_known_args(argv)
  _start_process()
  seeds = flags.seeds or ('100' if flags.search else '0,1,2,3,4')
  studies = _Studies(
    tuple(int(seed) for seed in seeds.split(',')),
    flags.workdir,
    flags.config,
    tuple(overrides),
    flags.search,
  )
  with _runner(flags.processes) as run:
    command = _search if flags.search else _compare
    command(studies, flags.only, flags.choices, run)
  return 0


@dataclasses.dataclass(frozen=True)
class _Studies:
  """The studies of a command; can be sent to another process.

  Attributes:
    seeds: of the studies.
    workdir: of all.
    config: the file of the config.
    overrides: of the config.
    is_search: whether settings are searched for.
  """

  seeds: tuple[int, ...]
  workdir: pathlib.Path
  config: str
  overrides: tuple[str, ...]
  is_search: bool

  def open(self, seed: int) -> Study:
    arguments = [
      f'--config={self.config}',
      f'--workdir={self.workdir / f"seed_{seed}"}',
      f'--config.seed={seed}',
      *self.overrides,
    ]
    call = job_flags.parse(arguments, EvidenceConfig, 'evidence')
    return Study(call, self.is_search, distributed.start_logging())

  def call(self, seed: int, method: str, *arguments) -> functools.partial:
    """A call of a method of the study of a seed."""
    return functools.partial(_call, self, seed, method, *arguments)


def _call(studies: _Studies, seed: int, method: str, *arguments) -> None:
  getattr(studies.open(seed), method)(*arguments)


def _start_process() -> None:
  distributed.start_logging()
  job_flags.use_compilation_cache()


def _run_here(calls: Sequence[functools.partial]) -> None:
  for call in calls:
    call()


@contextlib.contextmanager
def _runner(processes: int) -> Iterator[_Run]:
  """Runs calls, in so many processes."""
  if processes == 1:
    yield _run_here
    return
  # Processes share the GPU, so that none may take its memory beforehand.
  os.environ.setdefault('XLA_PYTHON_CLIENT_PREALLOCATE', 'false')
  with concurrent.futures.ProcessPoolExecutor(
    processes, multiprocessing.get_context('spawn'), _start_process
  ) as pool:

    def run(calls: Sequence[functools.partial]) -> None:
      for future in [pool.submit(call) for call in calls]:
        future.result()

    yield run


def _search(
  studies: _Studies, only: str, path: pathlib.Path, run: _Run
) -> None:
  """Tries every candidate of the methods; writes and prints the choices."""
  methods = arms.choose(
    only, [n for n, method in METHODS.items() if method.grid]
  )
  run([studies.call(seed, 'start') for seed in studies.seeds])
  tried = {
    search.candidate_name(method, candidate): (method, candidate)
    for method in methods
    for candidate in METHODS[method].candidates()
  }
  calls = []
  for name, (method, candidate) in tried.items():
    arm = arms.search_arm(method)
    settings = arm.settings({method: candidate})
    calls += [
      studies.call(seed, 'run', name, arm, settings) for seed in studies.seeds
    ]
  run(calls)
  values: dict[str, dict[int, measures.Values]] = {name: {} for name in tried}
  for seed in studies.seeds:
    study = studies.open(seed)
    for name in tried:
      values[name][seed] = study.values(name)
  config = study.config.bootstrap
  found = search.write_choices(path, values, study.conditions(), config)
  print('\n'.join(tables.tried(found)))


def _compare(
  studies: _Studies, only: str, path: pathlib.Path, run: _Run
) -> None:
  """Runs the arms that are asked for; prints all that was measured."""
  if only != _TABLES:
    _run_arms(studies, arms.choose(only, _NAMES), path, run)
  measured, accuracies = {}, {}
  for seed in studies.seeds:
    study = studies.open(seed)
    rows = [BASE, *ARMS]
    for name in _ROUNDS:
      rows += round_names(name, study.config.rounds)
    measured[seed] = {name: study.values(name) for name in rows}
    accuracies[seed] = study.critic_accuracy()
  lines = tables.markdown(measured, accuracies, study.config.bootstrap)
  print('\n'.join(lines))


def _run_arms(
  studies: _Studies, names: Sequence[str], path: pathlib.Path, run: _Run
) -> None:
  """Trains and evaluates arms, each for all seeds before the next."""
  choices = search.read_choices(path)
  seeds = studies.seeds
  needs_critic = any(CRITIC in name for name in names)
  shared = [studies.call(seed, 'start') for seed in seeds]
  if needs_critic:
    shared += [studies.call(seed, 'train_critics') for seed in seeds]
  run(shared)
  if needs_critic:
    run([studies.call(seed, 'score', 'clips', CRITICS[0]) for seed in seeds])
  calls = []
  for name in names:
    arm = (ARMS | _ROUNDS)[name]
    method = 'run_rounds' if name in _ROUNDS else 'run'
    settings = arm.settings(choices)
    calls += [studies.call(seed, method, name, arm, settings) for seed in seeds]
  run(calls)
  if needs_critic:
    run(
      [
        studies.call(seed, 'judge', name)
        for seed in seeds
        for name in studies.open(seed).evaluated()
      ]
    )


if __name__ == '__main__':
  main()
