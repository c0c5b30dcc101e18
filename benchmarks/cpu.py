"""Our training step beside torch's on a CPU, and how fast batches are read.

  python benchmarks/cpu.py --workdir=DIR [--threads=N] [--rounds=7] [--profile]

Both sides fine-tune the same transformer of middle size, in fp32, by LiFT's
loss: the step of `lift align`, and in torch the transformer of diffusers with
the loss as the reference writes it, torch.optim.AdamW and clipped gradients.
Weights, batches, noise, timesteps and learning rates are the same; ours has
`train.remat` 'none', torch no gradient checkpointing. They take turns in one
process that is bound to N cores, and change who is first in every round. A
round whose losses or gradient norms differ ends the benchmark with status 1.

Torch is handed its noise and its order of axes outside of the clock; we draw
ours inside.

The batches come from a cache of random latents, which is written and read as
`lift prepare` and `lift align` do. What is measured of that is how many videos
a second they deliver, against how many a step consumes.

--profile then makes one more step of each side and says what operations it
consists of. --tiny shows that all of it works.

Prints tables for docs/performance.md and keeps all figures in DIR/cpu.json.
Needs Linux, torch and diffusers.
"""

import argparse
from collections.abc import Callable
import dataclasses
import importlib.metadata
import os
import pathlib
import statistics
import sys
import tempfile
import time
from typing import Any

import cpu_profile
from cpu_steps import (
  Arrays,
  Ours,
  Size,
  Torch,
  make_params,
  text_shape,
  to_batch,
)
import jax
import numpy as np

from lift_jax import partitioning
from lift_jax.data import cache as cache_lib
from lift_jax.data import global_batch, pipeline
from lift_jax.data.clip_flags import ClipRules
from lift_jax.data.records import AlignmentRecord
from lift_jax.models.cogvideox import flops
from lift_jax.models.cogvideox.config import TransformerConfig
from lift_jax.models.cogvideox.convert import TRANSFORMER_TABLE
from lift_jax.models.cogvideox.sharding import TRANSFORMER_RULES
from lift_jax.models.cogvideox.transformer import Transformer
from lift_jax.models.functional import functional
from lift_jax.runtime import distributed
from lift_jax.runtime.files import write_json
from lift_jax.training import setup as setup_lib
from lift_jax.weights import conversion

GOAL = 1.0  # our time as a share of torch's, at most
READING_GOAL = 10.0  # videos read for each that a step consumes, at least
# Relative: rounding alone. Of a tensor of 4 million numbers the norm of torch
# is 1e-4 below that in float64; ours is 1e-7 off.
TOLERANCES = {'loss': 1e-4, 'grad_norm': 1e-3}
REWARDS = (0.9, 0.2, 0.05)  # LiFT's, for Good, Normal and Bad
PROFILERS = {'ours': cpu_profile.of_jax, 'torch': cpu_profile.of_torch}
PROFILED = 12  # kinds of operations of a side that are printed
READING_THREADS = 2  # as in configs/align_sample.py

# Two clips of 13 frames of 256 x 256 pixels; a clip is 1,024 tokens of video
# and 226 of text.
MIDDLE = Size(
  TransformerConfig(
    num_layers=4,
    num_heads=8,
    sample_height=32,
    sample_width=32,
    sample_frames=13,
  ),
  latents=(4, 32, 32),
  batch_size=2,
  num_videos=32,
  reading_seconds=3.0,
)
TINY = Size(
  TransformerConfig(
    num_layers=2,
    num_heads=2,
    head_dim=16,
    time_embed_dim=16,
    text_embed_dim=24,
    max_text_length=6,
    sample_height=8,
    sample_width=8,
    sample_frames=5,
  ),
  latents=(2, 8, 8),
  batch_size=2,
  num_videos=4,
  reading_seconds=0.1,
)


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--workdir', type=pathlib.Path, required=True)
  parser.add_argument('--threads', type=int, help='all cores unless told')
  parser.add_argument('--rounds', type=int, default=7)
  parser.add_argument('--profile', action='store_true')
  parser.add_argument('--tiny', action='store_true', help='shows that it works')
  flags = parser.parse_args()
  cores = sorted(os.sched_getaffinity(0))
  threads = len(cores) if flags.threads is None else flags.threads
  if not 1 <= threads <= len(cores):
    parser.error(f'--threads must be from 1 to {len(cores)}, the cores here')
  if flags.rounds < 1:
    parser.error('--rounds must be at least 1')
  _check_installed()
  # XLA makes as many threads as there are cores that its process may use; it
  # asks once, when the first array is made.
  os.sched_setaffinity(0, cores[:threads])
  jax.config.update('jax_platforms', 'cpu')
  flags.workdir.mkdir(parents=True, exist_ok=True)
  size = TINY if flags.tiny else MIDDLE
  load = os.getloadavg()[0]
  with tempfile.TemporaryDirectory(dir=flags.workdir) as folder:
    measured = measure(
      size, threads, flags.rounds, pathlib.Path(folder), flags.profile
    )
  result = {
    'threads': threads,
    'load_average_before': load,
    'processor': _processor(),
    'versions': {
      name: importlib.metadata.version(name)
      for name in ('jax', 'jaxlib', 'flax', 'grain', 'torch', 'diffusers')
    },
    'size': dataclasses.asdict(size),
    **measured,
  }
  write_json(flags.workdir / 'cpu.json', result)
  print('\n'.join(markdown(result)))


def _check_installed() -> None:
  try:
    import diffusers  # noqa: F401
    import torch  # noqa: F401
  except ImportError as error:
    sys.exit(
      f'benchmarks/cpu.py: {error.name or error} is missing; run '
      "python -m pip install -e '.[test]'"
    )


def _processor() -> str:
  for line in pathlib.Path('/proc/cpuinfo').read_text().splitlines():
    name, _, value = line.partition(':')
    if name.strip() == 'model name':
      return value.strip()
  return os.uname().machine


def measure(
  size: Size,
  threads: int,
  rounds: int,
  folder: pathlib.Path,
  with_profile: bool,
) -> dict[str, Any]:
  """All figures; `folder` is for the cache and the weights."""
  mesh = partitioning.make_mesh(
    partitioning.MeshConfig(), jax.local_devices()[:1]
  )
  model = functional(lambda rngs: Transformer(size.transformer, rngs=rngs))
  setup = setup_lib.make_setup(model, TRANSFORMER_RULES, 'blocks', mesh)
  next_arrays = write_cache(size, setup, folder / 'cache')
  reading = measure_reading(size, setup, next_arrays)
  *batches, last = [next_arrays() for _ in range(1 + rounds + 1)]

  params = make_params(setup)
  published = folder / 'transformer'
  conversion.save(
    TRANSFORMER_TABLE, params, published, 'diffusion_pytorch_model'
  )
  write_json(published / 'config.json', size.transformer.to_json())
  with jax.set_mesh(mesh):
    sides = {
      'ours': Ours(size, setup, params),
      'torch': Torch(published, threads),
    }
    compared = [
      one_round(number, rounds, arrays, sides)
      for number, arrays in enumerate(batches)
    ]
    profiles = {}
    if with_profile:
      draws = sides['ours'].draws(1 + rounds, last)
      for side, profile in PROFILERS.items():
        profiles[side] = profile(sides[side].make_step(1 + rounds, last, draws))
  consumed = size.batch_size / _median(compared[1:], 'ours', 'seconds')
  tokens = size.transformer.num_tokens(*size.latents)
  return {
    'step_flops': size.batch_size
    * flops.forward_flops(size.transformer, tokens).training(
      trains_kernels=True
    ),
    'first_round': compared[0],
    'rounds': compared[1:],
    'ratio': _ratio(compared[1:], 'seconds'),
    'cpu_ratio': _ratio(compared[1:], 'cpu_seconds'),
    'profiles': profiles,
    'videos_per_second': {
      'read': reading,
      'consumed': consumed,
      'ratio': reading / consumed,
    },
  }


def write_cache(
  size: Size, setup: setup_lib.Setup, folder: pathlib.Path
) -> Callable[[], Arrays]:
  """Writes videos of random latents; returns what reads a batch of them."""
  rng = np.random.default_rng(0)
  config = size.transformer
  cache = cache_lib.LatentCache(folder, {})
  cache.start()
  records, items = [], []
  for index in range(size.num_videos):
    name = f'{index}.mp4'
    records.append(
      AlignmentRecord(
        video=name,
        path=folder / name,
        caption=name,
        reward=REWARDS[index % len(REWARDS)],
        is_real=False,
        file='alignment.json',
        place=f'record {index}',
      )
    )
    shape = (*size.latents, config.in_channels)
    mean = rng.standard_normal(shape, np.float32)
    logvar = rng.standard_normal(shape, np.float32) - 2
    text = rng.standard_normal(text_shape(config), np.float32)
    data = cache_lib.pack(mean=mean, logvar=logvar, text=text)
    items.append(
      cache_lib.EncodedClip(records[-1], data, (0, 0), '', (1, 1, 1), (), 0.5)
    )
  cache.write_shard(size.latents, items)
  cache.write_index()
  iterator = pipeline.make_iterator(
    cache,
    [(item,) for item in pipeline.join(cache, records, ClipRules())],
    size.batch_size,
    setup.batch_sharding,
    seed=0,
    num_threads=READING_THREADS,
  )
  return lambda: next(iterator)


def measure_reading(size: Size, setup: setup_lib.Setup, next_arrays) -> float:
  """Videos a second, from the cache to the device."""

  def read() -> None:
    jax.block_until_ready(to_batch(size, setup, next_arrays()))

  # What was read ahead before the clock must not count for much.
  for _ in range(2 * global_batch.READ_AHEAD):
    read()
  count, start = 0, time.perf_counter()
  while (elapsed := time.perf_counter() - start) < size.reading_seconds:
    read()
    count += size.batch_size
  return count / elapsed


def one_round(
  number: int, rounds: int, arrays: Arrays, sides: dict[str, Any]
) -> dict[str, dict[str, float]]:
  """One step of each side on the same batch; round 0 is there to warm up."""
  draws = sides['ours'].draws(number, arrays)
  names = list(sides) if number % 2 else list(sides)[::-1]
  measured = {}
  for name in names:
    step = sides[name].make_step(number, arrays, draws)
    # The processor's time too: others may use the same cores.
    start, cpu_start = time.perf_counter(), time.process_time()
    loss, norm = step()
    measured[name] = {
      'seconds': time.perf_counter() - start,
      'cpu_seconds': time.process_time() - cpu_start,
      'loss': loss,
      'grad_norm': norm,
    }
  for key in TOLERANCES:
    check_equal(number, key, measured['ours'][key], measured['torch'][key])
  distributed.start_logging().info(
    'round %d of %d: ours %.2f s, torch %.2f s%s',
    number,
    rounds,
    *(measured[side]['seconds'] for side in ('ours', 'torch')),
    '' if number else ', which warms up and does not count',
  )
  return measured


def check_equal(number: int, key: str, ours: float, torch: float) -> None:
  """Ends the benchmark if the sides do not compute the same; NaN is not."""
  if not abs(ours - torch) <= TOLERANCES[key] * abs(torch):
    sys.exit(
      f'benchmarks/cpu.py: round {number}: {key} is {ours:.8g} here and '
      f'{torch:.8g} in torch; times of different computations say nothing'
    )


def _median(rounds, side: str, key: str) -> float:
  return statistics.median(entry[side][key] for entry in rounds)


def _ratio(rounds, key: str) -> dict[str, float]:
  """Ours / torch over the rounds."""
  ratios = [entry['ours'][key] / entry['torch'][key] for entry in rounds]
  return {
    'median': statistics.median(ratios),
    'low': min(ratios),
    'high': max(ratios),
  }


def markdown(result: dict[str, Any]) -> list[str]:
  """The table, and what follows from it."""
  rounds, videos = result['rounds'], result['videos_per_second']
  gflop = result['step_flops'] / 1e9
  ours, torch = (
    gflop / _median(rounds, side, 'cpu_seconds') for side in ('ours', 'torch')
  )
  wall, cpu = (
    '{median:.3f} ({low:.3f} to {high:.3f})'.format(**result[key])
    for key in ('ratio', 'cpu_ratio')
  )
  return [
    '',
    '| round | ours, s | torch, s | ratio | ours, CPU s | torch, CPU s '
    '| ratio |',
    '|---|---|---|---|---|---|---|',
    *(_row(number, entry) for number, entry in enumerate(rounds, start=1)),
    '',
    f'Time of a step, ours / torch, median of {len(rounds)}: {wall}; of its '
    f'CPU time: {cpu}. Goal: at most {GOAL}.',
    f'Of {gflop:.3g} GFLOP in a step, a second of CPU time did {ours:.0f} here '
    f'and {torch:.0f} in torch.',
    f'Videos read in a second: {videos["read"]:.0f}, {videos["ratio"]:.3g} for '
    f'each that a step consumes. Goal: at least {READING_GOAL:.0f}.',
    *cpu_profile.markdown(result['profiles'], PROFILED),
  ]


def _row(number: int, entry: dict[str, dict[str, float]]) -> str:
  cells = [str(number)]
  for key in ('seconds', 'cpu_seconds'):
    ours, torch = entry['ours'][key], entry['torch'][key]
    cells += [f'{ours:.3f}', f'{torch:.3f}', f'{ours / torch:.3f}']
  return f'| {" | ".join(cells)} |'


if __name__ == '__main__':
  main()
