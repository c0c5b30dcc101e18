"""Several rounds of sampling, scoring and alignment, guarded against hacking.

usage: lift rounds --config=FILE.py[:variant] --workdir=DIR [--multihost]
                   [--config.SECTION.FIELD=VALUE ...]

Each round samples clips from the model of the last one, scores them with a
critic, has people or a vote of critics correct some labels, and aligns the
model on them. Guards then compare clips of the same prompts and noise with
those of the first model; a round that breaks a stop rule is rolled back.

DIR gets a folder for each stage of each round, rounds.json, which names the
final model, and rounds.html. The same command again resumes; on SIGTERM the job
exits with status 143. Where a round waits for people, it says for what and
exits with status 0.

example: lift rounds --config=configs/rounds_cogvideox_2b.py:smoke --workdir=DIR
"""

import dataclasses
import logging
from typing import Any

from lift_jax.cli import job_flags
from lift_jax.evaluation import guards
from lift_jax.evaluation.guards import Guard, Measured
from lift_jax.jobs.rounds_config import RoundsConfig
from lift_jax.jobs.rounds_stages import Rounds
from lift_jax.jobs.rounds_state import State, Waiting, name_of
from lift_jax.report.rounds_page import rounds_page
from lift_jax.runtime import distributed
from lift_jax.runtime.files import write_json, write_text

RUNNING, WAITING = 'running', 'waiting'
FINISHED, STOPPED = 'finished', 'stopped by a guard'


def main(argv: list[str]) -> int:
  with job_flags.start(argv, RoundsConfig, 'rounds') as (call, logger):
    run(call, logger)
  return 0


@dataclasses.dataclass(frozen=True)
class Round:
  """The outcome of a round.

  Attributes:
    number: from 1.
    began_with: name of the good round, or base, whose model it began with.
    num_clips: that it sampled to train on.
    num_steps: of the optimizer.
    guards: what they measured.
  """

  number: int
  began_with: str
  num_clips: int
  num_steps: int
  guards: tuple[Guard, ...]

  @property
  def broken(self) -> list[str]:
    """Why it is rolled back; empty if it is not."""
    return [guard.broken for guard in self.guards if guard.broken]


def run(call: job_flags.Invocation, logger: logging.Logger) -> dict[str, Any]:
  """Runs all rounds; returns the content of rounds.json."""
  config: RoundsConfig = call.config
  rounds = Rounds(call, logger)
  job_flags.write_config(call, 'rounds')
  found: list[Round] = []
  good, state = rounds.base, FINISHED
  try:
    rounds.real()
    base = last = rounds.measure(good)
    for number in range(1, config.budget.rounds + 1):
      left, now = _run_round(rounds, number, good)
      checked = guards.check(
        base, last, now, rounds.training(number), config.guards.rules
      )
      found.append(
        Round(
          number,
          good.name,
          config.clips_per_round,
          config.steps_per_round,
          tuple(checked),
        )
      )
      for line in _lines(found[-1]):
        logger.info('rounds: %s', line)
      if not found[-1].broken:
        good, last = left, now
      elif config.guards.on_break == 'stop':
        state = STOPPED
        break
      _report(call, found, good, RUNNING)
  except Waiting as waiting:
    logger.info('rounds: %s', waiting)
    return _report(call, found, good, WAITING)
  logger.info(
    'rounds: %s; the model is that of %s: %s; report: %s',
    state,
    good.name,
    ' with '.join([good.model.path, *(a.path for a in good.model.adapters)]),
    call.workdir / 'rounds.html',
  )
  return _report(call, found, good, state)


def _run_round(
  rounds: Rounds, number: int, good: State
) -> tuple[State, Measured]:
  """What a round leaves, and what the guards measure of it."""
  rounds.sample(number, good)
  rounds.score(number, good)
  people = rounds.correct(number)
  critic = rounds.train_critic(number, good, people)
  model = rounds.align(number, good)
  state = State(name_of(number), model, critic)
  return state, rounds.measure(state)


def _lines(outcome: Round) -> list[str]:
  """The outcome of a round as lines of the log."""
  lines = [f'round {outcome.number}, begun with {outcome.began_with}']
  for guard in outcome.guards:
    since = f' since {guard.since}' if guard.since else ''
    bounds = (guard.lowest, guard.highest)
    limits = ' and '.join(f'{x:g}' for x in bounds if x is not None)
    limit = f', limit {limits}' if limits else ''
    mark = ', broken' if guard.broken else ''
    lines.append(f'  {guard.name:18}{_text(guard.value)}{since}{limit}{mark}')
  lines += [f'  rolled back: {reason}' for reason in outcome.broken]
  return lines


def _text(value) -> str:
  text = f'{value.value:.4g}'
  if value.low is None:
    return text
  return f'{text} [{value.low:.4g}, {value.high:.4g}]'


def _report(
  call: job_flags.Invocation, found: list[Round], good: State, state: str
) -> dict[str, Any]:
  """Writes rounds.json and rounds.html; returns the content of the former."""
  results = {
    'state': state,
    'seed': call.config.seed,
    'rounds': [
      dataclasses.asdict(outcome)
      | {'rolled_back': bool(outcome.broken), 'broken': outcome.broken}
      for outcome in found
    ],
    'model': {
      'of': good.name,
      'path': good.model.path,
      'adapters': [adapter.path for adapter in good.model.adapters],
    },
    'critic': {
      'path': good.critic.path,
      'adapters': [adapter.path for adapter in good.critic.adapters],
    },
  }
  if distributed.is_primary():
    write_json(call.workdir / 'rounds.json', results)
    write_text(call.workdir / 'rounds.html', rounds_page(results))
  return results
