"""The config of `lift rounds`: its own settings, and those of the jobs.

The model that all rounds begin with is `sample.model`, the critic that the
rewards come from `score.model`. Paths, adapters, data, seeds and steps of the
other sections are filled in.
"""

import dataclasses

from lift_jax import config_lib
from lift_jax.errors import UserError
from lift_jax.evaluation.guards import StopRules
from lift_jax.jobs import sample, score, train_critic
from lift_jax.jobs.align_config import AlignConfig
from lift_jax.models.critic_config import CriticModelConfig

# How the pseudo-labels are chosen that a critic is trained on.
TEMPERATURES, CRITICS = 'temperatures', 'critics'


@dataclasses.dataclass(frozen=True)
class BudgetConfig:
  """What all rounds together may spend; each has an equal part.

  Attributes:
    rounds: number of rounds.
    clips: to sample and train on, those of the guards not counted.
    steps: of the optimizer of `lift align`.
  """

  rounds: int
  clips: int
  steps: int

  def __post_init__(self):
    for name, value in dataclasses.asdict(self).items():
      if value < 1:
        raise UserError(f'budget.{name} is {value}; it must be 1 or more')
    if self.steps < self.rounds:
      raise UserError(
        f'budget.steps is {self.steps}, which is less than one for each of '
        f'{self.rounds} rounds; give more, or fewer rounds'
      )


@dataclasses.dataclass(frozen=True)
class CorrectionConfig:
  """Labels of the critic that are corrected before the model learns from them.

  Attributes:
    share: of the clips of a round that are corrected: those on which the
      critics disagree most or, with one critic, that it is least certain of.
    critics: that vote on them, besides the training critic; the majority
      counts, and of a tie the worst label.
    people: file of human feedback (HRA) on clips of a round, with {round} for
      the number of the round, relative to the workdir; '' for none. Its labels
      take precedence over those of critics.
    questions: prompt JSON of the questions that people answered; '' finds
      them in their file, or takes those of the critic if it has dimensions
      other than LiFT's.
    wait: whether a round waits for the file; else it goes on without one.
  """

  share: float
  critics: tuple[CriticModelConfig, ...]
  people: str
  questions: str
  wait: bool

  def __post_init__(self):
    if not 0 <= self.share <= 1:
      raise UserError(
        f'correction.share is {self.share:g}; give a share from 0 to 1'
      )
    if self.people and '{round}' not in self.people:
      raise UserError(
        f'correction.people is {self.people!r}; it needs {{round}}, as in '
        "'people/round_{round}.json'"
      )
    if self.wait and not (self.people and self.share):
      raise UserError(
        'correction.wait waits for people: name their file in '
        'correction.people, and give a correction.share above 0'
      )


@dataclasses.dataclass(frozen=True)
class CriticTrainingConfig:
  """Whether and on what the critic is trained in each round.

  It learns from the labels of people, and from those of its own that agree.

  Attributes:
    enabled: whether it is trained.
    agreement: 'temperatures' keeps a label if answers sampled at both
      temperatures are the same; 'critics' if those of `correction.critics` are.
    temperatures: of the answers.
  """

  enabled: bool
  agreement: str
  temperatures: tuple[float, float]

  def __post_init__(self):
    config_lib.check_choice(
      'critic_training.agreement', self.agreement, (TEMPERATURES, CRITICS)
    )
    if min(self.temperatures) <= 0:
      raise UserError('critic_training.temperatures must be above 0')


@dataclasses.dataclass(frozen=True)
class GuardsConfig:
  """What is measured after each round, on the same prompts and noise.

  Attributes:
    prompts: how many of the prompts are never trained on, but measured on.
    clips_per_prompt: at least 2, to measure their diversity.
    seed: of their noise.
    critic: the held-out critic; None for none.
    draws: noises and timesteps of a clip, for the anchor distance.
    on_break: what follows a round that breaks a rule, and is rolled back:
      'stop', or 'continue' with a new round of the last good model.
    rules: when a round has failed.
  """

  prompts: int
  clips_per_prompt: int
  seed: int
  critic: CriticModelConfig | None
  draws: int
  on_break: str
  rules: StopRules

  def __post_init__(self):
    config_lib.check_choice(
      'guards.on_break', self.on_break, ('stop', 'continue')
    )
    for name, least in (('prompts', 1), ('clips_per_prompt', 2), ('draws', 1)):
      if getattr(self, name) < least:
        raise UserError(
          f'guards.{name} is {getattr(self, name)}; it must be {least} or more'
        )


@dataclasses.dataclass(frozen=True)
class RealClipsConfig:
  """Real clips that each round trains on, too.

  Attributes:
    root: folder that paths in the files are relative to; '' for none.
    files: lists of captioned clips, relative to the root or absolute.
  """

  root: str
  files: tuple[str, ...]

  def __post_init__(self):
    if bool(self.root) != bool(self.files):
      raise UserError('real.root and real.files go together; give both or none')


@dataclasses.dataclass(frozen=True)
class RoundsConfig:
  """Sections of `lift rounds`.

  Attributes:
    seed: of prompts, noise, and the order of training.
  """

  seed: int
  budget: BudgetConfig
  correction: CorrectionConfig
  critic_training: CriticTrainingConfig
  guards: GuardsConfig
  real: RealClipsConfig
  sample: sample.SampleConfig
  score: score.ScoreConfig
  train_critic: train_critic.TrainCriticConfig
  align: AlignConfig

  def __post_init__(self):
    self.sample.sampler.check_uncached('sample.sampler')
    if not self.align.train.export:
      raise UserError('align.train.export must be True: rounds go on from it')
    if self.critic_training.enabled:
      if not self.train_critic.train.export:
        raise UserError('train_critic.train.export must be True')
      if (
        self.critic_training.agreement == CRITICS
        and not self.correction.critics
      ):
        raise UserError(
          "critic_training.agreement is 'critics', but correction.critics is "
          "empty; name one, or choose 'temperatures'"
        )
    per_prompt = self.sample.prompts.videos_per_prompt
    if self.clips_per_round < per_prompt:
      raise UserError(
        f'budget.clips is {self.budget.clips}, which is less than '
        f'{per_prompt} clips of a prompt for each of {self.budget.rounds} '
        'rounds; give more, or fewer rounds'
      )

  @property
  def clips_per_round(self) -> int:
    return self.budget.clips // self.budget.rounds

  @property
  def steps_per_round(self) -> int:
    return self.budget.steps // self.budget.rounds
