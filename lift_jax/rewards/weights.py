"""Rewards from labels; a reward weights the likelihood of a video."""

from collections.abc import Mapping
import dataclasses
import math

from lift_jax.data.rubric import LABELS, REWARDS, Rubric, Scale
from lift_jax.errors import UserError, listing


@dataclasses.dataclass(frozen=True)
class RewardMap:
  """The score of each of LiFT's labels (arXiv 2412.04814).

  The rewards of a rubric with other labels are in its file.

  Attributes:
    good: score of 'Good'. All are in [0, 1], with good >= normal >= bad.
    normal: score of 'Normal'.
    bad: score of 'Bad'; above 0, training still learns from such videos.
  """

  good: float = 0.9
  normal: float = 0.2
  bad: float = 0.05

  def __post_init__(self):
    scores = dataclasses.asdict(self)
    for name, score in scores.items():
      is_number = isinstance(score, int | float) and not isinstance(score, bool)
      # NaN and infinity fail the comparison, too.
      if not is_number or not 0 <= score <= 1:
        raise UserError(
          f'{name} = {score!r} in the reward map; give a number from 0 to 1'
        )
    if not self.good >= self.normal >= self.bad:
      raise UserError(
        f'the reward map {scores} gives a worse label a higher score; use good '
        '>= normal >= bad'
      )

  def scores(self) -> tuple[float, float, float]:
    """In the order of `LABELS`."""
    return tuple(getattr(self, label.lower()) for label in LABELS)

  def scale(self, rubric: Rubric | None = None) -> Scale:
    """The scale of a rubric, by default of LiFT's dimensions.

    Rewards of LiFT's labels are these, unless only the rubric has others than
    the published ones.

    Raises:
      UserError: both have others, which differ.
    """
    if rubric is None:
      return Scale(rewards=self.scores())
    scale, published = rubric.scale, tuple(REWARDS.values())
    if scale.labels != LABELS or self.scores() in (published, scale.rewards):
      return scale
    if scale.rewards != published:
      raise UserError(
        f'the config gives {", ".join(LABELS)} the rewards {self.scores()}, '
        f'the rubric {scale.rewards}; leave those of the config at {published}'
      )
    return dataclasses.replace(scale, rewards=self.scores())


def video_reward(
  labels: Mapping[str, str],
  scale: Scale,
  decimals: int | None = None,
) -> float:
  """The mean over the dimensions of the scores of a video's labels.

  Args:
    labels: by dimension, exactly those of the scale.
    scale: scores of the labels.
    decimals: of the rounded mean, None without rounding. The reference stores
      two (CogVideo/process_reward_score.py).

  Raises:
    UserError: a missing or unknown dimension, or an unknown label.
  """
  if missing := set(scale.dimensions) - labels.keys():
    raise UserError(f'no label for {listing(missing)}; rate every dimension')
  if unknown := labels.keys() - set(scale.dimensions):
    raise UserError(
      f'a label for {listing(map(repr, unknown))}; the dimensions are '
      f'{", ".join(scale.dimensions)}'
    )
  scores = [scale.score(labels[name]) for name in scale.dimensions]
  reward = math.fsum(scores) / len(scores)
  return reward if decimals is None else round(reward, decimals)
