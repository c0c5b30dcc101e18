"""Settings of `lift score`, beside those of model and mesh."""

import dataclasses

from lift_jax import config_lib
from lift_jax.data.json_records import ON_BAD_RECORD
from lift_jax.errors import UserError
from lift_jax.rewards.weights import RewardMap

KINDS = ('labels', 'soft')


@dataclasses.dataclass(frozen=True)
class VideosConfig:
  """Which videos are rated.

  Attributes:
    root: folder that paths in the files are relative to; '' for clips of the
      toy world.
    files: see `scoring.videos`.
    on_bad_record: 'error' stops at the first; 'skip' lists them and goes on.
  """

  root: str
  files: tuple[str, ...]
  on_bad_record: str

  def __post_init__(self):
    config_lib.check_choice(
      'videos.on_bad_record', self.on_bad_record, ON_BAD_RECORD
    )


@dataclasses.dataclass(frozen=True)
class ScoringPromptsConfig:
  """What the critic is asked.

  Attributes:
    questions: prompt JSON with the three questions that it was trained on; ''
      takes those that `lift train_critic` left beside it, and our own for a
      random critic.
    text_buckets: the numbers of tokens that a caption, with the words around
      it, may take beside the frames; each is compiled on its own.
    max_answer_tokens: of a rationale, its label included; 0 asks for none, and
      the rating costs one reading of the prompt.
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
    good: worth of each label, in [0, 1].
    normal: see `good`.
    bad: see `good`.
    kind: 'labels', the mean worth of the three labels, as LiFT; or 'soft', the
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
    self.worth()  # is refused here, and not once everything is rated
    if self.decimals is not None and self.decimals < 0:
      raise UserError('reward.decimals must not be below 0')

  def worth(self) -> RewardMap:
    """The score of each label."""
    return RewardMap(self.good, self.normal, self.bad)


@dataclasses.dataclass(frozen=True)
class ScoringRunConfig:
  """How the work is cut up; none of it changes a rating but for rounding.

  Attributes:
    batch_per_shard: videos that are rated together on each shard of the batch
      (the mesh has data x fsdp of them).
    num_readers: threads that decode videos.
    read_ahead: batches that are decoded before they are needed.
  """

  batch_per_shard: int
  num_readers: int
  read_ahead: int

  def __post_init__(self):
    for name in ('batch_per_shard', 'num_readers', 'read_ahead'):
      if getattr(self, name) < 1:
        raise UserError(f'run.{name} must be above 0')
