"""Rank agreement of a critic with human ratings: correlations and pairs.

Every metric here is a sum over clips or over pairs of clips, in which a clip is
weighted by how often its video was drawn (see `bootstrap`). So one call
computes it for many resamples, as if clips were repeated.

Pairs are evaluated as on VideoGen-RewardBench (J. Liu et al. 2025, arXiv
2501.13918), with d the difference of two rewards:

  without ties: of the pairs with different human ratings, the share where d
    has the right sign. A d of 0 is wrong.
  with ties: of all pairs, the share where the critic agrees with the human
    order: first better, second better, or a tie, predicted where |d| <= epsilon
    (D. Deutsch et al. 2023, "Ties Matter", arXiv 2305.14324).

The benchmark uses the epsilon that is best on the evaluated pairs, here
`with_ties_fitted_here`; `with_ties` fits it on other clips. `benchmarks` has
its rule to the letter.

D resamples, V videos, N clips, P pairs, K distinct values.
"""

import dataclasses

import numpy as np

from lift_jax.evaluation import bootstrap
from lift_jax.evaluation.bootstrap import BootstrapConfig, Estimate, ratio

# Smaller differences of rewards are rounding errors.
_DIGITS = 9


@dataclasses.dataclass(frozen=True)
class Ranked:
  """Clips with two values to rank them by.

  Attributes:
    reward_n: the critic's.
    human_n: human labels: classes, or rewards computed from them.
    video_n: index of the video.
    caption_n: index of the caption.
    num_videos: upper bound of `video_n`.
  """

  reward_n: np.ndarray
  human_n: np.ndarray
  video_n: np.ndarray
  caption_n: np.ndarray
  num_videos: int

  def __post_init__(self):
    for name in ('reward_n', 'human_n'):
      values = np.round(np.asarray(getattr(self, name), float), _DIGITS)
      object.__setattr__(self, name, values)


@dataclasses.dataclass(frozen=True)
class Pairs:
  """Pairs of clips.

  Attributes:
    first_p: index of a clip.
    second_p: index of another clip.
    same_prompt: whether the two clips of each pair share a caption.
    num_all: how many such pairs exist; P of them were sampled.
  """

  first_p: np.ndarray
  second_p: np.ndarray
  same_prompt: bool
  num_all: int


class _Order:
  """Clips sorted by some values."""

  def __init__(self, values_n: np.ndarray):
    self.order_n = np.argsort(values_n, kind='stable')
    # Of each distinct value, where it begins in sorted order, and how often it
    # occurs.
    _, self._start_k, self._count_k = np.unique(
      values_n[self.order_n], return_index=True, return_counts=True
    )

  def below_and_equal(
    self, weights_dn: np.ndarray
  ) -> tuple[np.ndarray, np.ndarray]:
    """Total weight of the clips with a lower and an equal value, [D, N] each.

    Arguments and results are in sorted order.
    """
    equal_dk = np.add.reduceat(weights_dn, self._start_k, axis=1)
    below_dk = np.cumsum(equal_dk, axis=1) - equal_dk
    return (
      np.repeat(below_dk, self._count_k, axis=1),
      np.repeat(equal_dk, self._count_k, axis=1),
    )


def spearman(
  first_n: np.ndarray, second_n: np.ndarray, weights_dn: np.ndarray
) -> np.ndarray:
  """Spearman's rank correlation [D]; tied values share their mean rank."""
  ranks = []
  for values_n in (first_n, second_n):
    order = _Order(values_n)
    below_dn, equal_dn = order.below_and_equal(weights_dn[:, order.order_n])
    rank_dn = np.empty_like(below_dn)
    rank_dn[:, order.order_n] = below_dn + (equal_dn + 1) / 2
    ranks.append(rank_dn)
  count_d1 = weights_dn.sum(axis=1, keepdims=True)
  # The mean rank of n clips is (n + 1) / 2.
  one_dn, two_dn = (rank_dn - (count_d1 + 1) / 2 for rank_dn in ranks)
  covariance_d = (weights_dn * one_dn * two_dn).sum(axis=1)
  variance_d = (weights_dn * one_dn**2).sum(axis=1) * (
    weights_dn * two_dn**2
  ).sum(axis=1)
  return ratio(covariance_d, np.sqrt(variance_d))


def kendall(
  first_n: np.ndarray, second_n: np.ndarray, weights_dn: np.ndarray
) -> np.ndarray:
  """tau-b = (C - D) / sqrt((all - ties in one) (all - ties in other)), [D].

  C counts the concordant pairs, D the discordant ones. `second_n` should have
  few distinct values: time grows with their number.
  """
  order = _Order(first_n)
  weights_dn = weights_dn[:, order.order_n]
  second_n = second_n[order.order_n]
  balance_d = np.zeros(len(weights_dn))
  second_ties_d = np.zeros(len(weights_dn))
  for level in np.unique(second_n):
    level_dn = np.where(second_n == level, weights_dn, 0)
    # Earlier clips of this level: concordant if their level is the lower one.
    below_dn, _ = order.below_and_equal(level_dn)
    balance_d += (weights_dn * below_dn * np.sign(second_n - level)).sum(axis=1)
    count_d = level_dn.sum(axis=1)
    second_ties_d += count_d * (count_d - 1) / 2
  _, equal_dn = order.below_and_equal(weights_dn)
  first_ties_d = (weights_dn * (equal_dn - 1)).sum(axis=1) / 2
  count_d = weights_dn.sum(axis=1)
  all_d = count_d * (count_d - 1) / 2
  return ratio(
    balance_d, np.sqrt((all_d - first_ties_d) * (all_d - second_ties_d))
  )


def choose_pairs(ranked: Ranked, max_pairs: int, seed: int) -> Pairs:
  """Pairs of clips of one prompt; of any prompts if none has two videos.

  Args:
    ranked: the clips.
    max_pairs: if there are more, this many are sampled.
    seed: of the sampling.
  """
  rng = np.random.default_rng(seed)
  pairs = _pairs(ranked, ranked.caption_n, max_pairs, rng, True)
  if not len(pairs.first_p):
    one_group_n = np.zeros_like(ranked.caption_n)
    pairs = _pairs(ranked, one_group_n, max_pairs, rng, False)
  return pairs


def _pairs(
  ranked: Ranked,
  group_n: np.ndarray,
  max_pairs: int,
  rng: np.random.Generator,
  same_prompt: bool,
) -> Pairs:
  """Pairs of clips of different videos within groups.

  Pair (a, b) of a group, a < b, has the number b (b - 1) / 2 + a, so pairs can
  be sampled without listing all of them.
  """
  order_n = np.argsort(group_n, kind='stable')
  _, start_g, count_g = np.unique(
    group_n[order_n], return_index=True, return_counts=True
  )
  end_g = np.cumsum(count_g * (count_g - 1) // 2)
  num_all = int(end_g[-1]) if len(end_g) else 0
  if num_all > max_pairs:
    number_p = np.sort(rng.choice(num_all, max_pairs, replace=False))
  else:
    number_p = np.arange(num_all)
  group_p = np.searchsorted(end_g, number_p, side='right')
  number_p = number_p - np.pad(end_g, (1, 0))[group_p]
  second_p = ((1 + np.sqrt(1 + 8 * number_p)) / 2).astype(int)
  first_p = number_p - second_p * (second_p - 1) // 2
  first_p = order_n[start_g[group_p] + first_p]
  second_p = order_n[start_g[group_p] + second_p]
  differs_p = ranked.video_n[first_p] != ranked.video_n[second_p]
  return Pairs(first_p[differs_p], second_p[differs_p], same_prompt, num_all)


@dataclasses.dataclass(frozen=True)
class Compared:
  """Pairs with two orders of their clips, a human one and the critic's.

  Attributes:
    order_p: 1 where people prefer the first clip, -1 the second, 0 for a tie.
    difference_p: the critic's reward of the first clip minus that of the
      second; NaN without an answer.
    first_p: index of the first clip's video.
    second_p: index of the second clip's video.
    num_videos: upper bound of these indices.
  """

  order_p: np.ndarray
  difference_p: np.ndarray
  first_p: np.ndarray
  second_p: np.ndarray
  num_videos: int

  def __post_init__(self):
    # The difference of two rounded values has a rounding error again.
    rounded_p = np.round(self.difference_p, _DIGITS)
    object.__setattr__(self, 'difference_p', rounded_p)


def fit_tie_threshold(
  ranked: Ranked, pairs: Pairs
) -> tuple[float | None, float]:
  """See `best_threshold`."""
  return best_threshold(_compare(ranked, pairs))


def best_threshold(compared: Compared) -> tuple[float | None, float]:
  """The epsilon with the best agreement, and that agreement.

  Candidates are the occurring |d|, and predicting no ties at all; the smallest
  of equally good ones wins. Unlike the published script this never separates
  pairs of equal |d|, which are frequent as there are only ten possible scores.

  Returns:
    Epsilon, None to predict no ties; and the share of pairs that agree, NaN if
    there are no pairs.
  """
  num_pairs = len(compared.order_p)
  if not num_pairs:
    return None, float('nan')
  is_answered_p = ~np.isnan(compared.difference_p)
  order_p = compared.order_p[is_answered_p]
  difference_p = compared.difference_p[is_answered_p]
  by_size = np.argsort(np.abs(difference_p), kind='stable')
  order_p, difference_p = order_p[by_size], difference_p[by_size]
  size_p = np.abs(difference_p)
  is_tie_p = order_p == 0
  is_right_p = ~is_tie_p & (np.sign(difference_p) == order_p)
  # Number of pairs that agree if the first k are predicted to be ties.
  agrees_k = np.pad(np.cumsum(is_tie_p), (1, 0)) + np.pad(
    np.cumsum(is_right_p[::-1])[::-1], (0, 1)
  )
  is_last_k = np.pad(size_p[1:] != size_p[:-1], (0, 1), constant_values=True)
  allowed = np.concatenate([[0], np.flatnonzero(is_last_k[: len(size_p)]) + 1])
  best = allowed[agrees_k[allowed].argmax()]
  share = float(agrees_k[best] / num_pairs)
  return (float(size_p[best - 1]) if best else None), share


def _compare(ranked: Ranked, pairs: Pairs) -> Compared:
  first_p, second_p = pairs.first_p, pairs.second_p
  return Compared(
    np.sign(ranked.human_n[first_p] - ranked.human_n[second_p]),
    ranked.reward_n[first_p] - ranked.reward_n[second_p],
    ranked.video_n[first_p],
    ranked.video_n[second_p],
    ranked.num_videos,
  )


def correlations(
  ranked: Ranked, config: BootstrapConfig
) -> dict[str, Estimate]:
  """Spearman's and Kendall's rank correlation of reward and human rating."""

  # Clips of equal values are one, whose weight is their sum.
  (reward_k, human_k), group_n, count_k = np.unique(
    np.stack([ranked.reward_n, ranked.human_n]),
    axis=1,
    return_inverse=True,
    return_counts=True,
  )
  video_n = ranked.video_n[np.argsort(group_n.ravel(), kind='stable')]
  start_k = np.cumsum(count_k) - count_k

  def metrics(weights_dv: np.ndarray) -> dict[str, np.ndarray]:
    weights_dk = np.add.reduceat(weights_dv[:, video_n], start_k, axis=1)
    return {
      'spearman': spearman(reward_k, human_k, weights_dk),
      'kendall': kendall(reward_k, human_k, weights_dk),
    }

  return bootstrap.estimates(metrics, ranked.num_videos, len(video_n), config)


def pairwise(
  ranked: Ranked,
  pairs: Pairs,
  threshold: float | None,
  config: BootstrapConfig,
) -> dict[str, Estimate]:
  """The share of pairs that the critic orders as the human ratings do.

  Args:
    ranked: the clips.
    pairs: of them.
    threshold: epsilon for pairs with ties; None predicts no ties.
    config: of the intervals.
  """
  return agreement(_compare(ranked, pairs), threshold, config)


def agreement(
  compared: Compared, threshold: float | None, config: BootstrapConfig
) -> dict[str, Estimate]:
  """The share of pairs in which both orders are the same; see `pairwise`."""
  return bootstrap.estimates(
    agreement_metrics(compared, threshold),
    compared.num_videos,
    len(compared.order_p),
    config,
  )


def agreement_metrics(
  compared: Compared, threshold: float | None
) -> bootstrap.Metrics:
  """What `agreement` computes, from the weights of videos."""
  order_p, difference_p = compared.order_p, compared.difference_p
  is_tie_p = order_p == 0
  predicted_p = np.sign(difference_p)
  is_right_p = ~is_tie_p & (predicted_p == order_p)
  if threshold is not None:
    predicted_p = np.where(np.abs(difference_p) <= threshold, 0, predicted_p)
    is_same_p = predicted_p == order_p
  else:
    is_same_p = is_right_p
  columns_pc = np.column_stack(
    [np.ones(len(order_p)), is_tie_p, is_right_p, is_same_p]
  )

  def metrics(weights_dv: np.ndarray) -> dict[str, np.ndarray]:
    weights_dp = (
      weights_dv[:, compared.first_p] * weights_dv[:, compared.second_p]
    )
    all_d, ties_d, right_d, same_d = (weights_dp @ columns_pc).T
    return {
      'without_ties': ratio(right_d, all_d - ties_d),
      'with_ties': ratio(same_d, all_d),
      'human_ties': ratio(ties_d, all_d),
    }

  return metrics
