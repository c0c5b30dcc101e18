"""Fine-tunes CogVideoX on scored videos by reward-weighted likelihood (LiFT).

usage: lift align --config=FILE.py[:variant] --workdir=DIR [--multihost]
                  [--config.SECTION.FIELD=VALUE ...]

Prepares what is not prepared yet (see lift prepare), then trains. DIR gets the
checkpoints, metrics (TensorBoard and metrics.jsonl), the config, and at the end
a diffusers folder (export/). The same command again resumes; SIGTERM saves and
ends with status 143.

example: lift align --config=configs/align_sample.py:smoke --workdir=runs/lift
"""

import logging

import jax

from lift_jax import chips, partitioning
from lift_jax.cli import job_flags
from lift_jax.data import global_batch, pipeline
from lift_jax.jobs.align_config import AlignConfig
from lift_jax.jobs.prepare import ensure_prepared, read_records
from lift_jax.models.cogvideox import export
from lift_jax.models.cogvideox.choice import open_chosen
from lift_jax.runtime import distributed
from lift_jax.runtime.shutdown import Stopped
from lift_jax.training import alignment, loop, metrics
from lift_jax.training import setup as setup_lib
from lift_jax.training.optimizer import (
  learning_rate_schedule,
  make_optimizer,
)
from lift_jax.training.state import TrainState
from lift_jax.training.step import Batch
from lift_jax.training.validation import Validation
from lift_jax.weights import param_paths
from lift_jax.weights.checkpoints import TrainCheckpoints


def main(argv: list[str]) -> int:
  call = job_flags.parse(argv, AlignConfig, 'align')
  distributed.initialize(call.multihost)
  logger = distributed.start_logging()
  job_flags.use_compilation_cache()
  run(call, logger)
  return 0


def run(call: job_flags.Invocation, logger: logging.Logger) -> TrainState:
  """The whole job; returns the last state."""
  config, workdir = call.config, call.workdir
  mesh = partitioning.make_mesh(config.mesh)
  logger.info('align: %s', partitioning.describe(mesh))
  batch_size = config.train.global_batch(
    mesh.size, partitioning.batch_shards(mesh)
  )
  found = read_records(config, workdir)
  folder = open_chosen(config.model, workdir)
  setup = alignment.make_setup(
    folder,
    config.model,
    config.train.trainable,
    config.lora,
    mesh,
    config.train.remat,
  )

  cache = ensure_prepared(config, workdir, folder, found, logger)
  scored = pipeline.join(cache, found.records)
  num_steps = config.train.num_steps(len(scored), batch_size)
  _describe(config, folder, setup, scored, batch_size, num_steps, logger)

  tx = make_optimizer(config.optimizer, num_steps)
  iterator = pipeline.make_iterator(
    cache,
    scored,
    batch_size,
    setup.batch_sharding,
    config.train.seed,
    config.train.num_threads,
  )
  checkpoints = TrainCheckpoints(
    workdir / 'checkpoints',
    config.checkpoint,
    alignment.belongs_to(folder, config.train, config.lora, scored, batch_size),
  )
  with checkpoints:
    resume_step = checkpoints.resume_step(num_steps)
    job_flags.write_config(call, 'align')
    # Its text encoder has come and gone before the state takes the memory.
    validation = _validation(config, folder, setup, workdir)
    trainable, frozen = alignment.load_base(
      setup,
      folder,
      config.model.compute_dtype,
      jax.random.fold_in(jax.random.key(config.train.seed), 2**31),
    )
    state = setup_lib.start(
      setup,
      trainable,
      tx,
      config.train.ema_decay > 0,
      checkpoints,
      resume_step,
      iterator,
    )
    del trainable
    if resume_step is not None:
      logger.info('align: resumed at step %d', resume_step)
    null_text = jax.device_put(cache.null_text(), setup.replicated)
    step = alignment.make_step(setup, folder, config.train, tx)
    steps = loop.CompiledSteps(
      loop.jit_step(step, state), _describe_batch, logger
    )
    # Made on all devices: a key of one host could not be put on the others.
    key = jax.jit(
      lambda: jax.random.key(config.train.seed), out_shardings=setup.replicated
    )()

    def next_batch() -> Batch:
      arrays = global_batch.to_global(
        next(iterator), batch_size, setup.batch_sharding
      )
      return Batch(**arrays)

    with (
      jax.set_mesh(mesh),
      metrics.MetricWriter(
        workdir,
        enabled=distributed.is_primary(),
        wandb_project=config.train.wandb_project,
        resume_step=resume_step or 0,
      ) as writer,
    ):
      state = loop.run(
        state,
        lambda state, batch: steps(state, frozen, batch, null_text, key),
        next_batch,
        iterator.get_state,
        num_steps=num_steps,
        log_every=config.train.log_every,
        learning_rate=learning_rate_schedule(config.optimizer, num_steps),
        workload=loop.Workload(
          batch_size,
          lambda batch: alignment.step_flops(
            folder, config.train.trainable, batch.mean.shape
          ),
          mesh.size,
          chips.peak_flops(mesh.devices.flat[0].device_kind),
          lambda: steps.seconds,
        ),
        checkpoints=checkpoints,
        writer=writer,
        logger=logger,
        is_primary=distributed.is_primary(),
        validate=_looks(validation, frozen, writer, config),
      )
  if int(state.step) < num_steps:
    raise Stopped
  if config.train.export:
    target = workdir / 'export'
    export.write(
      folder,
      target,
      state.ema or state.trainable,
      frozen,
      config.lora if config.train.trainable == 'lora' else None,
      config.train.export_dtype,
    )
    logger.info('align: done; for diffusers: %s', target)
  return state


def _describe(config, folder, setup, scored, batch_size, num_steps, logger):
  """What is about to happen, before anything large is allocated."""
  trainable, frozen = setup.split(setup.model.abstract_params)
  logger.info(
    'align: %s parameters train, %s are frozen',
    f'{setup_lib.count(trainable):,}',
    f'{setup_lib.count(frozen):,}',
  )
  for bucket in sorted({item.entry.bucket for item in scored}):
    videos = sum(item.entry.bucket == bucket for item in scored)
    logger.info(
      'align: %d videos with latents %s, %s tokens each',
      videos,
      'x'.join(map(str, bucket)),
      f'{folder.transformer.num_tokens(*bucket):,}',
    )
  if config.train.steps is not None and config.train.epochs is not None:
    logger.info('align: train.steps is given, so train.epochs is not read')
  logger.info(
    'align: %d steps of %d videos (%d at a time), %d of %d videos are real',
    num_steps,
    batch_size,
    batch_size // config.train.grad_accum,
    sum(item.is_real for item in scored),
    len(scored),
  )


def _describe_batch(batch: Batch) -> str:
  return 'latents ' + 'x'.join(map(str, batch.mean.shape))


def _validation(config, folder, setup, workdir) -> Validation | None:
  if not config.validation.every_steps:
    return None
  return Validation(
    config.validation,
    folder,
    setup.model,
    setup.mesh,
    config.model.compute_dtype,
    workdir,
  )


def _looks(validation, frozen, writer, config):
  """What the loop calls after each step: videos, where they are due."""
  if validation is None:
    return None

  def look(step: int, state: TrainState, is_last: bool) -> None:
    if is_last or validation.is_due(step):
      params = param_paths.merge(state.ema or state.trainable, frozen)
      videos = validation(step, params)
      writer.write_videos(step, videos, config.validation.fps)

  return look
