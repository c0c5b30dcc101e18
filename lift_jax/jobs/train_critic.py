"""Trains a critic on the ratings of annotators.

usage: lift train_critic --config=FILE.py[:variant] --workdir=DIR [--multihost]
                         [--config.SECTION.FIELD=VALUE ...]

Reads published feedback (HRA, VIDGEN), splits it into training, validation and
test, and trains. DIR gets the three splits as JSON (splits/), checkpoints,
metrics (TensorBoard and metrics.jsonl), the config, and at the end the adapters
or the critic in published format (export/). Clips are decoded once before, and
what is found of them is kept in DIR/clips.jsonl. If data.on_bad_record is
'skip', DIR/skipped.json lists the records that are skipped, and those whose
clips fail later, for which others are taken. The same command again resumes;
SIGTERM saves a checkpoint and exits with status 143.

example: lift train_critic --config=configs/critic_tiny.py:smoke --workdir=DIR
"""

from collections.abc import Collection
import dataclasses
import functools
import logging
import pathlib
import threading

import jax

from lift_jax import partitioning
from lift_jax.cli import job_flags
from lift_jax.data import (
  clip_checks,
  critic_examples,
  critic_pipeline,
  critic_units,
)
from lift_jax.data.batch_sizes import BucketSteps, mean_batch
from lift_jax.data.critic_examples import CriticDataConfig, Example
from lift_jax.data.critic_prompts import write_prompts
from lift_jax.data.critic_records import CriticRecords, read_critic_records
from lift_jax.data.critic_units import Shape, Unit
from lift_jax.data.example_reader import ExampleReader
from lift_jax.data.json_records import ReadResult
from lift_jax.data.rubric import LIFT, Scale
from lift_jax.errors import UserError
from lift_jax.jobs import inputs, train_critic_reports
from lift_jax.models import adapters
from lift_jax.models.critic_config import CriticModelConfig, open_chosen
from lift_jax.models.critic_protocols import Tokenizer
from lift_jax.models.critic_tokens import label_ids
from lift_jax.models.lora import CriticLoRAConfig
from lift_jax.partitioning import MeshConfig
from lift_jax.runtime import distributed
from lift_jax.toyworld import feedback
from lift_jax.training import critic as critic_lib
from lift_jax.training import critic_parts
from lift_jax.training import main as training_main
from lift_jax.training.config import TrainConfig
from lift_jax.training.critic_losses import ANSWERS, LabelScale, LossConfig
from lift_jax.training.critic_parts import LIFT_PARTS, PartsConfig
from lift_jax.training.critic_step import CriticBatch
from lift_jax.training.critic_validation import (
  CriticValidation,
  CriticValidationConfig,
)
from lift_jax.training.optimizer import OptimizerConfig
from lift_jax.training.state import TrainState
from lift_jax.weights import param_paths
from lift_jax.weights.checkpoints import CheckpointConfig, has_checkpoint

# Size of a validation batch.
_VALIDATION_EXAMPLES_PER_SHARD = 4


@dataclasses.dataclass(frozen=True)
class TrainCriticConfig:
  """Sections of the training of a critic.

  If `data.root` is '', `toy_clips` clips of the toy world are used instead.
  """

  model: CriticModelConfig
  data: CriticDataConfig
  toy_clips: int
  mesh: MeshConfig
  train: TrainConfig
  lora: CriticLoRAConfig
  optimizer: OptimizerConfig
  checkpoint: CheckpointConfig
  validation: CriticValidationConfig
  parts: PartsConfig = LIFT_PARTS
  losses: LossConfig = ANSWERS

  def __post_init__(self):
    if self.data.pairs and not self.losses.compares_clips:
      raise UserError(
        'data.pairs is given, but losses.pair and losses.overall are 0; give '
        'one of them a weight, or remove the files'
      )
    if self.losses.overall and not self.data.pairs:
      raise UserError(
        f'losses.overall is {self.losses.overall:g}, but data.pairs is empty; '
        'list files of pairs that people compared, or set losses.overall to 0'
      )

  @property
  def trained(self) -> PartsConfig:
    """What is trained of the critic."""
    return critic_parts.chosen(self.train, self.parts)


def main(argv: list[str]) -> int:
  with job_flags.start(argv, TrainCriticConfig, 'train_critic') as (
    call,
    logger,
  ):
    run(call, logger)
  return 0


def run(call: job_flags.Invocation, logger: logging.Logger) -> TrainState:
  """Runs the job; returns the final state."""
  return training_main.run(
    'train_critic',
    functools.partial(CriticTraining, call, logger),
    call.config,
    call.workdir,
    logger,
  )


class CriticTraining(training_main.Task):
  """Training of a critic on the answers of annotators."""

  def __init__(
    self,
    call: job_flags.Invocation,
    logger: logging.Logger,
    mesh: jax.sharding.Mesh,
    batch_size: int,
  ):
    self._call, self._logger = call, logger
    config, data = call.config, call.config.data
    # A run that goes on without bad clips keeps the examples it began with.
    is_settled = data.on_bad_record == 'skip' and has_checkpoint(
      call.workdir / 'checkpoints'
    )
    self._checks = clip_checks.ClipChecks(
      call.workdir / 'clips.jsonl',
      is_settled,
      data.num_threads,
      data.max_undecodable,
    )
    self._critic = open_chosen(config.model, call.workdir)
    inputs.log_adapters(self._critic.adapters, logger)
    self._template = inputs.critic_template(config.model, self._critic)
    self._tokenizer = self._critic.open_tokenizer(self._template)
    self.setup = critic_lib.make_setup(
      self._critic, config.model, config.train, config.lora, mesh, config.parts
    )
    self.peak_of = critic_parts.peak_rates(
      self._critic, config.trained, config.optimizer.learning_rate
    )
    self._records = _read_records(config, call.workdir, self._checks.settled)
    check_units(config, batch_size, mesh, len(self._records.questions))
    used = ['train']
    if config.validation.every_steps and self._records.splits['validation']:
      used.append('validation')
    found = self._make_examples(used)
    train_critic_reports.report_skipped(
      call.workdir, self._records, found, self._checks.failures, logger
    )
    examples = [example for part in found for example in part.records]
    flags = {example.record.video: example.clip.flags for example in examples}
    inputs.report_flagged(call.workdir, flags, logger)
    self._examples = found[0].records
    self._validation_examples = found[1].records if found[1:] else []
    self._replaced_lock = threading.Lock()
    self._max_targets = _max_targets(self._examples)
    rubric = self._records.rubric
    scale = rubric.scale if rubric else LIFT
    self._labels = scale.labels if config.losses.needs_ratings else None
    units = self._make_units('train', self._examples)
    _check_pairs(config.losses, units)
    train_critic_reports.describe(self._records, self._examples, units, logger)
    self.num_examples = sum(len(unit.members) for unit in units)
    buckets = self._make_buckets(units, batch_size, mesh)
    self.buckets = buckets.values()
    self._scale = _label_scale(
      config.losses, self._tokenizer, scale, self._records, self._examples
    )
    self.iterator = critic_pipeline.make_iterator(
      self._examples,
      self._tokenizer,
      self._reader(self._examples, 'trained on {} instead'),
      {shape: steps.batch_size for shape, steps in buckets.items()},
      self.setup.batch_sharding,
      config.train.seed,
      data,
      units,
      self._labels,
    )
    self.fingerprint = critic_lib.fingerprint(
      self._critic,
      dataclasses.replace(config.model, template=self._template),
      config.train,
      config.lora,
      self._examples,
      config.data,
      batch_size,
      config.parts,
      config.losses,
      units if config.losses.compares_clips else (),
      self.buckets,
    )

  def _make_buckets(
    self, units: list[Unit], batch_size: int, mesh: jax.sharding.Mesh
  ) -> dict[Shape, BucketSteps]:
    """The steps on the units of each shape."""
    config, examples = self._call.config, self._examples
    by_shape = critic_pipeline.units_by_shape(
      units, examples, config.data.real_share
    )
    return critic_lib.make_buckets(
      self._critic,
      config.train,
      config.trained,
      {
        shape: critic_lib.Sequences(
          examples[own[0].members[0]].selection,
          shape[-1],
          share * self.num_examples,
          critic_units.padding_share(own, examples),
        )
        for shape, (own, share) in by_shape.items()
      },
      self._max_targets,
      batch_size,
      partitioning.batch_shards(mesh),
      config.losses.unit_size(len(self._records.questions)),
    )

  def _make_examples(self, used: list[str]) -> list[ReadResult[Example]]:
    """The examples of the used parts of the split; decodes their clips.

    All that takes less time is checked before.
    """
    data, frames = self._call.config.data, self._critic.frames
    parts = [self._records.asked(name) for name in used]
    probed = self._checks.probe(sum(parts, []))
    found = [
      critic_examples.make_examples(
        part, self._records, probed, self._tokenizer, frames, data
      )
      for part in parts
    ]
    critic_pipeline.check_real_share(found[0].records, data.real_share)
    examples = sum((part.records for part in found), [])
    bad = self._checks.decode(
      examples, probed, frames, data.on_bad_record, self._logger
    )
    return [critic_examples.without(part, bad, self._records) for part in found]

  def _make_units(self, split: str, examples: list[Example]) -> list[Unit]:
    """The units of batches, or those that the validation compares."""
    config, records = self._call.config, self._records
    if self._labels is None or not config.losses.compares_clips:
      return critic_units.single_units(examples)
    make = critic_units.pair_units
    if config.losses.overall:
      make = functools.partial(
        critic_units.overall_units,
        dimensions=tuple(records.questions),
        by_dimension=config.losses.pair > 0,
      )
    return make(
      examples,
      records.pairs[split],
      self._labels,
      use_ratings=config.data.rated_pairs,
      seed=config.train.seed,
    )

  def _reader(self, examples: list[Example], outcome: str) -> ExampleReader:
    """Reads examples; `outcome` tells what is done in place of a bad one."""
    data = self._call.config.data

    def report(failed: Example, substitute: Example, reason: str) -> None:
      failure = f'{reason}; {outcome.format(substitute.record.where)}'
      with self._replaced_lock:
        if self._checks.note_failure(failed.record.video, failure):
          self._logger.warning('%s', failure)
          inputs.add_skipped(self._call.workdir, failure)

    return ExampleReader(
      examples,
      self._critic.frames,
      data.num_threads,
      self._call.config.train.seed,
      report if data.on_bad_record == 'skip' else None,
    )

  def on_start(self):
    job_flags.write_config(self._call, 'train_critic')
    train_critic_reports.write_splits(self._call.workdir, self._records)

  def make_validations(self) -> list[tuple[int, training_main.Validate]]:
    examples = self._validation_examples
    if not examples:
      return []
    sharding = self.setup.batch_sharding
    reader = self._reader(examples, 'left out of the validation')
    batch_size = partitioning.batch_shards(self.setup.mesh)
    batch_size *= _VALIDATION_EXAMPLES_PER_SHARD
    validation = CriticValidation(
      lambda: critic_pipeline.validation_batches(
        examples, self._tokenizer, reader, batch_size, sharding, self._labels
      ),
      batch_size,
      sharding,
      self.setup.model,
      _max_targets(examples),
      self._call.config.losses,
      self._scale,
      self._make_units('validation', examples),
    )

    def validate(step, params, writer):
      writer.write(step, validation(params))

    return [(self._call.config.validation.every_steps, validate)]

  def load_base(self, key):
    compute_dtype = self._call.config.model.compute_dtype
    return critic_lib.load_base(self.setup, self._critic, compute_dtype, key)

  def make_step(self, tx, trainable):
    config = self._call.config
    step = critic_lib.make_step(
      self.setup,
      config.train,
      tx,
      self._max_targets,
      config.losses,
      self._scale,
      config.lora.dropout,
      float(mean_batch(self.buckets)),
    )
    return step, ()

  def to_batch(self, arrays) -> CriticBatch:
    return CriticBatch.of(arrays)

  def describe_batch(self, batch: CriticBatch):
    return 'tokens ' + 'x'.join(map(str, batch.tokens.shape))

  def step_flops(self, batch: CriticBatch):
    parts = self._call.config.trained
    return critic_lib.step_flops(self._critic, parts, batch, self._max_targets)

  def export(self, trained, frozen):
    """Writes adapters or the full critic, with its questions."""
    config, target = self._call.config, self._call.workdir / 'export'
    if critic_parts.only_adapters(config.trained):
      self._critic.write_adapter(
        target, trained, config.lora, config.train.export_dtype
      )
      self._logger.info('train_critic: done; adapters for PEFT: %s', target)
    else:
      self._critic.write(
        target,
        adapters.merged_trained(
          param_paths.merge(trained, frozen),
          config.lora.scale,
          config.train.export_dtype,
        ),
        config.train.export_dtype,
      )
      self._logger.info('train_critic: done; critic: %s', target)
    if distributed.is_primary():
      records = [example.record for example in self._examples]
      questions = {record.dimension: record.question for record in records}
      write_prompts(target, questions, self._template, self._records.rubric)


def _max_targets(examples: list[Example]) -> int:
  """At least 1, as clips may be compared without ratings."""
  return max(1, *(int(example.is_target.sum()) for example in examples))


def check_units(
  config: TrainCriticConfig,
  batch_size: int,
  mesh: jax.sharding.Mesh,
  num_dimensions: int,
) -> None:
  """Raises UserError if units would be on several devices."""
  found = batch_size // partitioning.batch_shards(mesh)
  found //= config.train.grad_accum
  size = config.losses.unit_size(num_dimensions)
  if found % size:
    name = 'overall' if config.losses.overall else 'pair'
    raise UserError(
      f'a device works on {found} examples at a time, which for '
      f'losses.{name} must be a multiple of {size}; change train.batch_size or '
      'train.grad_accum'
    )


def _check_pairs(losses: LossConfig, units: list[Unit]) -> None:
  """Raises UserError if a loss that compares clips has none to compare."""
  if losses.overall and not any(any(unit.overall) for unit in units):
    raise UserError(
      f'losses.overall is {losses.overall:g}, but there is no pair to train '
      'on: data.pairs compares no two clips of one shape and of a caption of '
      'the training part; set losses.overall to 0'
    )
  if losses.pair and not any(unit.pairs for unit in units):
    raise UserError(
      f'losses.pair is {losses.pair:g}, but there is no pair to train '
      'on: no two clips of one caption and shape are rated in one dimension or '
      'compared in data.pairs; set losses.pair to 0'
    )


def _label_scale(
  losses: LossConfig,
  tokenizer: Tokenizer,
  scale: Scale,
  records: CriticRecords,
  examples: list[Example],
) -> LabelScale | None:
  """The labels of losses that need them."""
  if not losses.needs_ratings:
    return None
  ids = label_ids(tokenizer, scale.labels)
  dimensions = tuple(records.questions)
  weights = (1.0,) * len(dimensions)
  if losses.overall and losses.normalize_overall:
    weights = critic_units.dimension_weights(examples, dimensions, scale)
  return LabelScale(
    tuple(ids[label] for label in scale.labels), scale.rewards, weights
  )


def _read_records(
  config: TrainCriticConfig, workdir: pathlib.Path, optional: Collection[str]
) -> CriticRecords:
  """The feedback of the config, or that of the toy world if it has no data."""
  data = config.data
  if not data.root:
    per_prompt = 2 if config.losses.pair else 1
    clips = inputs.toy_clips(
      workdir, config.toy_clips, clips_per_prompt=per_prompt
    )
    questions = str(feedback.questions_path())
    data = dataclasses.replace(data, root=str(clips), questions=questions)
  return read_critic_records(data, optional, config.losses.overall > 0)
