"""The config of `lift prepare` and `lift align`."""

import dataclasses

from lift_jax.data.prepare import DataConfig, PrepareConfig
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
  validation: ValidationConfig
  pairs: PairConfig | None = None
