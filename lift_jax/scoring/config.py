"""Settings of `lift score`, except those of model and mesh."""

import dataclasses

from lift_jax import config_lib
from lift_jax.data.clip_flags import ClipRules
from lift_jax.data.clip_paths import FOLLOW_LINKS
from lift_jax.data.json_records import ON_BAD_RECORD
from lift_jax.errors import UserError
from lift_jax.models import quantization
from lift_jax.models.critics import Critic
from lift_jax.rewards.weights import RewardMap

KINDS = ('labels', 'soft')


@dataclasses.dataclass(frozen=True)
class VideosConfig(ClipRules):
  """Which videos to rate.

  Attributes:
    root: folder that paths in the files are relative to, or the id of a data
      set on the hub, ORG/NAME[@REVISION]; '' for clips of the toy world.
    files: see `scoring.videos`.
    on_bad_record: 'error' stops at the first bad record; 'skip' lists and
      skips them.
    follow_links: links out of the root that may be followed; see
      `clip_paths.ClipFolder`.
  """

  root: str
  files: tuple[str, ...]
  on_bad_record: str
  follow_links: str

  def __post_init__(self):
    super().__post_init__()
    config_lib.check_choice(
      'videos.on_bad_record', self.on_bad_record, ON_BAD_RECORD
    )
    config_lib.check_choice(
      'videos.follow_links', self.follow_links, FOLLOW_LINKS
    )


@dataclasses.dataclass(frozen=True)
class FramesConfig:
  """The frames that a critic reads; None keeps the setting of its folder.

  Every setting makes it another critic: it has another fingerprint, and scores
  that are best compared with those of its training.

  Attributes:
    num_frames: of a clip, at most.
    fps: frames per second, in place of `num_frames`; not of VILA.
    min_pixels: of all frames of a clip together at least; smaller frames are
      made larger. Not of VILA.
    max_pixels: likewise at most.
  """

  num_frames: int | None = None
  fps: float | None = None
  min_pixels: int | None = None
  max_pixels: int | None = None

  def __post_init__(self):
    for name, value in self.given.items():
      if value <= 0:
        raise UserError(f'frames.{name} is {value:g}; it must be above 0')
    if self.num_frames is not None and self.fps is not None:
      raise UserError('frames.num_frames and frames.fps: give one of them')

  @property
  def given(self) -> dict[str, int | float]:
    """The settings that are not None."""
    return {
      name: value
      for name, value in dataclasses.asdict(self).items()
      if value is not None
    }

  def of(self, critic: Critic) -> Critic:
    """The critic with these settings."""
    return critic.with_frames(**self.given) if self.given else critic


@dataclasses.dataclass(frozen=True)
class ScoringPromptsConfig:
  """The prompts of the critic and its answers.

  Attributes:
    questions: prompt JSON with the questions that it was trained on; ''
      takes those that `lift train_critic` wrote next to it, and our own for a
      random critic.
    text_buckets: allowed numbers of tokens of the caption and the text around
      it, without those of the frames; one program is compiled for each.
    max_answer_tokens: of label and rationale; 0 generates none, and a rating
      takes only one forward pass over the prompt.
  """

  questions: str
  text_buckets: tuple[int, ...]
  max_answer_tokens: int

  def __post_init__(self):
    if not self.text_buckets or min(self.text_buckets) < 1:
      raise UserError(
        f'prompts.text_buckets is {self.text_buckets}; give at least one '
        'number of tokens above 0'
      )
    if self.max_answer_tokens < 0:
      raise UserError('prompts.max_answer_tokens must not be below 0')


@dataclasses.dataclass(frozen=True)
class RewardConfig:
  """From ratings to the score that `lift align` reads.

  Attributes:
    good: score of the label, in [0, 1]; those of labels of one's own are in the
      rubric.
    normal: see `good`.
    bad: see `good`.
    kind: 'labels', the mean score of the three labels, as LiFT; or 'soft', the
      mean of its expectation under the critic's probabilities.
    decimals: of the score; None does not round. LiFT keeps 2.
  """

  good: float
  normal: float
  bad: float
  kind: str
  decimals: int | None

  def __post_init__(self):
    config_lib.check_choice('reward.kind', self.kind, KINDS)
    self.reward_map()  # checks its arguments before anything is rated
    if self.decimals is not None and self.decimals < 0:
      raise UserError('reward.decimals must not be below 0')

  def reward_map(self) -> RewardMap:
    """The score of each label."""
    return RewardMap(self.good, self.normal, self.bad)


@dataclasses.dataclass(frozen=True)
class ScoringRunConfig:
  """How the work is divided and computed.

  All but `quantize` affect ratings only through rounding.

  Attributes:
    batch_per_shard: videos that are rated together on each shard of the batch
      (the mesh has data x fsdp shards).
    num_readers: threads that decode videos.
    read_ahead: batches that are decoded before they are needed.
    quantize: 'int8' keeps the kernels of the language model as int8, which
      takes half the memory of bfloat16 (see `models.quantization`); or 'none'.
  """

  batch_per_shard: int
  num_readers: int
  read_ahead: int
  quantize: str = quantization.NONE

  def __post_init__(self):
    config_lib.check_choice('run.quantize', self.quantize, quantization.KINDS)
    for name in ('batch_per_shard', 'num_readers', 'read_ahead'):
      if getattr(self, name) < 1:
        raise UserError(f'run.{name} must be above 0')
