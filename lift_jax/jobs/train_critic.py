"""Teaches a critic to rate videos as people did.

usage: lift train_critic --config=FILE.py[:variant] --workdir=DIR [--multihost]
                         [--config.SECTION.FIELD=VALUE ...]

Reads published feedback (HRA, VIDGEN), sets clips aside for validation and
test, and trains. DIR gets the three parts as JSON (splits/), checkpoints,
metrics (TensorBoard and metrics.jsonl), the config, and at the end what was
trained, as it is published (export/). The same command again resumes; SIGTERM
saves and ends with status 143.

example: lift train_critic --config=configs/critic_tiny.py:smoke --workdir=DIR
"""

import dataclasses
import logging
import pathlib

import jax

from lift_jax import chips, partitioning
from lift_jax.cli import job_flags
from lift_jax.data import critic_pipeline
from lift_jax.data.critic_pipeline import CriticDataConfig, Example
from lift_jax.data.critic_prompts import write_prompts
from lift_jax.data.critic_records import CriticRecords, read_critic_records
from lift_jax.data.global_batch import to_global
from lift_jax.data.hra import HRARecord, conversation
from lift_jax.data.json_records import ReadResult
from lift_jax.errors import UserError
from lift_jax.jobs import inputs
from lift_jax.models.critic import folder as folder_lib
from lift_jax.models.critic.choice import (
  CriticModelConfig,
  open_chosen,
  open_tokenizer,
)
from lift_jax.models.lora import LoRAConfig
from lift_jax.partitioning import MeshConfig
from lift_jax.runtime import distributed
from lift_jax.runtime.files import write_json
from lift_jax.runtime.shutdown import Stopped
from lift_jax.toyworld import feedback
from lift_jax.training import critic, loop, metrics
from lift_jax.training import setup as setup_lib
from lift_jax.training.config import TrainConfig
from lift_jax.training.critic_step import CriticBatch
from lift_jax.training.critic_validation import CriticValidation
from lift_jax.training.optimizer import (
  OptimizerConfig,
  learning_rate_schedule,
  make_optimizer,
)
from lift_jax.training.state import TrainState
from lift_jax.weights import param_paths
from lift_jax.weights.checkpoints import CheckpointConfig, TrainCheckpoints

# Rows of a shard of the batch that validation takes at a time.
_ROWS_PER_SHARD = 4


@dataclasses.dataclass(frozen=True)
class ValidationConfig:
  """Looks at the validation part on the way.

  Attributes:
    every_steps: optimizer steps between two looks; 0 takes none. There is also
      one before the first step and one after the last.
  """

  every_steps: int

  def __post_init__(self):
    if self.every_steps < 0:
      raise UserError('validation.every_steps must not be below 0')


@dataclasses.dataclass(frozen=True)
class TrainCriticConfig:
  """Sections of the training of a critic.

  `toy_clips` clips of the toy world stand in where `data.root` is ''.
  """

  model: CriticModelConfig
  data: CriticDataConfig
  toy_clips: int
  mesh: MeshConfig
  train: TrainConfig
  lora: LoRAConfig
  optimizer: OptimizerConfig
  checkpoint: CheckpointConfig
  validation: ValidationConfig


def main(argv: list[str]) -> int:
  call = job_flags.parse(argv, TrainCriticConfig, 'train_critic')
  distributed.initialize(call.multihost)
  logger = distributed.start_logging()
  job_flags.use_compilation_cache()
  run(call, logger)
  return 0


def run(call: job_flags.Invocation, logger: logging.Logger) -> TrainState:
  """The whole job; returns the last state."""
  config, workdir = call.config, call.workdir
  mesh = partitioning.make_mesh(config.mesh)
  logger.info('train_critic: %s', partitioning.describe(mesh))
  batch_size = config.train.global_batch(
    mesh.size, partitioning.batch_shards(mesh)
  )
  data = config.data
  if not data.root:
    clips = inputs.toy_clips(workdir, config.toy_clips)
    questions = str(feedback.questions_path())
    data = dataclasses.replace(data, root=str(clips), questions=questions)
  records = read_critic_records(data)
  folder = open_chosen(config.model, workdir)
  tokenizer = open_tokenizer(config.model, folder)
  setup = critic.make_setup(
    folder, config.model, config.train, config.lora, mesh
  )
  found = critic_pipeline.make_examples(
    records.splits['train'], records, tokenizer, config.data
  )
  examples = found.records
  watched = _watched(config, records, tokenizer)
  _report_skipped(workdir, records, [found, watched], logger)
  num_steps = config.train.num_steps(len(examples), batch_size)
  _describe(config, setup, records, examples, batch_size, num_steps, logger)

  tx = make_optimizer(config.optimizer, num_steps)
  iterator = critic_pipeline.make_iterator(
    examples,
    tokenizer,
    folder.config.vision_tower.image_size,
    batch_size,
    setup.batch_sharding,
    config.train.seed,
    config.data,
  )
  checkpoints = TrainCheckpoints(
    workdir / 'checkpoints',
    config.checkpoint,
    critic.belongs_to(
      folder,
      config.model,
      config.train,
      config.lora,
      examples,
      config.data,
      batch_size,
    ),
  )
  with checkpoints:
    resume_step = checkpoints.resume_step(num_steps)
    job_flags.write_config(call, 'train_critic')
    _write_splits(workdir, records)
    trainable, frozen = critic.load_base(
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
      logger.info('train_critic: resumed at step %d', resume_step)
    max_targets = max(int(e.is_target.sum()) for e in examples)
    step = critic.make_step(setup, config.train, tx, max_targets)
    steps = loop.CompiledSteps(
      loop.jit_step(step, state), _describe_batch, logger
    )

    def next_batch() -> CriticBatch:
      arrays = to_global(next(iterator), batch_size, setup.batch_sharding)
      return CriticBatch(**arrays)

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
        lambda state, batch: steps(state, frozen, batch),
        next_batch,
        iterator.get_state,
        num_steps=num_steps,
        log_every=config.train.log_every,
        learning_rate=learning_rate_schedule(config.optimizer, num_steps),
        workload=loop.Workload(
          batch_size,
          lambda batch: critic.step_flops(
            folder.config,
            config.train.trainable,
            batch.frames.shape[1],
            batch.tokens.shape,
            max_targets,
          ),
          mesh.size,
          chips.peak_flops(mesh.devices.flat[0].device_kind),
          lambda: steps.seconds,
        ),
        checkpoints=checkpoints,
        writer=writer,
        logger=logger,
        is_primary=distributed.is_primary(),
        validate=_looks(
          config, setup, folder, watched.records, tokenizer, frozen, writer
        ),
      )
  if int(state.step) < num_steps:
    raise Stopped
  if config.train.export:
    target = workdir / 'export'
    _export(config, folder, target, state, frozen, logger)
    if distributed.is_primary():
      questions = {e.record.dimension: e.record.question for e in examples}
      write_prompts(target, questions, config.model.template)
  return state


def _report_skipped(workdir, records, made, logger) -> None:
  """What the reader left out, and what made no example afterwards."""
  skipped = [*records.skipped]
  num_left = sum(map(len, records.splits.values()))
  for examples in made:
    skipped += examples.skipped
    num_left -= len(examples.skipped)
  reasons = [f'{where}: {reason}' for where, reason in skipped]
  inputs.report_skipped(workdir, reasons, num_left, logger)


def _write_splits(workdir: pathlib.Path, records: CriticRecords) -> None:
  """Each part of the feedback as published, for `lift score` and others."""
  if not distributed.is_primary():
    return
  folder = workdir / 'splits'
  folder.mkdir(exist_ok=True)
  for name, split in records.splits.items():
    entries = [
      conversation(r.video, r.caption, r.question, r.label, r.rationale)
      for r in split
    ]
    write_json(folder / f'{name}.json', entries)


def _describe(config, setup, records, examples, batch_size, num_steps, logger):
  """What is about to happen, before anything large is allocated."""
  trainable, frozen = setup.split(setup.model.abstract_params)
  logger.info(
    'train_critic: %s parameters train, %s are frozen',
    f'{setup_lib.count(trainable):,}',
    f'{setup_lib.count(frozen):,}',
  )
  logger.info(
    'train_critic: %s',
    ', '.join(
      f'{name} {len(split)} answers on {_num_videos(split)} videos'
      for name, split in records.splits.items()
    ),
  )
  for length in sorted({example.length for example in examples}):
    rows = sum(example.length == length for example in examples)
    logger.info('train_critic: %d rows of %d tokens', rows, length)
  if config.train.steps is not None and config.train.epochs is not None:
    logger.info('train_critic: train.steps is given; train.epochs is not read')
  logger.info('train_critic: %d steps of %d rows', num_steps, batch_size)


def _num_videos(records: list[HRARecord]) -> int:
  return len({record.video for record in records})


def _describe_batch(batch: CriticBatch) -> str:
  return 'tokens ' + 'x'.join(map(str, batch.tokens.shape))


def _watched(
  config: TrainCriticConfig, records: CriticRecords, tokenizer
) -> ReadResult[Example]:
  """What is looked at on the way; nothing if nobody wants to."""
  split = records.splits['validation']
  if not config.validation.every_steps or not split:
    return ReadResult([], [])
  return critic_pipeline.make_examples(split, records, tokenizer, config.data)


def _looks(config, setup, folder, examples, tokenizer, frozen, writer):
  """What the loop calls after each step: metrics, where they are due."""
  if not examples:
    return None
  mesh = setup.mesh
  batch_size = partitioning.batch_shards(mesh) * _ROWS_PER_SHARD
  validation = CriticValidation(
    lambda: critic_pipeline.in_order(
      examples,
      tokenizer,
      folder.config.vision_tower.image_size,
      batch_size,
      setup.batch_sharding,
      config.data.num_threads,
    ),
    batch_size,
    setup.batch_sharding,
    setup.model,
    max(int(e.is_target.sum()) for e in examples),
  )

  def look(step: int, state: TrainState, is_last: bool) -> None:
    if is_last or step % config.validation.every_steps == 0:
      params = param_paths.merge(state.ema or state.trainable, frozen)
      writer.write(step, validation(params))

  return look


def _export(config, folder, target, state, frozen, logger) -> None:
  """What was trained, as it is published: adapters, or a whole critic."""
  params = state.ema or state.trainable
  if config.train.trainable == 'lora':
    folder_lib.write_adapter(
      target, params, config.lora, config.train.export_dtype
    )
    logger.info('train_critic: done; adapters for PEFT: %s', target)
  else:
    folder_lib.write_critic(
      folder,
      target,
      param_paths.merge(params, frozen),
      config.train.export_dtype,
    )
    logger.info('train_critic: done; the critic: %s', target)
