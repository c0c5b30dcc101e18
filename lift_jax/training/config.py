"""Settings of a fine-tuning run."""

import dataclasses
from fractions import Fraction
import math

from lift_jax import config_lib
from lift_jax.data.batch_sizes import BATCH_BY, CLIPS
from lift_jax.errors import UserError
from lift_jax.models.remat import REMAT_POLICIES
from lift_jax.training import profiling
from lift_jax.training.setup import IS_TRAINABLE, PARTS


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """Length, batches and trainable parameters of a run.

  Attributes:
    steps: total optimizer steps; takes precedence over `epochs`, so that one
      flag shortens a run. None takes `epochs`.
    epochs: passes over the data.
    batch_size: videos per optimizer step; takes precedence over
      `batch_per_device`.
    batch_per_device: the same per device.
    batch_by: 'clips' makes batches of all buckets equally large; 'cost' makes
      those of cheaper buckets larger, so that a step costs as much as one on
      `batch_size` examples of the most expensive bucket (`data.batch_sizes`).
    grad_accum: micro-batches per optimizer step.
    seed: of everything random.
    trainable: 'blocks' (every parameter of the transformer blocks, as LiFT),
      'all', 'lora', or of a critic 'parts', those of the section `parts`.
    remat: what is saved for the backward pass, see `models.remat`.
    ema_decay: of a moving average of the parameters; 0 keeps none.
    log_every: optimizer steps between two entries of the metrics.
    profile: 'START:COUNT' writes a JAX profiler trace of COUNT steps, starting
      with step START, to WORKDIR/profile; '' writes none.
    wandb_project: logs to Weights & Biases too; '' does not.
    export: writes the trained model to WORKDIR/export at the end, in the
      published format.
    export_dtype: of the weights in that folder.
  """

  steps: int | None
  epochs: float | None
  batch_size: int | None
  batch_per_device: int | None
  grad_accum: int
  seed: int
  trainable: str
  remat: str
  ema_decay: float
  log_every: int
  profile: str
  wandb_project: str
  export: bool
  export_dtype: str
  batch_by: str = dataclasses.field(default=CLIPS, kw_only=True)

  def __post_init__(self):
    config_lib.check_choice(
      'train.trainable', self.trainable, (*IS_TRAINABLE, PARTS)
    )
    config_lib.check_choice('train.remat', self.remat, REMAT_POLICIES)
    config_lib.check_choice(
      'train.export_dtype',
      self.export_dtype,
      ('float32', 'bfloat16', 'float16'),
    )
    config_lib.check_choice('train.batch_by', self.batch_by, BATCH_BY)
    for one, other in (('steps', 'epochs'), ('batch_size', 'batch_per_device')):
      if getattr(self, one) is None and getattr(self, other) is None:
        raise UserError(f'give train.{one} or train.{other}')
    for name in ('steps', 'epochs', 'batch_size', 'batch_per_device',
                 'grad_accum', 'log_every'):  # fmt: skip
      value = getattr(self, name)
      if value is not None and value <= 0:
        raise UserError(f'train.{name} is {value}; it must be above 0')
    if not 0.0 <= self.ema_decay < 1.0:
      raise UserError('train.ema_decay must be in [0, 1)')
    profiling.parse_steps(self.profile)

  @property
  def profiled_steps(self) -> range:
    return profiling.parse_steps(self.profile)

  def global_batch(self, num_devices: int, batch_shards: int) -> int:
    """Videos per optimizer step.

    Raises:
      UserError: they do not divide evenly over the mesh.
    """
    size = self.batch_size
    if size is None:
      assert self.batch_per_device is not None
      size = self.batch_per_device * num_devices
    parts = batch_shards * self.grad_accum
    if size % parts:
      raise UserError(
        f'a batch of {size} videos does not divide into {parts} parts: data x '
        f'fsdp = {batch_shards} devices, train.grad_accum = {self.grad_accum}; '
        'change train.batch_size or train.grad_accum'
      )
    return size

  def num_steps(self, num_records: int, batch_size: Fraction | int) -> int:
    """Total optimizer steps; from `epochs`, rounded up.

    Args:
      num_records: of an epoch.
      batch_size: mean number of records of a step.
    """
    if self.steps is not None:
      return self.steps
    assert self.epochs is not None
    return max(1, math.ceil(round(self.epochs * num_records) / batch_size))


@dataclasses.dataclass(frozen=True)
class AlignTrainConfig(TrainConfig):
  """Further settings for the alignment of a text-to-video model.

  Attributes:
    caption_dropout: share of captions replaced by the empty one.
    num_threads: threads that read the cache.
  """

  caption_dropout: float
  num_threads: int

  def __post_init__(self):
    config_lib.check_choice('train.trainable', self.trainable, IS_TRAINABLE)
    super().__post_init__()
    if not 0.0 <= self.caption_dropout < 1.0:
      raise UserError('train.caption_dropout must be in [0, 1)')
    if self.num_threads <= 0:
      raise UserError('train.num_threads must be above 0')
