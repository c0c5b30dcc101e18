"""What each job costs on slices and hosts of every size: docs/pods.md.

  python benchmarks/pods.py --workdir=DIR [--only=REGEX] [--table]

Runs `lift plan --json` for every row that REGEX matches, one after the other,
and keeps what it says in DIR; rows that are there are not planned again. Then
prints the tables of all that is there; --table only prints. A row takes minutes
of one core, up to ten, and some GiB of memory. TPUs need libtpu and GPUs JAX's
CUDA plugin, see `lift plan --help`; nothing here needs the devices.

A layout is the config's own unless LAYOUTS or MESH_OF_LARGE name another, found
by trying.
"""

import argparse
from collections.abc import Iterator, Sequence
import dataclasses
import json
import pathlib
import re
import subprocess
import sys
import time
from typing import Any

from lift_jax.planning import topology as topology_lib
from lift_jax.runtime.files import write_json

_CONFIGS = pathlib.Path(__file__).parents[1] / 'configs'
_GIB = 2**30

# A small slice, a middle one, and one of 256 chips or more; 1, 8 and 64 GPUs.
SLICES = (
  *('v5e:2x4', 'v5e:8x8', 'v5e:16x16'),
  *('v5p:2x2x1', 'v5p:4x4x4', 'v5p:8x8x8'),
  *('v6e:2x4', 'v6e:8x8', 'v6e:16x16'),
  *('h100:1x1', 'h100:1x8', 'h100:8x8'),
)
# Of the main job also the slices between, and 1,024 chips as one slice and two.
ALIGN_SLICES = (
  *SLICES,
  *('v6e:4x4', 'v6e:4x8', 'v6e:8x16'),
  *('v5p:8x8x16', '2*v5p:8x8x8'),
)
# Critics of a few billion parameters fit on the smallest ones.
SMALL_SLICES = ('v5e:2x4', 'v5p:2x2x1', 'v6e:2x4', 'h100:1x1')
# These jobs work on each host by itself.
HOSTS = ('v5e:2x2', 'v5p:2x2x1', 'v6e:2x2', 'h100:1x1', 'h100:1x8')
SMALL_HOSTS = ('v5e:2x2', 'v5p:2x2x1', 'v6e:2x2', 'h100:1x1')
JOBS = {
  'align 2B': ('align', 'align_cogvideox_2b.py', ALIGN_SLICES, ()),
  'align 5B': ('align', 'align_cogvideox_5b.py', SLICES, ()),
  'train_critic 13B': ('train_critic', 'critic_vila_13b.py', SLICES, ()),
  'sample 2B': ('sample', 'sample.py', HOSTS, ()),
  'sample 5B': (
    *('sample', 'sample.py', HOSTS),
    ('--config.model.published=CogVideoX-5b',),
  ),
  'score 13B': ('score', 'score.py', HOSTS, ()),
  'train_critic Qwen3-VL 4B': (
    *('train_critic', 'critic_qwen3vl_4b.py', SMALL_SLICES, ()),
  ),
  'score Qwen3-VL 4B': (
    *('score', 'score.py', SMALL_HOSTS),
    ('--config.model.published=Qwen3-VL-4B',),
  ),
}
# Where the config's own layout does not fit, or memory allows a faster one: by
# the job's name and by the chip, or the topology, which goes before.
LAYOUTS = {
  ('align 2B', 'v5e'): (
    '--config.train.grad_accum=8',
    '--config.train.remat=full',
  ),
  ('align 5B', 'v5e:2x4'): (
    '--config.train.trainable=lora',
    '--config.train.remat=full',
  ),
  ('align 5B', 'v5e:8x8'): (
    '--config.train.grad_accum=16',
    '--config.train.remat=full',
    '--config.mesh.context=2',
  ),
  ('align 5B', 'v5e:16x16'): (
    '--config.train.grad_accum=16',
    '--config.train.remat=full',
    '--config.mesh.fsdp=32',
    '--config.mesh.context=2',
  ),
  ('align 5B', 'v6e:2x4'): (
    '--config.train.grad_accum=16',
    '--config.train.remat=full',
    '--config.mesh.context=2',
  ),
  ('align 5B', 'h100:1x1'): ('--config.train.trainable=lora',),
  ('align 2B', 'h100'): ('--config.train.grad_accum=2',),
  ('score 13B', 'v5e'): ('--config.mesh.tensor=4',),
  ('score 13B', 'v6e'): ('--config.mesh.tensor=2',),
  ('train_critic 13B', 'v5p'): ('--config.train.grad_accum=1',),
  ('train_critic 13B', 'v6e'): ('--config.train.grad_accum=2',),
  ('train_critic 13B', 'h100'): ('--config.train.grad_accum=1',),
}
# More than 64 parts do not go into every axis of every parameter.
LARGE = (
  *('v5e:16x16', 'v5p:8x8x8', 'v5p:8x8x16', '2*v5p:8x8x8'),
  *('v6e:8x16', 'v6e:16x16'),
)
MESH_OF_LARGE = ('--config.mesh.fsdp=64', '--config.mesh.data=-1')
# The parameters are cut into 64 parts on all of them.
SCALED = 'align 2B'
SCALED_SLICES = ('v5p:4x4x4', 'v5p:8x8x8', 'v5p:8x8x16', '2*v5p:8x8x8')


@dataclasses.dataclass(frozen=True)
class Row:
  """A job on a topology.

  Attributes:
    name: of the job, with the model's size.
    topology: as `lift plan` takes it.
    job: as `lift plan` takes it.
    config: a file of configs/.
    settings: flags that differ from it.
  """

  name: str
  topology: str
  job: str
  config: str
  settings: tuple[str, ...]

  @property
  def key(self) -> str:
    return f'{self.name} on {self.topology}'

  @property
  def command(self) -> list[str]:
    return [
      *('plan', f'--config={_CONFIGS / self.config}', f'--job={self.job}'),
      *(f'--topology={self.topology}', *self.settings),
    ]


def main() -> int:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  parser.add_argument('--only', type=re.compile, default='')
  parser.add_argument('--table', action='store_true')
  flags = parser.parse_args()
  flags.workdir.mkdir(parents=True, exist_ok=True)
  failed = False
  if not flags.table:
    for row in rows():
      if re.search(flags.only, row.key) and not _read(flags.workdir, row):
        failed |= not plan(flags.workdir, row)
  print('\n'.join(table(flags.workdir) + weak_scaling(flags.workdir)))
  return int(failed)


def rows() -> Iterator[Row]:
  """All of them, as in the table."""
  for name, (job, config, topologies, settings) in JOBS.items():
    for topology in topologies:
      of_chip = LAYOUTS.get((name, topology.split(':')[0]), ())
      layout = LAYOUTS.get((name, topology), of_chip)
      mesh = MESH_OF_LARGE if topology in LARGE else ()
      # Of two flags for the same setting the last.
      flags = {flag.split('=')[0]: flag for flag in (*settings, *mesh, *layout)}
      yield Row(name, topology, job, config, tuple(flags.values()))


def plan(workdir: pathlib.Path, row: Row) -> bool:
  """Plans a row and keeps the result; False if `lift plan` failed."""
  start = time.monotonic()
  ended = subprocess.run(
    [sys.executable, '-m', 'lift_jax', *row.command, '--json'],
    capture_output=True,
    text=True,
    check=False,
  )
  seconds = time.monotonic() - start
  if ended.returncode:
    lines = ended.stderr.strip().splitlines()
    print(f'{row.key}: {lines[-1] if lines else "died"}', file=sys.stderr)
    return False
  found = {'settings': row.settings, 'plan': json.loads(ended.stdout)}
  write_json(_path(workdir, row), found)
  print(f'{row.key}: {seconds:.0f} s', file=sys.stderr)
  return True


def _path(workdir: pathlib.Path, row: Row) -> pathlib.Path:
  return workdir / f'{re.sub(r"[^A-Za-z0-9]+", "_", row.key)}.json'


def _read(workdir: pathlib.Path, row: Row) -> dict[str, Any] | None:
  """The plan, if it is there and of the same settings."""
  path = _path(workdir, row)
  if not path.is_file():
    return None
  found = json.loads(path.read_text(encoding='utf-8'))
  return found['plan'] if found['settings'] == list(row.settings) else None


def table(workdir: pathlib.Path) -> list[str]:
  """Markdown, a table for each job; of several programs, the main one's."""
  lines = []
  for name in JOBS:
    found = [
      (row, planned)
      for row in rows()
      if row.name == name and (planned := _read(workdir, row))
    ]
    if found:
      lines += ['', f'### {name}', '', *_HEAD]
      lines += [_line(row, planned) for row, planned in found]
  return lines


_HEAD = (
  '| devices | layout | settings | memory, GiB of | done / model FLOPs | '
  'seconds | bound by | videos/s/chip | MFU, % |',
  '|---|---|---|---|---|---|---|---|---|',
)


def _line(row: Row, planned: dict[str, Any]) -> str:
  program = _main_program(planned['programs'])
  settings = ' '.join(
    f'`{flag.removeprefix("--config.")}`' for flag in row.settings
  )
  layout = planned['mesh'].split(': ', 1)[-1]
  available = program['available'] or float('nan')
  room = f'{program["needed"] / _GIB:.1f} of {available / _GIB:.1f}'
  cells = [row.topology, layout, settings, room]
  if not program['fits']:
    return f'| {" | ".join(cells)}: does not fit | | | | | |'
  estimate = program['estimate']
  fast, slow = estimate['overlapped'], estimate['in_turn']
  cells += [
    f'{program["done_flops"] / program["model_flops"]:.2f}',
    f'{fast["seconds"]:.3g}–{slow["seconds"]:.3g}',
    estimate['bound'],
    f'{slow["videos_per_second_per_chip"]:.3g}–'
    f'{fast["videos_per_second_per_chip"]:.3g}',
    f'{100 * slow["mfu"]:.0f}–{100 * fast["mfu"]:.0f}',
  ]
  return f'| {" | ".join(cells)} |'


def weak_scaling(workdir: pathlib.Path) -> list[str]:
  """Markdown: what a job does on more and more chips; [] unless it is there."""
  found = {
    row.topology: _main_program(planned['programs'])
    for row in rows()
    if row.name == SCALED and (planned := _read(workdir, row))
  }
  programs = {
    topology: found[topology]
    for topology in SCALED_SLICES
    if topology in found and found[topology]['fits']
  }
  if len(programs) < 2:
    return []
  lines = [
    *('', '## Weak scaling', ''),
    '| slices | chips | videos a step | seconds | videos/s, at least | '
    'of linear, at least |',
    '|---|---|---|---|---|---|',
  ]
  first = None
  for topology, program in programs.items():
    chips = topology_lib.parse(topology).num_devices
    fast, slow = (program['estimate'][k] for k in ('overlapped', 'in_turn'))
    rate = slow['videos_per_second_per_chip']
    cells = [
      topology,
      f'{chips:,}',
      f'{round(rate * slow["seconds"]) * chips:,}',
      f'{fast["seconds"]:.3g}–{slow["seconds"]:.3g}',
      f'{rate * chips:.3g}',
      f'{rate / first:.0%}' if first else '',
    ]
    first = first or rate
    lines.append(f'| {" | ".join(cells)} |')
  return lines


def _main_program(programs: Sequence[dict[str, Any]]) -> dict[str, Any]:
  """The first that does not fit, or that which takes longest."""
  for program in programs:
    if not program['fits']:
      return program
  return max(programs, key=lambda each: each['estimate']['in_turn']['seconds'])


if __name__ == '__main__':
  sys.exit(main())
