"""Jobs of `lift sample` at the smallest size, and what they leave behind."""

import json
import pathlib

from lift_jax.runtime import hashes
from tests.jobs import jobs

CONFIG = jobs.REPOSITORY / 'configs' / 'sample.py'
PROMPTS = ('a red fox', 'a potter', 'rain on a roof', 'two kites', 'a bell',
           'a lamp', 'a river')  # fmt: skip


def flags(workdir: pathlib.Path, **settings) -> list[str]:
  """Arguments of a `lift sample` at the smallest size; names as `run__x`."""
  small = {
    'video.height': 16,
    'video.width': 32,
    'video.num_frames': 9,
    'sampler.num_steps': 3,
    'run.batch_per_shard': 1,
    'run.batches_per_round': 1,
  }
  named = {key.replace('__', '.'): value for key, value in settings.items()}
  return [
    f'--config={CONFIG}:smoke',
    f'--workdir={workdir}',
    *(f'--config.{key}={value}' for key, value in (small | named).items()),
  ]


def lines_of(workdir: pathlib.Path) -> list[dict]:
  lines = (workdir / 'manifest.jsonl').read_text('utf-8').splitlines()
  return [json.loads(line) for line in lines]


def files_of(workdir: pathlib.Path) -> dict[str, bytes]:
  """Everything that a job leaves but its config, its model, and times."""
  return {
    str(path.relative_to(workdir)): path.read_bytes()
    for path in sorted(workdir.rglob('*'))
    if path.is_file() and path.name not in ('sample_config.json', hashes.NAME)
  }


def arguments(workdir, model, folder, **settings) -> list[str]:
  """Of a job on PROMPTS, on a mesh of two shards of the batch."""
  file = folder / 'prompts.txt'
  file.write_text('\n'.join(PROMPTS), encoding='utf-8')
  defaults = {
    'model__path': model,
    'prompts__file': file,
    'mesh__data': 2,
    'mesh__tensor': 2,
    'mesh__context': 2,
    'output__keep_latents': True,
    'output__name': '{prompt}-{index}',
  }
  return ['sample', *flags(workdir, **(defaults | settings))]
