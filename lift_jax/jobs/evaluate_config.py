"""Sections of the config of `lift evaluate`."""

import dataclasses

from lift_jax import config_lib
from lift_jax.data.clip_paths import FOLLOW_LINKS
from lift_jax.data.json_records import ON_BAD_RECORD
from lift_jax.errors import UserError
from lift_jax.evaluation.critic_evaluation import MetricsConfig
from lift_jax.report.critic_page import PageConfig
from lift_jax.rewards.weights import RewardMap


@dataclasses.dataclass(frozen=True)
class ScoresConfig:
  """The scores of the critic, and of others to compare it with.

  Attributes:
    files: scored records of one critic; relative to the current folder.
    others: a file for each other critic; with any, DIR/ensemble.json has the
      scores of all of them as one.
  """

  files: tuple[str, ...]
  others: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class NormalizationConfig:
  """What adds up the dimensions of pairs; see `evaluation.normalization`.

  Attributes:
    critics: folders of critics with a normalization.json.
    files: for each of these critics, its scores of the clips of its training:
      the normalization.json is made from them; () reads those that exist.
  """

  critics: tuple[str, ...]
  files: tuple[str, ...]

  def __post_init__(self):
    if self.files and len(self.files) != len(self.critics):
      raise UserError(
        f'{len(self.files)} normalization.files for {len(self.critics)} '
        'normalization.critics; give one file for each, or none'
      )


@dataclasses.dataclass(frozen=True)
class LabelsConfig:
  """The ratings of annotators.

  Attributes:
    root: the folder of the videos, which need not exist, or the id of a data
      set on the hub; '' is the current folder.
    files: HRA files, relative to the root.
    questions: a prompt JSON or rubric (`data.rubric`) with the questions,
      labels and rewards of these files; '' detects the questions, of LiFT's
      dimensions and labels.
    on_bad_record: 'error' or 'skip'; applies to the scores too.
    follow_links: links out of the root that may be followed; see
      `clip_paths.ClipFolder`.
  """

  root: str
  files: tuple[str, ...]
  questions: str
  on_bad_record: str
  follow_links: str

  def __post_init__(self):
    config_lib.check_choice(
      'labels.on_bad_record', self.on_bad_record, ON_BAD_RECORD
    )
    config_lib.check_choice(
      'labels.follow_links', self.follow_links, FOLLOW_LINKS
    )


@dataclasses.dataclass(frozen=True)
class PreferencesConfig:
  """Pairs of clips that people compared.

  Attributes:
    files: see `data.pair_records`; relative to `labels.root`.
    tuning: other pairs, to fit thresholds on; those that are in `files` too are
      left out.
  """

  files: tuple[str, ...]
  tuning: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class TrainedOnConfig:
  """The training data of the critic.

  Attributes:
    files: HRA files; a video or caption that is in these and in the labels is
      an error.
  """

  files: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class CalibrationConfig:
  """The ratings that temperatures and thresholds are fitted on.

  Attributes:
    files: HRA files of ratings for this purpose only.
    fraction: without files, the fraction of the labels' prompts, with all of
      their videos, that is used; 0 fits nothing.
    seed: of the choice of these prompts.
  """

  files: tuple[str, ...]
  fraction: float
  seed: int

  def __post_init__(self):
    if not 0 <= self.fraction < 1:
      raise UserError(
        f'calibration.fraction is {self.fraction:g}; it must be in [0, 1)'
      )


@dataclasses.dataclass(frozen=True)
class EvaluateConfig:
  """Sections of an evaluation.

  If no files are given, `toy_clips` clips of the toy world are used, with
  simulated ratings and scores.
  """

  scores: ScoresConfig
  labels: LabelsConfig
  preferences: PreferencesConfig
  normalization: NormalizationConfig
  train: TrainedOnConfig
  calibration: CalibrationConfig
  reward: RewardMap
  metrics: MetricsConfig
  report: PageConfig
  toy_clips: int
