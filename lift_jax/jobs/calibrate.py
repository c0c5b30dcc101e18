"""Measures which steps of a sampler a cache may skip, for `lift sample`.

usage: lift calibrate --config=FILE.py[:variant] --workdir=DIR
                      [--config.SECTION.FIELD=VALUE ...]

Takes the config of `lift sample`, generates the latents of its first round of
videos without a cache, and writes DIR/cache_curve.json: how much the
transformer changes from each step to the next. It belongs to this checkpoint,
size of videos and sampler. `lift sample` reads it as

  --config.sampler.cache=magcache
  --config.sampler.cache_curve=DIR/cache_curve.json

example: lift calibrate --config=configs/sample.py:smoke --workdir=runs/curve
"""

import logging

import jax
import numpy as np

from lift_jax import partitioning
from lift_jax.cli import job_flags
from lift_jax.errors import UserError
from lift_jax.jobs import inputs
from lift_jax.jobs.sample import SampleConfig, read_clips
from lift_jax.models.generator_config import open_chosen
from lift_jax.runtime.files import write_json
from lift_jax.runtime.progress import Progress
from lift_jax.sampling import cache_curve
from lift_jax.sampling.generator import Generator

NAME = 'cache_curve.json'


def main(argv: list[str]) -> int:
  with job_flags.start(argv, SampleConfig, 'calibrate') as (call, logger):
    if call.multihost:
      raise UserError('lift calibrate takes one host; omit --multihost')
    run(call, logger)
  return 0


def run(call: job_flags.Invocation, logger: logging.Logger) -> None:
  """Runs the job."""
  config = call.config
  model = open_chosen(config.model, call.workdir)
  cache_curve.check_can_cache(model)
  inputs.log_adapters(model.adapters, logger)
  sampler = config.sampler.uncached
  mesh = partitioning.make_mesh(config.mesh, jax.local_devices())
  generator = Generator(
    model,
    config.model,
    mesh,
    config.video,
    sampler,
    negative=config.prompts.negative,
    offload=config.run.offload,
  )
  settings = cache_curve.measured_for(model, config.video, sampler)
  batch_size = config.run.batch_per_shard * generator.num_shards
  every_clip = read_clips(config, logger)
  clips = every_clip[: batch_size * config.run.batches_per_round]
  logger.info(
    'calibrate: the first %d of %d videos', len(clips), len(every_clip)
  )
  # The last batch is filled with the first clips.
  batches = [
    [clips[index % len(clips)] for index in range(start, start + batch_size)]
    for start in range(0, len(clips), batch_size)
  ]
  job_flags.write_config(call, 'calibrate')
  texts = generator.embed(
    ([clip.prompt.text for clip in batch] for batch in batches), keep=False
  )
  seeds = [[clip.seed for clip in batch] for batch in batches]
  measured = []
  total = batch_size * len(batches)
  with Progress(total, 'video', logger=logger) as progress:
    for changes in generator.measure_steps(
      zip(list(texts), seeds, strict=True), keep=False
    ):
      measured.append(changes)
      progress.update(batch_size)
  mean = jax.tree.map(
    lambda *x: np.mean(x, axis=0, dtype=np.float64), *measured
  )
  if not all(np.isfinite(x).all() for x in mean):
    raise UserError(
      'the latents are not finite; try model.compute_dtype = float32, or '
      'another checkpoint'
    )
  path = call.workdir / NAME
  write_json(path, cache_curve.make(settings, len(clips), *mean))
  logger.info(
    'calibrate: %d videos of %d steps, curve in %s',
    len(clips),
    len(mean.output_n),
    path,
  )
