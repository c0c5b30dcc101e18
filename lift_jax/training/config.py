"""Settings of a fine-tuning run."""

import dataclasses
import math

from lift_jax import config_lib
from lift_jax.errors import UserError

TRAINABLE = ('blocks', 'all', 'lora')


@dataclasses.dataclass(frozen=True)
class TrainConfig:
  """How long, on what batches, and which parameters.

  Attributes:
    steps: optimizer steps in all; goes before `epochs`, so that a flag alone
      shortens a run. None takes `epochs`.
    epochs: passes over the data.
    batch_size: videos of an optimizer step; goes before `batch_per_device`.
    batch_per_device: the same for each device.
    grad_accum: parts a batch is worked through in, one after the other.
    seed: of everything random.
    trainable: 'blocks' (every parameter of the transformer blocks, as LiFT),
      'all', or 'lora'.
    real_weight: lambda, the likelihood weight of real videos.
    caption_dropout: share of captions replaced by the empty one.
    ema_decay: of a moving average of the parameters; 0 keeps none.
    log_every: optimizer steps between two entries of the metrics.
    num_threads: that read the cache.
    wandb_project: logs to Weights & Biases too; '' does not.
    export: writes a diffusers folder to WORKDIR/export at the end.
    export_dtype: of that folder.
  """

  steps: int | None
  epochs: float | None
  batch_size: int | None
  batch_per_device: int | None
  grad_accum: int
  seed: int
  trainable: str
  real_weight: float
  caption_dropout: float
  ema_decay: float
  log_every: int
  num_threads: int
  wandb_project: str
  export: bool
  export_dtype: str

  def __post_init__(self):
    config_lib.check_choice('train.trainable', self.trainable, TRAINABLE)
    config_lib.check_choice(
      'train.export_dtype',
      self.export_dtype,
      ('float32', 'bfloat16', 'float16'),
    )
    for one, other in (('steps', 'epochs'), ('batch_size', 'batch_per_device')):
      if getattr(self, one) is None and getattr(self, other) is None:
        raise UserError(f'give train.{one} or train.{other}')
    for name in ('steps', 'epochs', 'batch_size', 'batch_per_device',
                 'grad_accum', 'log_every', 'num_threads'):  # fmt: skip
      value = getattr(self, name)
      if value is not None and value <= 0:
        raise UserError(f'train.{name} is {value}; it must be above 0')
    for name in ('caption_dropout', 'ema_decay'):
      if not 0.0 <= getattr(self, name) < 1.0:
        raise UserError(f'train.{name} must be in [0, 1)')
    if self.real_weight < 0:
      raise UserError('train.real_weight must not be below 0')

  def global_batch(self, num_devices: int, batch_shards: int) -> int:
    """Videos of an optimizer step.

    Raises:
      UserError: they do not spread evenly over the mesh.
    """
    size = self.batch_size or self.batch_per_device * num_devices
    parts = batch_shards * self.grad_accum
    if size % parts:
      raise UserError(
        f'a batch of {size} videos does not divide into {parts} parts: data x '
        f'fsdp = {batch_shards} devices, train.grad_accum = {self.grad_accum}'
      )
    return size

  def num_steps(self, num_records: int, batch_size: int) -> int:
    """Optimizer steps in all; what `epochs` comes to is rounded up."""
    if self.steps is not None:
      return self.steps
    return max(1, math.ceil(round(self.epochs * num_records) / batch_size))
