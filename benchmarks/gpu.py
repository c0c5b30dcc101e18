"""How fast and how exact this is on one GPU, beside torch, in ten minutes.

  python benchmarks/gpu.py --workdir=DIR [--minutes=10] [--tiny] \
    [--only=kernels,train,sample,score,torch]

Measures, at full size and with random weights:

  kernels  each kind of attention in bfloat16 against fp32, with gradients
  train    the step of `lift align`, CogVideoX-2B: batches, what is kept, DPO
  sample   50 guided steps and decoding of `lift sample`
  score    three questions of `lift score`: VILA 13B, Qwen3-VL 4B and 8B
  torch    training step and passes of diffusers, prefill of transformers,
           where those packages are there

Every row has a process of its own, the most wanted first. One is not begun, or
stopped, where the time is up, and the table says so; --only takes names of rows
too, to measure what was left out. A row that does not fit into the memory of
the GPU is a result; one that fails for another reason makes the exit status 1,
and the others go on.

DIR gets results.json, written anew after every row, and logs. Times are medians
of runs after a first one, compilation apart. Next to each are the bounds that
`lift plan` computes from the same compiled program. --tiny does the same at toy
sizes, on a CPU if there is no GPU. Only the first GPU is measured: hide the
others from JAX with CUDA_VISIBLE_DEVICES, as it takes memory of all that it
sees.
"""

import argparse
import datetime
import importlib
import importlib.util
import json
import os
import pathlib
import subprocess
import sys
import time
import traceback
from typing import Any

from gpu_parts import rows as rows_lib
from gpu_parts import table
from gpu_parts.rows import Row

# JAX takes three quarters of a GPU at once unless told, which would make rows
# run out of memory that is there. This is what scripts/local_gpus.sh gives
# training; the rest is for cuDNN, which allocates its own. Taken at once, as
# jobs do, so that memory is not left in pieces.
_MEMORY = {
  'XLA_CLIENT_MEM_FRACTION': '0.9',
  'XLA_PYTHON_CLIENT_PREALLOCATE': 'true',
}


def main(argv: list[str] | None = None) -> int:
  """The whole benchmark, or in a process of its own one row."""
  parser = argparse.ArgumentParser(
    description=__doc__.splitlines()[0],
    epilog=f'rows: {", ".join(row.name for row in rows_lib.ROWS)}',
  )
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  parser.add_argument('--only', default=','.join(rows_lib.PARTS))
  parser.add_argument('--minutes', type=float, default=10.0)
  parser.add_argument('--tiny', action='store_true')
  parser.add_argument('--row', help=argparse.SUPPRESS)
  flags = parser.parse_args(argv)
  if flags.row:
    measure(rows_lib.by_name(flags.row), flags.tiny, flags.workdir)
    return 0
  try:
    rows = rows_lib.choose(flags.only, flags.tiny)
  except ValueError as error:
    parser.error(f'--only={flags.only}: {error}')
  try:
    for folder in ('logs', 'rows'):
      (flags.workdir / folder).mkdir(parents=True, exist_ok=True)
  except OSError as error:
    parser.error(f'--workdir={flags.workdir}: {error.strerror}')
  results = _run(rows, flags)
  print('\n'.join(['', *table.markdown(results)]))
  _say_what_is_left(results)
  statuses = {found['status'] for found in results['rows'].values()}
  return 1 if 'failed' in statuses else 0


def _run(rows: list[Row], flags: argparse.Namespace) -> dict[str, Any]:
  """All rows, one after the other."""
  deadline = time.monotonic() + 60 * flags.minutes
  results = {
    'date': datetime.date.today().isoformat(),
    'minutes': flags.minutes,
    'tiny': flags.tiny,
    'rows': {},
  }
  for row in rows:
    start = time.monotonic()
    found = _attempt(row, flags, deadline - start)
    found['wall_seconds'] = time.monotonic() - start
    results['rows'][row.name] = found
    _write_json(flags.workdir / 'results.json', results)
    print(f'{row.name}: {table.progress(row, found)}', flush=True)
  return results


def _attempt(
  row: Row, flags: argparse.Namespace, seconds: float
) -> dict[str, Any]:
  """What a process for one row finds, in the time that is left."""
  missing = [n for n in row.needs if importlib.util.find_spec(n) is None]
  if missing:
    return _without(f'there is no {", ".join(missing)}', 'not installed')
  expected = 0.0 if flags.tiny else row.seconds
  if seconds <= expected:
    return _without(
      f'{max(seconds, 0.0):.0f} s were left, it may take {expected:.0f}'
    )
  path = _result_file(flags.workdir, row)
  path.unlink(missing_ok=True)
  log = flags.workdir / 'logs' / f'{row.name}.txt'
  with open(log, 'w', encoding='utf-8') as file:
    try:
      ended = subprocess.run(
        _command(row, flags),
        stdout=file,
        stderr=subprocess.STDOUT,
        env=_environment(row, flags.tiny),
        timeout=seconds,
      )
    except subprocess.TimeoutExpired:
      return _without(f'stopped after {seconds:.0f} s', 'out of time')
  if not path.exists():
    return _without(
      f'ended with status {ended.returncode}; see {log}', 'failed'
    )
  return json.loads(path.read_text('utf-8'))


def _without(reason: str, status: str = 'skipped') -> dict[str, Any]:
  return {'status': status, 'reason': reason}


def _command(row: Row, flags: argparse.Namespace) -> list[str]:
  command = [sys.executable, __file__, f'--row={row.name}']
  command.append(f'--workdir={flags.workdir}')
  return [*command, '--tiny'] if flags.tiny else command


def _environment(row: Row, tiny: bool) -> dict[str, str]:
  environment = _MEMORY | os.environ
  if tiny:  # where most of the time is the compiler's
    flags = environment.get('XLA_FLAGS', '')
    environment['XLA_FLAGS'] = f'{flags} --xla_backend_optimization_level=0'
  if row.library == 'torch':
    # Sizes are read through JAX, which must leave the GPU alone meanwhile.
    environment['JAX_PLATFORMS'] = 'cpu'
  return environment


def measure(row: Row, tiny: bool, workdir: pathlib.Path) -> None:
  """Measures one row in this process, and writes what came of it."""
  try:
    module = importlib.import_module(
      'gpu_parts.with_torch' if row.library == 'torch' else 'gpu_parts.with_jax'
    )
    job = getattr(module, row.job)
    found = {'status': 'ok'} | job(tiny=tiny, **row.settings)
    json.dumps(found, allow_nan=False)  # raises where something is not finite
  except Exception as error:
    traceback.print_exc()
    status = 'out of memory' if is_out_of_memory(error) else 'failed'
    message = ' '.join(str(error).split())[:300]
    found = _without(f'{type(error).__name__}: {message}', status)
  _write_json(_result_file(workdir, row), found)


def is_out_of_memory(error: Exception) -> bool:
  """Whether a device, or pinned memory of the host, was too small."""
  # XLA's status, and the class of torch, which need not be here.
  return (
    'RESOURCE_EXHAUSTED' in str(error)
    or type(error).__name__ == 'OutOfMemoryError'
  )


def _result_file(workdir: pathlib.Path, row: Row) -> pathlib.Path:
  return workdir / 'rows' / f'{row.name}.json'


def _write_json(path: pathlib.Path, value: Any) -> None:
  partial = path.with_name(f'.{path.name}.partial')
  partial.write_text(json.dumps(value, indent=1) + '\n', 'utf-8')
  os.replace(partial, path)


def _say_what_is_left(results: dict[str, Any]) -> None:
  names = [
    name
    for name, found in results['rows'].items()
    if found['status'] in ('skipped', 'out of time')
  ]
  if names:
    print(f'\nTime was up; what is left: --only={",".join(names)}')


if __name__ == '__main__':
  sys.exit(main())
