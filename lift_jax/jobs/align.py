"""Fine-tunes a model on scored videos: LiFT, or another objective.

usage: lift align --config=FILE.py[:variant] --workdir=DIR [--multihost]
                  [--config.SECTION.FIELD=VALUE ...]

Encodes clips that are not encoded yet (see lift prepare), then trains. DIR gets
the checkpoints, metrics (TensorBoard and metrics.jsonl), the config, and at the
end a diffusers folder (export/). An objective that compares clips lists its
pairs in DIR/pairs.json. The same command again resumes; SIGTERM saves a
checkpoint and exits with status 143.

example: lift align --config=configs/align_sample.py:smoke --workdir=runs/lift
"""

import collections
import functools
import logging

import jax

from lift_jax import partitioning
from lift_jax.cli import job_flags
from lift_jax.comparison.validation_clips import CLIPS, BaseComparison
from lift_jax.data import pipeline
from lift_jax.evaluation.velocity_distance import DistanceToBase
from lift_jax.jobs import inputs, score
from lift_jax.jobs.align_config import AlignConfig
from lift_jax.jobs.prepare import ensure_prepared, open_inputs
from lift_jax.models import generator_export
from lift_jax.models.generators import VideoModel
from lift_jax.runtime import distributed
from lift_jax.runtime.files import write_json
from lift_jax.training import alignment, alignment_data
from lift_jax.training import main as training_main
from lift_jax.training.drift import DriftWarning
from lift_jax.training.held_out import HeldOutMetrics
from lift_jax.training.state import TrainState
from lift_jax.training.step import LatentBatch
from lift_jax.training.validation import Validation
from lift_jax.weights import param_paths


def main(argv: list[str]) -> int:
  with job_flags.start(argv, AlignConfig, 'align') as (call, logger):
    run(call, logger)
  return 0


def run(call: job_flags.Invocation, logger: logging.Logger) -> TrainState:
  """Runs the job; returns the final state."""
  return training_main.run(
    'align',
    functools.partial(Alignment, call, logger),
    call.config,
    call.workdir,
    logger,
  )


class Alignment(training_main.Task):
  """Training of a text-to-video model on encoded videos."""

  def __init__(
    self,
    call: job_flags.Invocation,
    logger: logging.Logger,
    mesh: jax.sharding.Mesh,
    batch_size: int,
  ):
    self._call, self._logger = call, logger
    config, workdir = call.config, call.workdir
    self._objective = config.objective.chosen
    shards = partitioning.batch_shards(mesh)
    alignment.check_batch(self._objective, config.train, batch_size, shards)
    self._folder, found = open_inputs(config, workdir)
    inputs.log_adapters(self._folder.adapters, logger)
    self.setup = alignment.make_setup(
      self._folder,
      config.model,
      config.train.trainable,
      config.lora,
      mesh,
      config.train.remat,
    )
    self._cache = ensure_prepared(config, workdir, self._folder, found, logger)
    data = alignment_data.make_data(
      pipeline.join(self._cache, found.scored, config.data),
      config.objective,
      config.pairs,
      pipeline.join_pairs(self._cache, found.pairs, config.data),
    )
    used = [example for unit in data.units for example in unit]
    _describe(used, self._folder, logger)
    for line in data.description:
      logger.info('align: %s', line)
    if data.pairs and distributed.is_primary():
      write_json(workdir / 'pairs.json', data.pairs)
    self._drift = None
    if self._objective.drift_metric and config.objective.drift_window:
      self._drift = DriftWarning(
        self._objective.drift_metric, config.objective.drift_window, logger
      )
    self._held_out = data.held_out
    # Examples that are in memory at a time.
    self._held_out_batch = batch_size // config.train.grad_accum
    self.num_examples = len(used)
    buckets = alignment.make_buckets(
      self._folder,
      config.train,
      self._objective,
      collections.Counter(example.entry.bucket for example in used),
      batch_size,
      shards,
    )
    self.buckets = buckets.values()
    self.iterator = pipeline.make_iterator(
      self._cache,
      data.units,
      {bucket: steps.batch_size for bucket, steps in buckets.items()},
      self.setup.batch_sharding,
      config.train.seed,
      config.train.num_threads,
    )
    self.fingerprint = alignment.fingerprint(
      self._folder,
      config.train,
      config.objective,
      config.lora,
      data.units,
      batch_size,
      self.buckets,
    )

  def on_start(self):
    job_flags.write_config(self._call, 'align')

  def make_validations(self):
    config, validations = self._call.config, []
    if self._held_out:
      validations.append(
        (config.pairs.held_out_every_steps, self._make_held_out())
      )
    if config.validation.every_steps:
      validations.append((config.validation.every_steps, self._make_videos()))
    return validations

  def _make_held_out(self) -> training_main.Validate:
    """Logs the metrics of pairs that are not trained on."""
    evaluate = HeldOutMetrics(
      functools.partial(
        pipeline.units_in_order,
        self._cache,
        self._held_out,
        self._held_out_batch,
        self.setup.batch_sharding,
      ),
      self._held_out_batch,
      self.setup.batch_sharding,
      self._objective,
      alignment.make_held_out_evaluate(
        self.setup, self._folder, self._objective
      ),
      self.setup.replicated,
    )

    def validate(step, params, writer):
      writer.write(step, evaluate(params, *self._constants))

    return validate

  def _make_videos(self) -> training_main.Validate:
    """Generates clips of fixed prompts."""
    config = self._call.config
    make_videos = Validation(
      config.validation,
      self._folder,
      self.setup.model,
      self.setup.mesh,
      config.model.compute_dtype,
      self._call.workdir,
    )
    compare = None
    if config.validation.compare_to:
      compare = self._make_comparison(make_videos)

    def validate(step, params, writer):
      videos = make_videos(step, params)
      writer.write_videos(step, videos, config.validation.fps)
      if compare is not None:
        writer.write(step, compare(step, params))

    return validate

  def _make_comparison(self, validation: Validation) -> BaseComparison:
    """Compares validation clips with those of the model before the first step.

    It is loaded for that, and once more when training starts.
    """
    config = self._call.config.validation
    # Whatever the key: new adapters change nothing.
    base = param_paths.merge(*self.load_base(jax.random.key(0)))
    rate = None
    if config.critic is not None:
      critic = self._call.source.validation.critic
      rate = functools.partial(
        score.rate_listed, critic, file=CLIPS, logger=self._logger
      )

    def make_distance(latents):
      batches = zip(latents, validation.conditions(), strict=True)
      return DistanceToBase(
        self.setup.model,
        base,
        self._folder.schedule,
        [(x0, *conditions) for x0, conditions in batches],
        config.draws,
        self.setup.mesh,
      )

    return BaseComparison(
      validation,
      config.prompts,
      base,
      make_distance,
      rate,
      self._logger,
    )

  def load_base(self, key):
    compute_dtype = self._call.config.model.compute_dtype
    return alignment.load_base(self.setup, self._folder, compute_dtype, key)

  def make_step(self, tx, trainable):
    train = self._call.config.train
    step = alignment.make_step(
      self.setup, self._folder, train, self._objective, tx, self.buckets
    )
    null_text = jax.device_put(self._cache.null_text(), self.setup.replicated)
    key = training_main.replicated_key(self.setup, train.seed)
    reference = alignment.make_reference(
      trainable, self._objective, self._call.config.model.compute_dtype
    )
    self._constants = null_text, key, reference
    return step, self._constants

  def to_batch(self, arrays) -> LatentBatch:
    return LatentBatch.of(arrays, self._objective)

  def describe_batch(self, batch: LatentBatch):
    return 'latents ' + 'x'.join(map(str, batch.mean.shape))

  def step_flops(self, batch: LatentBatch):
    return alignment.step_flops(
      self._folder,
      self._call.config.train.trainable,
      self._objective,
      batch.mean.shape,
    )

  def observe(self, step, metrics):
    if self._drift is not None:
      self._drift(step, metrics)

  def export(self, trained, frozen):
    config, target = self._call.config, self._call.workdir / 'export'
    generator_export.write(
      self._folder,
      target,
      trained,
      frozen,
      config.lora if config.train.trainable == 'lora' else None,
      config.train.export_dtype,
    )
    self._logger.info('align: done; diffusers folder: %s', target)


def _describe(
  scored: list[pipeline.ScoredEntry],
  folder: VideoModel,
  logger: logging.Logger,
) -> None:
  for bucket in sorted({item.entry.bucket for item in scored}):
    logger.info(
      'align: %d videos with latents %s, %s tokens each',
      sum(item.entry.bucket == bucket for item in scored),
      'x'.join(map(str, bucket)),
      f'{folder.num_tokens(*bucket):,}',
    )
  logger.info(
    'align: %d of %d videos are real',
    sum(item.is_real for item in scored),
    len(scored),
  )
