"""The config of `lift prepare` and `lift align`."""

import dataclasses

from lift_jax import config_lib
from lift_jax.data.prepare import DataConfig, PrepareConfig
from lift_jax.errors import UserError
from lift_jax.jobs.score import ScoreConfig
from lift_jax.models.generator_config import ModelConfig
from lift_jax.models.lora import LoRAConfig
from lift_jax.partitioning import MeshConfig
from lift_jax.rewards.pairs import PairConfig
from lift_jax.training.config import AlignTrainConfig
from lift_jax.training.objectives import ObjectiveConfig
from lift_jax.training.optimizer import OptimizerConfig
from lift_jax.training.validation import ValidationConfig
from lift_jax.weights.checkpoints import CheckpointConfig


@dataclasses.dataclass(frozen=True)
class AlignValidationConfig(ValidationConfig):
  """Further settings for the clips of an alignment.

  Attributes:
    compare_to: 'base' compares the clips with those of the model before the
      first step, see `comparison.validation_clips`; '' does not.
    draws: noises and timesteps of a clip, for the distance to base.
    critic: the config of a `lift score` that rates the clips, too; its videos
      are filled in. It is loaded anew each time. None for none.
  """

  compare_to: str = ''
  draws: int = 4
  critic: ScoreConfig | None = None

  def __post_init__(self):
    super().__post_init__()
    config_lib.check_choice(
      'validation.compare_to', self.compare_to, ('', 'base')
    )
    if self.draws < 1:
      raise UserError('validation.draws must be above 0')
    if self.compare_to and not self.every_steps:
      raise UserError(
        f'validation.compare_to is {self.compare_to!r}, but there are no '
        'clips; set validation.every_steps above 0'
      )
    if self.critic is not None and not self.compare_to:
      raise UserError(
        "validation.critic is given; set validation.compare_to = 'base' too"
      )


@dataclasses.dataclass(frozen=True)
class AlignConfig:
  """Sections of an alignment experiment.

  If `data.root` is '', `toy_clips` clips of the toy world are used instead.
  """

  model: ModelConfig
  data: DataConfig
  toy_clips: int
  prepare: PrepareConfig
  mesh: MeshConfig
  train: AlignTrainConfig
  objective: ObjectiveConfig
  lora: LoRAConfig
  optimizer: OptimizerConfig
  checkpoint: CheckpointConfig
  validation: AlignValidationConfig
  pairs: PairConfig | None = None
