"""A side in a process of its own, so that its memory is its own.

That process may run another Python, with another version of JAX.
"""

from collections.abc import Iterator
import contextlib
import functools
import importlib.metadata
import multiprocessing
from multiprocessing.connection import Connection
import os
import pathlib
import subprocess
import sys

from cpu_parts import rounds, rows

from lift_jax.cli import main as cli

_BENCHMARKS = pathlib.Path(__file__).resolve().parents[1]
_PACKAGES = (
  'jax', 'jaxlib', 'flax', 'grain', 'torch', 'diffusers', 'transformers',
  'peft',
)  # fmt: skip


@contextlib.contextmanager
def open_side(
  row: rows.Row,
  name: str,
  folder: pathlib.Path,
  *,
  threads: int,
  python: str,
  versions: dict[str, dict[str, str]],
) -> Iterator[rounds.TakeTurn]:
  """Starts a process, and what makes it take a turn.

  Args:
    row: whose side it is.
    name: of `rows.SIDES`.
    folder: see `rows.Row.write`.
    threads: for torch.
    python: interpreter of our side.
    versions: gets those of the packages that the process has imported.
  """
  here, there = multiprocessing.Pipe()
  process = subprocess.Popen(
    [
      sys.executable if name == 'torch' else python,
      *('-m', 'cpu_parts.processes', str(there.fileno())),
      *(row.name, name, str(folder), str(threads)),
    ],
    pass_fds=(there.fileno(),),
    env=os.environ | {
      'PYTHONPATH': os.pathsep.join(
        map(str, (_BENCHMARKS, _BENCHMARKS.parent))
      ),
      'JAX_PLATFORMS': 'cpu',
    },
  )  # fmt: skip
  there.close()

  def take_turn(number: int, with_profile: bool) -> rounds.Turn:
    try:
      here.send((number, with_profile))
      turn, imported = here.recv()
    except (EOFError, OSError):
      sys.exit(
        f'benchmarks/cpu.py: {row.name}: the process of {name} ended with '
        f'status {process.wait()} in round {number}'
      )
    versions[name] = versions.get(name, {}) | imported
    return turn

  with here, process:
    try:
      yield take_turn
    finally:
      here.close()  # at which the process ends


def main() -> None:
  """What that process runs."""
  fd, row_name, name, folder, threads = sys.argv[1:]
  (row,) = rows.choose(row_name)
  if name == 'ours':
    cli.hide_torch()
  with Connection(int(fd)) as connection:
    side = row.open_side(name, pathlib.Path(folder), int(threads))
    take_turn = functools.partial(rounds.take_turn, side, name)
    with contextlib.suppress(EOFError):
      while True:
        turn = take_turn(*connection.recv())
        connection.send((turn, _versions()))


def _versions() -> dict[str, str]:
  return {'python': sys.version.split()[0]} | {
    package: importlib.metadata.version(package)
    for package in _PACKAGES
    if sys.modules.get(package) is not None
  }


if __name__ == '__main__':
  main()
