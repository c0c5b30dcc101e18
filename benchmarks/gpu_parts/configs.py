"""The shipped configs, with what a row sets."""

import dataclasses
import pathlib
from typing import Any

import jax
from ml_collections import config_dict

from lift_jax import config_lib
from lift_jax.cli import job_flags
from lift_jax.models import tiny as tiny_sizes
from lift_jax.models.qwen3vl.config import RandomQwen3VLConfig
from lift_jax.planning import job_programs
from lift_jax.planning.report import Program

_CONFIGS = pathlib.Path(__file__).resolve().parents[2] / 'configs'


def train(
  tiny: bool,
  batch: int,
  remat: str,
  file: str = 'align_cogvideox_2b',
  objective: str = 'reward_weighted',
) -> Any:
  """Of `lift align`."""
  return _read(
    'align',
    file,
    tiny,
    f'train.batch_per_device={batch}',
    f'train.remat={remat}',
    'train.grad_accum=1',
    f'objective.name={objective}',
  )


def sample(tiny: bool, cache: str = 'none') -> Any:
  """Of `lift sample`; the curve of a cache is not read."""
  settings = [f'sampler.cache={cache}']
  if cache != 'none':
    settings.append('sampler.cache_curve=unread')
  return _read('sample', 'sample', tiny, *settings)


def score(tiny: bool, batch: int, critic: str = 'VILA1.5-13b') -> Any:
  """Of `lift score`: labels without reasons, texts of the smallest bucket."""
  config = _read(
    'score',
    'score',
    tiny,
    f'run.batch_per_shard={batch}',
    f'model.published={critic}',
    'videos.root=unread',
  )
  model, prompts = config.model, config.prompts
  if tiny and critic.startswith('Qwen3-VL'):
    sizes = config_dict.ConfigDict(tiny_sizes.qwen_critic())
    random = config_lib.resolve(sizes, RandomQwen3VLConfig)
    model = dataclasses.replace(model, random=random)
  prompts = dataclasses.replace(
    prompts, text_buckets=(min(prompts.text_buckets),)
  )
  return dataclasses.replace(config, model=model, prompts=prompts)


def _read(job: str, file: str, tiny: bool, *settings: str) -> Any:
  config_class, _ = job_programs.JOBS[job]
  config, _ = job_flags.read_config(
    f'{_CONFIGS / file}.py' + (':smoke' if tiny else ''),
    [f'--config.{setting}' for setting in settings],
    config_class,
  )
  return config


def programs(job: str, config: Any) -> dict[str, Program]:
  """The programs that a job runs on one device, by name."""
  _, make = job_programs.JOBS[job]
  return {program.name: program for program in make(config, jax.devices()[:1])}
