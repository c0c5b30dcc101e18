"""Whether feedback helps, and how best to use it, in the toy world.

  python benchmarks/evidence.py --workdir=DIR [--seeds=0,1,2,3,4] \
    [--only=ARM,ARM] [--search] [--choices=FILE.json] \
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
are not reported (--seeds is then 100, and --only takes methods). It writes the
file of --choices, which the arms read.

Everything is kept in DIR; the same command again resumes.
"""

import argparse
from collections.abc import Callable, Sequence
import pathlib

from evidence_parts import arms, measures, search, tables
from evidence_parts import config as evidence_config
from evidence_parts.arms import ARMS, CRITIC, METHODS
from evidence_parts.config import EvidenceConfig
from evidence_parts.study import BASE, Study, round_names

from lift_jax.cli import job_flags
from lift_jax.runtime import distributed

_ROUNDS = {f'{name}-rounds': ARMS[name] for name in arms.IN_ROUNDS}
_NAMES = (*ARMS, *_ROUNDS)
_TABLES = 'tables'


def main(argv: Sequence[str] | None = None) -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  parser.add_argument('--seeds', default='')
  parser.add_argument('--only', default='')
  parser.add_argument('--search', action='store_true')
  parser.add_argument('--choices', type=pathlib.Path, default=search.CHOICES)
  parser.add_argument('--config', default=evidence_config.__file__)
  flags, overrides = parser.parse_known_args(argv)
  logger = distributed.start_logging()
  job_flags.use_compilation_cache()

  def open_study(seed: int) -> Study:
    arguments = [
      f'--config={flags.config}',
      f'--workdir={flags.workdir / f"seed_{seed}"}',
      f'--config.seed={seed}',
      *overrides,
    ]
    call = job_flags.parse(arguments, EvidenceConfig, 'evidence')
    return Study(call, flags.search, logger)

  seeds = flags.seeds or ('100' if flags.search else '0,1,2,3,4')
  seeds = [int(seed) for seed in seeds.split(',')]
  if flags.search:
    _search(open_study, seeds, flags.only, flags.choices)
  else:
    _compare(open_study, seeds, flags.only, flags.choices)
  return 0


def _search(
  open_study: Callable[[int], Study],
  seeds: Sequence[int],
  only: str,
  path: pathlib.Path,
) -> None:
  """Tries every candidate of the methods, and writes the choices."""
  methods = arms.choose(
    only, [n for n, method in METHODS.items() if method.grid]
  )
  shares: dict[str, dict[int, float]] = {}
  for seed in seeds:
    study = open_study(seed)
    study.start()
    for method in methods:
      arm = arms.search_arm(method)
      for candidate in METHODS[method].candidates():
        name = search.candidate_name(method, candidate)
        study.run(name, arm, arm.settings({method: candidate}))
        values = study.values(name)
        shares.setdefault(name, {})[seed] = measures.mean(values, measures.ALL)
        search.write_choices(path, shares, study.conditions())


def _compare(
  open_study: Callable[[int], Study],
  seeds: Sequence[int],
  only: str,
  path: pathlib.Path,
) -> None:
  """Runs the arms that are asked for; prints all that was measured."""
  names = [] if only == _TABLES else arms.choose(only, _NAMES)
  measured, accuracies = {}, {}
  for seed in seeds:
    study = open_study(seed)
    if names:
      study.start()
      choices = search.read_choices(path)
      for name in names:
        arm = (ARMS | _ROUNDS)[name]
        run = study.run_rounds if name in _ROUNDS else study.run
        run(name, arm, arm.settings(choices))
      if any(CRITIC in name for name in names):
        study.judge()
    rows = [BASE, *ARMS]
    for name in _ROUNDS:
      rows += round_names(name, study.config.rounds)
    measured[seed] = {name: study.values(name) for name in rows}
    accuracies[seed] = study.critic_accuracy()
  lines = tables.markdown(measured, accuracies, study.config.bootstrap)
  print('\n'.join(lines))


if __name__ == '__main__':
  main()
