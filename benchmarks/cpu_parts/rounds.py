"""Both sides take turns, and must find the same."""

from collections.abc import Callable
import contextlib
import dataclasses
import pathlib
import statistics
import sys
import time
from typing import Any

from cpu_parts import profiles
from cpu_parts.rows import SIDES, Results, Row, Side
import numpy as np


@dataclasses.dataclass(frozen=True)
class Turn:
  """What one side did in a round.

  Attributes:
    seconds: by the clock.
    cpu_seconds: of its process: others may use the same cores.
    peak_bytes: most memory that its process has held so far.
    results: what it computed.
    profile: seconds of each kind of operation; empty if it was not asked for.
  """

  seconds: float
  cpu_seconds: float
  peak_bytes: int
  results: Results
  profile: dict[str, float]


# `take_turn(number, with_profile)`.
TakeTurn = Callable[[int, bool], Turn]


def take_turn(side: Side, name: str, number: int, with_profile: bool) -> Turn:
  """Runs a round of a side in this process."""
  run, profile, results = side(number), {}, {}
  start, cpu_start = time.perf_counter(), time.process_time()
  if with_profile:
    profile = profiles.OF[name](lambda: results.update(run()))
  else:
    results = run()
  seconds = time.perf_counter() - start
  cpu_seconds = time.process_time() - cpu_start
  return Turn(seconds, cpu_seconds, _peak_bytes(), results, profile)


def _peak_bytes() -> int:
  """Of this process: `ru_maxrss` would begin at that of the process before."""
  status = pathlib.Path('/proc/self/status').read_text()
  (line,) = (one for one in status.splitlines() if one.startswith('VmHWM:'))
  return 1024 * int(line.split()[1])


def measure(
  row: Row,
  folder: pathlib.Path,
  *,
  tiny: bool,
  rounds: int,
  with_profile: bool,
  open_side: Callable[..., contextlib.AbstractContextManager[TakeTurn]],
) -> dict[str, Any]:
  """All figures of a row.

  Args:
    row: to measure.
    folder: for weights and inputs.
    tiny: see `Row.write`.
    rounds: that count; one before them warms up.
    with_profile: whether another one is profiled.
    open_side: `open_side(row, name, folder)` makes one of `SIDES`.
  """
  facts = row.write(folder, tiny, 1 + rounds + with_profile)
  with contextlib.ExitStack() as stack:
    sides = {
      name: stack.enter_context(open_side(row, name, folder)) for name in SIDES
    }
    turns = [_round(row, number, rounds, sides) for number in range(1 + rounds)]
    profiled = {}
    if with_profile:
      profiled = {
        name: side(1 + rounds, True).profile for name, side in sides.items()
      }
  return {
    'title': row.title,
    'goal': row.goal,
    **facts,
    'first_round': _figures(turns[0]),
    'rounds': [_figures(turn) for turn in turns[1:]],
    'ratio': _ratio(turns[1:], 'seconds'),
    'cpu_ratio': _ratio(turns[1:], 'cpu_seconds'),
    'peak_bytes': {name: turns[-1][name].peak_bytes for name in SIDES},
    'profiles': profiled,
  }


def _round(
  row: Row, number: int, rounds: int, sides: dict[str, TakeTurn]
) -> dict[str, Turn]:
  """A turn of each side; who is first changes."""
  order = SIDES if number % 2 else SIDES[::-1]
  turns = {name: sides[name](number, False) for name in order}
  check_equal(row, number, *(turns[name].results for name in SIDES))
  seconds = ', '.join(f'{n} {turns[n].cpu_seconds:.2f} CPU s' for n in SIDES)
  note = '' if number else ', which warms up and does not count'
  print(
    f'{row.name}: round {number} of {rounds}: {seconds}{note}',
    file=sys.stderr,
    flush=True,
  )
  return turns


def check_equal(row: Row, number: int, ours: Results, torch: Results) -> None:
  """Ends the benchmark if the sides do not compute the same; NaN is not."""
  for key, tolerance in row.tolerances.items():
    here, there = np.asarray(ours[key]), np.asarray(torch[key])
    if here.shape != there.shape:
      error, what = np.inf, f'{here.shape} here and {there.shape}'
    else:
      error = np.max(np.abs(here - there)) / np.max(np.abs(there))
      what = f'{error:.2g} off that'
      if not here.ndim:
        what = f'{here:.8g} here and {there:.8g}'
    if not error <= tolerance:
      sys.exit(
        f'benchmarks/cpu.py: {row.name}: round {number}: {key} is {what} in '
        'torch; times of different computations say nothing'
      )


def _figures(turns: dict[str, Turn]) -> dict[str, dict[str, float]]:
  """Times, and the results that are numbers."""
  return {
    name: {
      'seconds': turn.seconds,
      'cpu_seconds': turn.cpu_seconds,
      **{k: v for k, v in turn.results.items() if isinstance(v, float)},
    }
    for name, turn in turns.items()
  }


def _ratio(rounds: list[dict[str, Turn]], key: str) -> dict[str, float]:
  """Ours / torch over the rounds."""
  ratios = [
    getattr(turns['ours'], key) / getattr(turns['torch'], key)
    for turns in rounds
  ]
  return {
    'median': statistics.median(ratios),
    'low': min(ratios),
    'high': max(ratios),
  }
