"""Accuracies of two public benchmarks, exactly as these define them.

They are shares of votes, without intervals; `preferences` has our own.

VideoGen-RewardBench (J. Liu et al. 2025, arXiv 2501.13918), with d the
difference of two rewards and ties predicted where |d| is small:

  without ties  of the pairs that people do not tie, the share where d has the
                right sign; a d of 0 is wrong
  with ties     the best share of agreement if the k pairs of smallest |d| are
                predicted as ties, over k from 1 to all. Pairs of equal |d| may
                be separated, in the order of the file

GenAI-Bench (D. Jiang et al. 2024, arXiv 2406.04485) has four votes: the first,
the second, both good, both bad. A reward predicts a tie where |d| <= width, and
of a tie that both are good where their mean is at least a level. Both are
fitted on other votes.

Legend: P pairs.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class VideoGenAccuracy:
  """Accuracies in [0, 1]; NaN where there are no such pairs."""

  with_ties: float
  without_ties: float


def videogen_accuracy(
  order_p: np.ndarray, difference_p: np.ndarray
) -> VideoGenAccuracy:
  """The accuracy of VideoGen-RewardBench.

  Args:
    order_p: 1 where people prefer the first clip, -1 the second, 0 for a tie.
    difference_p: of the rewards of the first and the second clip, unrounded;
      NaN, without an answer, is wrong.
  """
  is_tie_p = order_p == 0
  is_right_p = ~is_tie_p & (np.sign(difference_p) == order_p)
  by_size = np.argsort(np.abs(difference_p), kind='stable')  # NaN last
  ties_p = (is_tie_p & ~np.isnan(difference_p))[by_size]
  right_p = is_right_p[by_size]
  # Agreement if the pairs up to and with each one are predicted as ties.
  agrees_p = np.cumsum(ties_p) + right_p.sum() - np.cumsum(right_p)
  num, num_ordered = len(order_p), int((~is_tie_p).sum())
  return VideoGenAccuracy(
    float(agrees_p.max() / num) if num else float('nan'),
    float(is_right_p.sum() / num_ordered) if num_ordered else float('nan'),
  )


@dataclasses.dataclass(frozen=True)
class Votes:
  """Votes of GenAI-Bench.

  Attributes:
    vote_p: 1 for the first clip, -1 for the second, 0 if both are good, 2 if
      both are bad.
    difference_p: of the rewards of the first and the second clip.
    mean_p: of both rewards.
  """

  vote_p: np.ndarray
  difference_p: np.ndarray
  mean_p: np.ndarray


FIRST, SECOND, BOTH_GOOD, BOTH_BAD = 1, -1, 0, 2


@dataclasses.dataclass(frozen=True)
class VoteThresholds:
  """See the head of this file.

  Attributes:
    width: of ties; -1 predicts none.
    level: of both good.
  """

  width: float
  level: float


def fit_vote_thresholds(votes: Votes) -> VoteThresholds:
  """The thresholds with the best accuracy on at least one vote.

  Candidates are the values that occur; of equally good ones, the first.
  """
  size_p = np.abs(votes.difference_p)
  is_answered_p = ~np.isnan(size_p)
  size_p, mean_p = size_p[is_answered_p], votes.mean_p[is_answered_p]
  vote_p = votes.vote_p[is_answered_p]
  by_mean = np.argsort(mean_p, kind='stable')
  size_p, mean_p, vote_p = size_p[by_mean], mean_p[by_mean], vote_p[by_mean]
  difference_p = votes.difference_p[is_answered_p][by_mean]
  is_right_p = np.sign(difference_p) == vote_p
  is_right_p &= np.isin(vote_p, (FIRST, SECOND))
  # A level before each mean, of which equal ones are not separated.
  is_start_p = np.diff(mean_p, prepend=-np.inf) > 0
  levels = np.append(mean_p[is_start_p], np.inf)
  starts = np.append(np.flatnonzero(is_start_p), len(mean_p))
  best = (-1, VoteThresholds(-1.0, np.inf))
  for width in np.append(-1.0, np.unique(size_p)):
    is_tie_p = size_p <= width
    bad_p = np.cumsum(is_tie_p & (vote_p == BOTH_BAD))
    good_p = np.cumsum(is_tie_p & (vote_p == BOTH_GOOD))
    right = np.pad(bad_p, (1, 0))[starts]
    right += (good_p[-1:].sum() - np.pad(good_p, (1, 0)))[starts]
    agrees = right + (is_right_p & ~is_tie_p).sum()
    index = int(agrees.argmax())
    if agrees[index] > best[0]:
      found = VoteThresholds(float(width), float(levels[index]))
      best = (agrees[index], found)
  return best[1]


def vote_accuracy(votes: Votes, thresholds: VoteThresholds) -> float:
  """The share of votes that are predicted; one without an answer is wrong."""
  predicted_p = np.sign(votes.difference_p)
  is_tie_p = np.abs(votes.difference_p) <= thresholds.width
  is_good_p = votes.mean_p >= thresholds.level
  tie_p = np.where(is_good_p, BOTH_GOOD, BOTH_BAD)
  predicted_p = np.where(is_tie_p, tie_p, predicted_p)
  # Equal rewards outside of the width predict nothing.
  is_nothing_p = ~is_tie_p & (votes.difference_p == 0)
  return float(((predicted_p == votes.vote_p) & ~is_nothing_p).mean())
