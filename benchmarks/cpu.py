"""Our programs beside those of torch on a CPU, in time and memory.

  python benchmarks/cpu.py --workdir=DIR [--only=ROWS] [--threads=1]
    [--rounds=5] [--profile] [--python=PYTHON]

  train         the step of `lift align`, in fp32; in torch the transformer of
                diffusers with the loss as the reference writes it,
                torch.optim.AdamW and clipped gradients; and how fast batches
                are read
  train-bf16    the same, computed in bfloat16
  sample        guided sampling and decoding of `lift sample`, against the
                pipeline of diffusers
  encode        the autoencoder of `lift prepare`, against that of diffusers
  score         three questions of `lift score` about each clip, against three
                passes of transformers
  train-critic  the step of `lift train_critic` on adapters, against PEFT

Both sides have the same random weights, inputs and noise, and recompute
nothing. Each has a process of its own, bound to the same cores; they take turns
and change who is first in every round. A round whose results differ ends the
benchmark with status 1. What is read and put in order for a round is outside of
the clock. Peak memory is that of the process, compilation included.

--python is the interpreter of our side, to measure another version of JAX.
--profile makes one more round of each side and says what operations it consists
of. --tiny shows that all of it works.

Prints tables for docs/performance.md and keeps all figures in DIR/cpu.json.
Needs Linux, and the packages of the `test` extra.
"""

import argparse
import functools
import importlib.util
import json
import os
import pathlib
import sys
import tempfile

from cpu_parts import processes, rounds, table
from cpu_parts import rows as rows_lib


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  parser.add_argument(
    '--only', default=','.join(row.name for row in rows_lib.ROWS)
  )
  parser.add_argument('--threads', type=int, default=1)
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--profile', action='store_true')
  parser.add_argument('--python', default=sys.executable)
  parser.add_argument('--tiny', action='store_true', help='shows that it works')
  flags = parser.parse_args()
  cores = sorted(os.sched_getaffinity(0))
  if not 1 <= flags.threads <= len(cores):
    parser.error(f'--threads must be from 1 to {len(cores)}, the cores here')
  if flags.rounds < 1:
    parser.error('--rounds must be at least 1')
  try:
    rows = rows_lib.choose(flags.only)
  except ValueError as error:
    parser.error(f'--only={flags.only}: {error}')
  _check_installed()
  # XLA makes as many threads as there are cores that its process may use; the
  # processes of both sides inherit this.
  os.sched_setaffinity(0, cores[: flags.threads])
  os.environ['JAX_PLATFORMS'] = 'cpu'
  flags.workdir.mkdir(parents=True, exist_ok=True)
  versions = {}
  result = {
    'threads': flags.threads,
    'load_average_before': os.getloadavg()[0],
    'processor': _processor(),
    'versions': versions,
    'rows': {},
  }
  open_side = functools.partial(
    processes.open_side,
    threads=flags.threads,
    python=flags.python,
    versions=versions,
  )
  for row in rows:
    with tempfile.TemporaryDirectory(dir=flags.workdir) as folder:
      result['rows'][row.name] = rounds.measure(
        row,
        pathlib.Path(folder),
        tiny=flags.tiny,
        rounds=flags.rounds,
        with_profile=flags.profile,
        open_side=open_side,
      )
  (flags.workdir / 'cpu.json').write_text(json.dumps(result, indent=1) + '\n')
  print('\n'.join(table.markdown(result)))


def _check_installed() -> None:
  for name in ('torch', 'diffusers', 'transformers', 'peft'):
    if importlib.util.find_spec(name) is None:
      sys.exit(
        f'benchmarks/cpu.py: {name} is missing; run '
        "python -m pip install -e '.[test]'"
      )


def _processor() -> str:
  for line in pathlib.Path('/proc/cpuinfo').read_text().splitlines():
    name, _, value = line.partition(':')
    if name.strip() == 'model name':
      return value.strip()
  return os.uname().machine


if __name__ == '__main__':
  main()
