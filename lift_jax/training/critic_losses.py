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

(Rao and Kupper 1967; VideoReward, arXiv 2501.13918, has theta 5.)

B examples  P pairs  C labels, from the best to the worst  V vocabulary
"""

import dataclasses
import math

import jax
import jax.numpy as jnp

from lift_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class LossConfig:
  """Weights of the losses, which are added.

  Attributes:
    answer: of the mean -log p of the answer tokens, LiFT's loss.
    label: of the mean cross-entropy of the shares of votes.
    pair: of the mean loss of pairs of clips of one prompt.
    theta: above 1; the larger, the more pairs are expected to be ties.
    pair_scale: what differences of rewards, which are at most 1, are multiplied
      by. Up to about log(theta) / `pair_scale`, a tie is the most probable.
  """

  answer: float = 1.0
  label: float = 0.0
  pair: float = 0.0
  theta: float = 5.0
  pair_scale: float = 10.0

  def __post_init__(self):
    weights = {
      name: getattr(self, name) for name in ('answer', 'label', 'pair')
    }
    for name, weight in weights.items():
      # In this form it rejects NaN too.
      if not 0 <= weight < math.inf:
        raise UserError(f'losses.{name} is {weight:g}; give a weight from 0 on')
    if not any(weights.values()):
      raise UserError(
        'losses.answer, losses.label and losses.pair are all 0; give one of '
        'them a weight'
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
    return self.label > 0 or self.pair > 0


# LiFT's recipe.
ANSWERS = LossConfig()


@dataclasses.dataclass(frozen=True)
class LabelScale:
  """Labels for the losses, from the best to the worst.

  Attributes:
    ids: the first token of each.
    rewards: of each.
  """

  ids: tuple[int, ...]
  rewards: tuple[float, ...]


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
