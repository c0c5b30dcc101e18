"""Our Qwen3-VL critic next to transformers and PEFT on a CPU, in fp32.

  python benchmarks/critic_cpu.py --workdir=DIR [--threads=N] [--rounds=5]
                                  [--profile]

  scoring   16 clips with three questions each, as `lift score` asks them: a
            clip and its caption are read once, and then the questions.
            Transformers reads clip, caption and question three times, as plain
            code does; it keeps the logits of the last token alone.
  training  a step of `lift train_critic` on the answers of four examples:
            adapters on the decoder, AdamW, clipped gradients, no recomputation.
            The same with PEFT, torch.optim.AdamW and gradients of nothing else.

Both sides have the same random weights, frames, tokens and batches. They take
turns in one process that is bound to N cores, and change who is first in every
round. A round whose results differ ends the benchmark with status 1.

--profile then runs each side once more and says what operations it consists of.
--tiny shows that all of it works.

Prints tables for docs/performance.md and keeps all figures in DIR/critic.json.
Needs Linux, torch, transformers and PEFT.
"""

import argparse
from collections.abc import Callable
import importlib.metadata
import os
import pathlib
import statistics
import sys
import tempfile
import time
from typing import Any

from cpu_parts import profiles
from critic_cpu_data import MIDDLE, TINY, Data, Size
from critic_cpu_sides import (
  OurScoring,
  OurTraining,
  TheirScoring,
  TheirTraining,
)
import jax
import numpy as np

from lift_jax import partitioning
from lift_jax.models import critic_config, critics
from lift_jax.models.qwen3vl.backbone import BACKBONE
from lift_jax.runtime.files import write_json

GOALS = {'scoring': 0.5, 'training': 1.0}  # ours / theirs, at most
# Largest difference of probabilities; the others are relative.
TOLERANCES = {'probabilities': 1e-4, 'loss': 1e-4, 'grad_norm': 1e-3}
PROFILERS = {'ours': profiles.of_jax, 'theirs': profiles.of_torch}
PROFILED = 12  # kinds of operations that are printed


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  parser.add_argument('--threads', type=int, default=1)
  parser.add_argument('--rounds', type=int, default=5)
  parser.add_argument('--profile', action='store_true')
  parser.add_argument('--tiny', action='store_true', help='shows that it works')
  flags = parser.parse_args()
  cores = sorted(os.sched_getaffinity(0))
  if not 1 <= flags.threads <= len(cores):
    parser.error(f'--threads must be from 1 to {len(cores)}, the cores here')
  # XLA makes as many threads as there are cores that its process may use.
  os.sched_setaffinity(0, cores[: flags.threads])
  jax.config.update('jax_platforms', 'cpu')
  flags.workdir.mkdir(parents=True, exist_ok=True)
  load = os.getloadavg()[0]
  with tempfile.TemporaryDirectory(dir=flags.workdir) as folder:
    measured = measure(
      TINY if flags.tiny else MIDDLE,
      flags.threads,
      flags.rounds,
      pathlib.Path(folder),
      flags.profile,
    )
  names = ('jax', 'flax', 'torch', 'transformers', 'peft')
  result = {
    'threads': flags.threads,
    'load_average_before': load,
    'versions': {name: importlib.metadata.version(name) for name in names},
    **measured,
  }
  write_json(flags.workdir / 'critic.json', result)
  print('\n'.join(markdown(result)))


def measure(
  size: Size,
  threads: int,
  rounds: int,
  folder: pathlib.Path,
  with_profiles: bool = False,
) -> dict[str, Any]:
  """All rounds of both comparisons, and profiles of the sides.

  Args:
    size: of what is measured.
    threads: of torch; those of XLA depend on the cores of the process.
    rounds: of each comparison, after one to warm up.
    folder: for the weights.
    with_profiles: whether to profile each side.
  """
  import torch

  torch.set_num_threads(threads)
  critic_config.make_random(folder / 'critic', BACKBONE, size.config, seed=0)
  critic = critics.open_critic(folder / 'critic')
  mesh = partitioning.make_mesh(
    partitioning.MeshConfig(), jax.local_devices()[:1]
  )
  data = Data(size)
  comparisons = {
    'scoring': (
      OurScoring(critic, mesh, data),
      TheirScoring(folder / 'critic', data),
    ),
    'training': (
      ours := OurTraining(critic, mesh, data),
      TheirTraining(ours.write_start(folder), folder / 'critic', ours, data),
    ),
  }
  measured: dict[str, Any] = {
    name: [one_round(name, number, *sides) for number in range(rounds + 1)][1:]
    for name, sides in comparisons.items()
  }
  if with_profiles:
    measured['profiles'] = {
      f'{name}, {side}': PROFILERS[side](run)
      for name, sides in comparisons.items()
      for side, run in zip(PROFILERS, sides, strict=True)
    }
  return measured


def one_round(
  name: str,
  number: int,
  ours: Callable[[], dict[str, Any]],
  theirs: Callable[[], dict[str, Any]],
) -> dict[str, dict[str, float]]:
  """Times of both sides; round 0 is there to warm up."""
  sides = {'ours': ours, 'theirs': theirs}
  measured, found = {}, {}
  for side in list(sides) if number % 2 else list(sides)[::-1]:
    # The processor's time too: others may use the same cores.
    start, cpu_start = time.perf_counter(), time.process_time()
    found[side] = sides[side]()
    measured[side] = {
      'seconds': time.perf_counter() - start,
      'cpu_seconds': time.process_time() - cpu_start,
    }
  for key, value in found['ours'].items():
    expected = np.asarray(found['theirs'][key])
    scale = 1.0 if key == 'probabilities' else np.abs(expected)
    # NaN is not equal either.
    if not np.all(np.abs(value - expected) <= TOLERANCES[key] * scale):
      sys.exit(
        f'benchmarks/critic_cpu.py: {name}, round {number}: {key} differ: '
        f'{value} here, {expected} in torch'
      )
  print(
    f'{name}, round {number}: '
    + ', '.join(
      f'{k} {v["cpu_seconds"]:.2f} CPU s' for k, v in measured.items()
    ),
    file=sys.stderr,
    flush=True,
  )
  return measured


def markdown(result: dict[str, Any]) -> list[str]:
  """A row for each comparison, and a table for each profile."""
  lines = [
    '| | ours, CPU s | theirs, CPU s | ratio of CPU time | ratio of time '
    '| goal |',
    '|---|---|---|---|---|---|',
  ]
  for name, goal in GOALS.items():
    rounds = result[name]
    ours, theirs = (
      statistics.median(one[side]['cpu_seconds'] for one in rounds)
      for side in ('ours', 'theirs')
    )
    ratios = []
    for key in ('cpu_seconds', 'seconds'):
      each = [one['ours'][key] / one['theirs'][key] for one in rounds]
      ratios.append(
        f'{statistics.median(each):.2f} ({min(each):.2f} to {max(each):.2f})'
      )
    cells = [name, f'{ours:.2f}', f'{theirs:.2f}', *ratios, f'≤ {goal}']
    lines.append(f'| {" | ".join(cells)} |')
  if 'profiles' in result:
    lines += profiles.markdown(result['profiles'], PROFILED)
  return lines


if __name__ == '__main__':
  main()
