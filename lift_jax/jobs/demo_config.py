"""The config of `lift demo`; its values are in `toyworld/demo_config.py`."""

import dataclasses

from lift_jax.errors import UserError
from lift_jax.evaluation.bootstrap import BootstrapConfig
from lift_jax.jobs import evaluate, sample, score, train_critic
from lift_jax.jobs.align_config import AlignConfig
from lift_jax.toyworld import scenes
from lift_jax.toyworld.pretraining import critic_model, video_model


@dataclasses.dataclass(frozen=True)
class ClipsConfig:
  """How many clips there are of each kind.

  Attributes:
    rated: by people, for the critic to learn from.
    scored: by the critic, for the model to learn from.
    real: clean ones that are no model's.
    held_out: prompts that nothing is trained on.
    per_held_out: clips of each of them, before and after.
  """

  rated: int
  scored: int
  real: int
  held_out: int
  per_held_out: int

  def __post_init__(self):
    for name, value in dataclasses.asdict(self).items():
      if value < 1:
        raise UserError(f'clips.{name} is {value}; it must be 1 or more')
    known = len(scenes.training_scenes())
    if self.rated + self.scored > known:
      raise UserError(
        f'clips.rated + clips.scored is {self.rated + self.scored}; the toy '
        f'world has {known} prompts for training'
      )
    if self.held_out > len(scenes.held_out_scenes()):
      raise UserError(
        f'clips.held_out is {self.held_out}; the toy world holds out '
        f'{len(scenes.held_out_scenes())} prompts'
      )


@dataclasses.dataclass(frozen=True)
class PretrainConfigs:
  """How both models are made, where they are made from scratch."""

  model: video_model.PretrainConfig
  critic: critic_model.CriticPretrainConfig


@dataclasses.dataclass(frozen=True)
class DemoConfig:
  """Sections of the demo: those of the jobs, and what lies between.

  Attributes:
    seed: of everything random, in every stage.
    shown_pairs: pairs of clips in the report.
  """

  seed: int
  clips: ClipsConfig
  sample: sample.SampleConfig
  train_critic: train_critic.TrainCriticConfig
  score: score.ScoreConfig
  evaluate: evaluate.EvaluateConfig
  align: AlignConfig
  bootstrap: BootstrapConfig
  shown_pairs: int
  pretrain: PretrainConfigs
