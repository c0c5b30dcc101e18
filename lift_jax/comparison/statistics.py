"""Statistics of two models whose clips have the same prompts.

Everything is paired: prompts, with all their clips of both models, are
resampled and permuted, as the clips of a prompt are correlated, and as its
difficulty cancels in the difference.

  interval     percentile bootstrap over prompts (see `evaluation.bootstrap`)
  p-value      permutation test: if the models were alike, the difference of
               each prompt could as well have the other sign
  marks        Holm's step-down correction over all quantities (S. Holm, A
               simple sequentially rejective multiple test procedure, 1979)
  detectable   the difference that a test at 5% finds in 80% of such comparisons

P prompts, K terms of a quantity, D resamples, Q quantities.
"""

from collections.abc import Mapping, Sequence
import dataclasses
import statistics

import numpy as np

from lift_jax.errors import UserError
from lift_jax.evaluation import bootstrap as bootstrap_lib
from lift_jax.evaluation.bootstrap import BootstrapConfig, Estimate
from lift_jax.runtime.progress import tracked

_POWER = 0.8
# Most elements of one array of signs.
_CHUNK = 20_000_000


@dataclasses.dataclass(frozen=True)
class StatisticsConfig:
  """How differences are tested.

  Attributes:
    bootstrap: of the intervals.
    permutations: random ones of each test.
    level: of the marks: the probability of any wrong mark.
  """

  bootstrap: BootstrapConfig
  permutations: int
  level: float

  def __post_init__(self):
    if self.permutations < 1:
      raise UserError('statistics.permutations must be above 0')
    if not 0 < self.level < 1:
      raise UserError(
        f'statistics.level is {self.level:g}; it must be between 0 and 1'
      )


@dataclasses.dataclass(frozen=True)
class Quantity:
  """A mean over clips, or a weighted sum of such means.

    value = constant + sum_k coefficient_k sum_pk / count_pk, each over p

  Attributes:
    coefficient_k: of each mean.
    sum_pk: sum over the clips of each prompt.
    count_pk: how many these are; 0 for prompts that are not in the mean.
    constant: added to the sum.
  """

  coefficient_k: np.ndarray
  sum_pk: np.ndarray
  count_pk: np.ndarray
  constant: float = 0.0

  def values(self, weights_dp: np.ndarray) -> np.ndarray:
    """[D], for prompts that count as often as `weights_dp` says."""
    means_dk = bootstrap_lib.ratio(
      weights_dp @ self.sum_pk, weights_dp @ self.count_pk
    )
    return self.constant + means_dk @ self.coefficient_k

  def influence(self) -> np.ndarray:
    """How much each prompt moves the value, [P]; the sum is 0."""
    total_k = self.count_pk.sum(axis=0)
    mean_k = self.sum_pk.sum(axis=0) / total_k
    return (self.sum_pk - mean_k * self.count_pk) / total_k @ self.coefficient_k

  def contributions(self) -> np.ndarray:
    """What each prompt adds to the value, [P], without the constant."""
    return self.sum_pk / self.count_pk.sum(axis=0) @ self.coefficient_k

  def minus(self, other: 'Quantity') -> 'Quantity':
    """The difference of two quantities of the same clips."""
    return Quantity(
      self.coefficient_k,
      self.sum_pk - other.sum_pk,
      self.count_pk,
      self.constant - other.constant,
    )


def mean_of(
  values: Mapping[tuple[str, int], float], prompts: Mapping[str, int]
) -> Quantity:
  """The mean of values by (prompt, index).

  Args:
    values: at least one.
    prompts: position of each prompt, in [0, P).
  """
  columns_n2 = np.column_stack([list(values.values()), np.ones(len(values))])
  prompt_n = np.array([prompts[name] for name, _ in values])
  sums_p2 = bootstrap_lib.per_video(columns_n2, prompt_n, len(prompts))
  return Quantity(np.ones(1), sums_p2[:, :1], sums_p2[:, 1:])


@dataclasses.dataclass(frozen=True)
class PairedDifference:
  """A quantity of two models.

  Attributes:
    base: of the first model.
    other: of the second.
    difference: other minus base.
    p: of the permutation test.
    is_marked: whether the difference is significant after Holm's correction.
    detectable: least difference that would probably have been marked without
      correction; None where the spread of the prompts does not tell: there is
      one, or all differ by the same.
    num_prompts: of the quantity.
  """

  base: Estimate
  other: Estimate
  difference: Estimate
  p: float
  is_marked: bool
  detectable: float | None
  num_prompts: int


def compare(
  quantities: Mapping[str, tuple[Quantity, Quantity]],
  config: StatisticsConfig,
) -> dict[str, PairedDifference]:
  """Compares quantities of a base model and of another, by name.

  Args:
    quantities: (base, other) of each, over the same P prompts and clips.
    config: how.
  """
  differences = {
    name: other.minus(base) for name, (base, other) in quantities.items()
  }
  (num_prompts,) = {len(one.count_pk) for one in differences.values()}

  def metrics(weights_dp: np.ndarray) -> dict[str, np.ndarray]:
    return {
      f'{name}/{which}': quantity.values(weights_dp)
      for name, pair in quantities.items()
      for which, quantity in zip(
        ('base', 'other', 'difference'), (*pair, differences[name]), strict=True
      )
    }

  width = 3 * sum(len(one.coefficient_k) for one in differences.values())
  estimates = bootstrap_lib.estimates(
    metrics, num_prompts, width, config.bootstrap
  )
  p_values = permutation_test(list(differences.values()), config)
  marks = holm(p_values, config.level)
  return {
    name: PairedDifference(
      estimates[f'{name}/base'],
      estimates[f'{name}/other'],
      estimates[f'{name}/difference'],
      float(p_values[number]),
      bool(marks[number]),
      detectable_difference(differences[name], config.level),
      _num_prompts(differences[name]),
    )
    for number, name in enumerate(differences)
  }


def _num_prompts(quantity: Quantity) -> int:
  return int((quantity.count_pk > 0).any(axis=1).sum())


def permutation_test(
  differences: Sequence[Quantity], config: StatisticsConfig
) -> np.ndarray:
  """Two-sided p-values, [Q], of differences from 0.

  All quantities see the same random signs of prompts. The unpermuted signs
  count as one of the permutations, so that no p-value is 0.
  """
  parts_pq = np.stack([one.contributions() for one in differences], axis=1)
  # Equal sums in another order may differ in the last digits.
  limit_q = np.abs(parts_pq.sum(axis=0)) * (1 - 1e-9)
  rng = np.random.default_rng(config.bootstrap.seed)
  step = max(1, _CHUNK // len(parts_pq))
  extreme_q = np.ones(len(differences))
  for first in tracked(
    range(0, config.permutations, step), 'permutation group'
  ):
    num = min(step, config.permutations - first)
    signs_dp = rng.integers(2, size=(num, len(parts_pq)), dtype=np.int8)
    sums_dq = (2.0 * signs_dp - 1) @ parts_pq
    extreme_q += (np.abs(sums_dq) >= limit_q).sum(axis=0)
  return extreme_q / (config.permutations + 1)


def holm(p_values: np.ndarray, level: float) -> np.ndarray:
  """Which of Q hypotheses are rejected, bool [Q]."""
  order = np.argsort(p_values, kind='stable')
  limits = level / np.arange(len(p_values), 0, -1)
  is_below = p_values[order] <= limits
  # All before the first that is not.
  is_rejected = np.logical_and.accumulate(is_below)
  marks = np.zeros(len(p_values), bool)
  marks[order] = is_rejected
  return marks


def detectable_difference(difference: Quantity, level: float) -> float | None:
  """Least true difference that is found with a probability of 80%."""
  error = standard_error(difference)
  if not error:
    return None
  normal = statistics.NormalDist()
  factor = normal.inv_cdf(1 - level / 2) + normal.inv_cdf(_POWER)
  return factor * error


def standard_error(quantity: Quantity) -> float | None:
  """Of the value, by the spread over prompts; None for one prompt."""
  num = _num_prompts(quantity)
  if num < 2:
    return None
  variance = np.square(quantity.influence()).sum() * num / (num - 1)
  return float(np.sqrt(variance))


@dataclasses.dataclass(frozen=True)
class WinRate:
  """How often the second model's clip is the better one of a pair.

  Attributes:
    wins: pairs that it wins.
    ties: pairs where neither does.
    losses: pairs that it loses.
    with_ties: (wins + ties / 2) / pairs.
    without_ties: wins / (wins + losses).
  """

  wins: int
  ties: int
  losses: int
  with_ties: Estimate
  without_ties: Estimate


def win_rate(
  outcomes: Sequence[tuple[str, int]], config: BootstrapConfig
) -> WinRate:
  """The win rate of pairs, with intervals by bootstrap over prompts.

  Args:
    outcomes: (prompt, 1 for a win, 0 for a tie, -1 for a loss) of each pair.
    config: of the intervals.
  """
  prompts: dict[str, int] = {}
  for name, _ in outcomes:
    prompts.setdefault(name, len(prompts))
  counts_p3 = np.zeros((len(prompts), 3))  # losses, ties, wins
  for name, outcome in outcomes:
    counts_p3[prompts[name], outcome + 1] += 1

  def metrics(weights_dp: np.ndarray) -> dict[str, np.ndarray]:
    losses_d, ties_d, wins_d = (weights_dp @ counts_p3).T
    return {
      'with_ties': (wins_d + ties_d / 2) / (losses_d + ties_d + wins_d),
      'without_ties': bootstrap_lib.ratio(wins_d, wins_d + losses_d),
    }

  estimates = bootstrap_lib.estimates(metrics, len(prompts), 3, config)
  losses, ties, wins = counts_p3.sum(axis=0).astype(int).tolist()
  return WinRate(wins, ties, losses, **estimates)
