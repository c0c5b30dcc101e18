"""The programs that each job runs, and what would take less memory."""

from collections.abc import Callable, Mapping
from typing import Any

import jax

from lift_jax import partitioning
from lift_jax.data.batch_sizes import CLIPS
from lift_jax.jobs.align_config import AlignConfig
from lift_jax.jobs.sample import SampleConfig
from lift_jax.jobs.score import ScoreConfig
from lift_jax.jobs.train_critic import TrainCriticConfig
from lift_jax.models import quantization
from lift_jax.planning import inference_programs, training_programs
from lift_jax.planning.report import Program

# The config of each job, and what makes the programs from it.
JOBS: Mapping[str, tuple[type[Any], Callable[..., list[Program]]]] = {
  'align': (AlignConfig, training_programs.align),
  'train_critic': (TrainCriticConfig, training_programs.train_critic),
  'sample': (SampleConfig, inference_programs.sample),
  'score': (ScoreConfig, inference_programs.score),
}


def knobs(job: str, config: Any, mesh: jax.sharding.Mesh) -> list[str]:
  """Settings that would take less memory, the cheapest first."""
  found = []
  if job in ('align', 'train_critic'):
    train = config.train
    if train.remat != 'full':
      found.append(f'train.remat=full: it is {train.remat}')
    shards = partitioning.batch_shards(mesh)
    micro = train.global_batch(mesh.size, shards) // shards // train.grad_accum
    if train.batch_by != CLIPS:
      found.append(
        f'train.batch_by={CLIPS}: batches of cheaper buckets are not larger'
      )
    least = training_programs.unit_size(job, config)
    if micro > least:
      parts = train.grad_accum * micro // least
      found.append(
        f'train.grad_accum={parts}: a device works on {micro} rows at a time'
      )
    if train.trainable != 'lora':
      found.append('train.trainable=lora: no moments of the whole network')
    if train.ema_decay > 0:
      found.append('train.ema_decay=0: the average is a copy of what trains')
  elif config.run.batch_per_shard > 1:
    found.append(
      f'run.batch_per_shard={config.run.batch_per_shard // 2}: it is '
      f'{config.run.batch_per_shard}'
    )
  if job == 'score' and config.run.quantize == quantization.NONE:
    found.append('run.quantize=int8: kernels take half as much')
  if job == 'sample' and not config.video.tiling:
    found.append('video.tiling=True: the decoder works on parts of a frame')
  if mesh.shape['data'] > 1:
    found.append(
      f'mesh.fsdp={mesh.shape["fsdp"] * mesh.shape["data"]}, mesh.data=1: '
      'parameters are cut in more parts'
    )
  if job in ('align', 'sample'):
    found.append(
      f'mesh.context={2 * mesh.shape["context"]}: the tokens of a video over '
      'twice as many devices'
    )
  found.append(
    f'mesh.tensor={2 * mesh.shape["tensor"]}: layers over twice as many devices'
  )
  return found
