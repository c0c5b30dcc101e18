"""Config of the evidence: that of `lift demo`, with every objective."""

import dataclasses
import pathlib

from ml_collections import config_dict

from lift_jax import config_lib
from lift_jax.evaluation.bootstrap import BootstrapConfig
from lift_jax.jobs import demo_config, sample, score, train_critic
from lift_jax.jobs.align_config import AlignConfig

# Has every objective.
_RECIPE = pathlib.Path(__file__).parents[2] / 'configs' / 'align_sample.py'
_SHARED = ('sample', 'train_critic', 'score', 'align')


@dataclasses.dataclass(frozen=True)
class ClipsConfig:
  """The number of prompts and clips of each kind.

  Attributes:
    prompts: to train the model on.
    per_prompt: clips of each of them.
    rated: clips that each of the two critics is trained on.
    real: clips that were not generated.
    evaluated: prompts of the comparison: held out from everything, or in the
      search those for training that remain.
    per_evaluated: clips of each of these prompts.
  """

  prompts: int
  per_prompt: int
  rated: int
  real: int
  evaluated: int
  per_evaluated: int


@dataclasses.dataclass(frozen=True)
class RoundsConfig:
  """Arms in rounds.

  Attributes:
    count: number of rounds.
    share: every round has 1 / share of the prompts and of the steps; after so
      many rounds the budget is that of an arm without rounds.
  """

  count: int
  share: int


@dataclasses.dataclass(frozen=True)
class EvidenceConfig:
  """Sections of the jobs, and what the evidence adds.

  Attributes:
    seed: of everything random.
  """

  seed: int
  clips: ClipsConfig
  rounds: RoundsConfig
  sample: sample.SampleConfig
  train_critic: train_critic.TrainCriticConfig
  score: score.ScoreConfig
  align: AlignConfig
  bootstrap: BootstrapConfig


def get_config(arg: str | None = None) -> config_dict.ConfigDict:
  """`:smoke` is the smallest; its numbers mean nothing."""
  demo = demo_config.get_config(arg)
  is_smoke = arg == 'smoke'
  config = config_dict.ConfigDict({'seed': 0})
  config.clips = {
    'prompts': 8 if is_smoke else 512,
    'per_prompt': 2 if is_smoke else 4,
    'rated': 16 if is_smoke else 256,
    'real': 4 if is_smoke else 256,
    'evaluated': 4 if is_smoke else 182,
    'per_evaluated': 2,
  }
  config.rounds = {'count': 2 if is_smoke else 5, 'share': 3}
  for name in _SHARED:
    config[name] = demo[name]
  config.bootstrap = demo.compare.statistics.bootstrap
  config.sample.output.sheet_clips = 0
  # LiFT's; records have soft rewards too.
  config.score.reward.update(kind='labels', decimals=2)
  align = config.align
  align.train.steps = 3 if is_smoke else 160
  # Runs are short; they resume from the start.
  align.checkpoint.every_steps = align.train.steps
  recipe = config_lib.load_module(_RECIPE).get_config()
  align.objective, align.pairs = recipe.objective, recipe.pairs
  # Good in every dimension: LiFT's reward of Good is 0.9.
  align.objective.rejection.min_reward = 0.89
  return config
