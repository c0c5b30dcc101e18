"""Losses of a critic on its ratings: distributions of labels, and pairs.

The token before an answer predicts its label. With p the distribution there,

  label   -sum_c q_c log p(first token of label c)

where q are the shares of the labels among the votes; with one vote it is the
loss of the first answer token. Of p normalised over the labels, the expected
reward is r = sum_c p_c reward_c, and for two clips of one prompt in the order
that people saw them, with d = scale (r_first - r_second),

  P(first)  = e^d / (e^d + theta)
  P(second) = 1 / (1 + theta e^d)
  P(same)   = (theta^2 - 1) P(first) P(second)
  pair      -log P(what people prefer)

(Rao and Kupper 1967; VideoReward, arXiv 2501.13918, has theta 5.) What people
prefer overall is compared in the same way with the mean over dimensions

  r_overall = mean_d w_d r_d

B examples  P pairs  C labels, from the best to the worst  V vocabulary
D dimensions
"""

import dataclasses
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp

from lift_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class LossConfig:
  """Weights of the losses, which are added.

  Attributes:
    answer: of the mean -log p of the answer tokens, LiFT's loss.
    label: of the mean cross-entropy of the shares of votes.
    pair: of the mean loss of pairs of clips of one prompt in one dimension.
    overall: of the mean loss of pairs of clips that people compared overall.
    normalize_overall: whether rewards are divided by the standard deviation of
      those of the ratings of their dimension before the mean, so that every
      dimension counts as much; else all have weight 1.
    theta: above 1; the larger, the more pairs are expected to be ties.
    pair_scale: what differences of rewards, which are at most 1, are multiplied
      by. Up to about log(theta) / `pair_scale`, a tie is the most probable.
  """

  answer: float = 1.0
  label: float = 0.0
  pair: float = 0.0
  overall: float = 0.0
  normalize_overall: bool = True
  theta: float = 5.0
  pair_scale: float = 10.0

  def __post_init__(self):
    weights = {
      name: getattr(self, name)
      for name in ('answer', 'label', 'pair', 'overall')
    }
    for name, weight in weights.items():
      # In this form it rejects NaN too.
      if not 0 <= weight < math.inf:
        raise UserError(f'losses.{name} is {weight:g}; give a weight from 0 on')
    if not any(weights.values()):
      raise UserError(
        f'{", ".join(f"losses.{name}" for name in weights)} are all 0; give '
        'one of them a weight'
      )
    if not 1 < self.theta < math.inf:
      raise UserError(f'losses.theta is {self.theta:g}; give a number above 1')
    if not 0 < self.pair_scale < math.inf:
      raise UserError(
        f'losses.pair_scale is {self.pair_scale:g}; give a number above 0'
      )

  @property
  def needs_ratings(self) -> bool:
    """Whether there is a loss besides that of the answers."""
    return self.label > 0 or self.compares_clips

  @property
  def compares_clips(self) -> bool:
    """Whether there is a loss of two clips."""
    return self.pair > 0 or self.overall > 0

  def unit_size(self, num_dimensions: int) -> int:
    """Examples of a unit; see `data.critic_units`."""
    if self.overall:
      return 2 * num_dimensions
    return 2 if self.pair else 1


# LiFT's recipe.
ANSWERS = LossConfig()


@dataclasses.dataclass(frozen=True)
class LabelScale:
  """Labels for the losses, from the best to the worst.

  Attributes:
    ids: the first token of each.
    rewards: of each.
    dimension_weights: of the dimensions in the overall reward, in the order of
      a unit; 1 on average.
  """

  ids: tuple[int, ...]
  rewards: tuple[float, ...]
  dimension_weights: tuple[float, ...] = ()


def label_cross_entropy(
  logits_bv: jax.Array, shares_bc: jax.Array, scale: LabelScale
) -> jax.Array:
  """[B]: cross-entropy of the shares of votes; 0 for shares that are all 0."""
  log_p_bv = jax.nn.log_softmax(logits_bv)
  return -jnp.sum(shares_bc * log_p_bv[:, jnp.array(scale.ids)], axis=1)


def expected_reward(logits_bv: jax.Array, scale: LabelScale) -> jax.Array:
  """[B]: the expected reward of the labels."""
  p_bc = jax.nn.softmax(logits_bv[:, jnp.array(scale.ids)])
  return p_bc @ jnp.array(scale.rewards)


def overall_reward(reward: jax.Array, scale: LabelScale) -> jax.Array:
  """[P, 2]: the overall rewards of the first and the second clip of pairs.

  Args:
    reward: of P pairs, each with D times the first and the second clip, in any
      shape.
    scale: of D dimensions.
  """
  weight_d1 = jnp.array(scale.dimension_weights)[:, None]
  reward_pd2 = reward.reshape(-1, len(weight_d1), 2)
  return jnp.mean(weight_d1[None] * reward_pd2, axis=1)


class Comparison(NamedTuple):
  """Sums over pairs.

  Attributes:
    loss: see `pair_losses`.
    num_right: pairs whose most probable outcome is the preferred one.
    num_pairs: how many there are.
  """

  loss: jax.Array
  num_right: jax.Array
  num_pairs: jax.Array


def compare(
  reward_p2: jax.Array, preference_p3: jax.Array, config: LossConfig
) -> Comparison:
  """Compares rewards of two clips with what people prefer.

  Args:
    reward_p2: of the first and the second clip.
    preference_p3: see `pair_losses`.
    config: the model of preferences.
  """
  difference_p = config.pair_scale * (reward_p2[:, 0] - reward_p2[:, 1])
  loss_p = pair_losses(difference_p, preference_p3, config.theta)
  log_p_p3 = outcomes(difference_p, config.theta)
  best_p3 = jax.nn.one_hot(jnp.argmax(log_p_p3, axis=1), 3)
  return Comparison(
    jnp.sum(loss_p), jnp.sum(preference_p3 * best_p3), jnp.sum(preference_p3)
  )


def pair_losses(
  difference_p: jax.Array, preference_p3: jax.Array, theta: float
) -> jax.Array:
  """[P]: loss of pairs.

  Args:
    difference_p: d, of the first clip to the second.
    preference_p3: shares of those who prefer the first, neither and the second;
      the loss is 0 if they are all 0.
    theta: of the model.
  """
  return -jnp.sum(preference_p3 * outcomes(difference_p, theta), axis=1)


def outcomes(difference_p: jax.Array, theta: float) -> jax.Array:
  """[P, 3]: log P of the first, neither and the second; see `pair_losses`."""
  first_p = jax.nn.log_sigmoid(difference_p - math.log(theta))
  second_p = jax.nn.log_sigmoid(-difference_p - math.log(theta))
  same_p = first_p + second_p + math.log(theta**2 - 1)
  return jnp.stack([first_p, same_p, second_p], axis=1)
