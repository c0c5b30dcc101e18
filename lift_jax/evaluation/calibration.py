"""Calibration of a critic: whether its confidence matches its accuracy.

With p the probabilities of the K classes, the critic's confidence is the
largest of them, c = max_k p_k, and it is right if that class is the human
label.

  ECE    = sum_b (n_b / n) |accuracy_b - mean confidence_b|, over bins of equal
           width in c (C. Guo et al. 2017, arXiv 1706.04599, equation 3)
  NLL    = mean of -log p_y, y the human label
  Brier  = mean of sum_k (p_k - [k = y])^2, between 0 and 2

Temperature scaling (section 4.2 there) divides the logits by T > 0, which gives
p_k^(1/T), renormalised. It keeps the order of the classes and changes only the
confidence. T maximises the likelihood of ratings other than those that the
critic is evaluated on.

D resamples, V videos, N ratings, K classes, B bins.
"""

import dataclasses

import numpy as np

from lift_jax.evaluation import bootstrap
from lift_jax.evaluation.bootstrap import BootstrapConfig, Estimate, ratio
from lift_jax.evaluation.comparison import Table

# Probabilities are clipped from below before taking logarithms, at the
# resolution near 1 of float32, in which critics compute.
_FLOOR = float(np.finfo(np.float32).eps)

# Range of the search: if all answers are right, or all wrong, the likelihood
# has no maximum at a finite temperature.
TEMPERATURES = (0.05, 20.0)


@dataclasses.dataclass(frozen=True)
class Bin:
  """The ratings whose confidence is in (low, high].

  Attributes:
    low: lower edge.
    high: upper edge.
    count: number of ratings.
    confidence: their mean; None in an empty bin.
    accuracy: fraction that is right; None in an empty bin.
    accuracy_low: lower bound of the 95 % Wilson interval, which assumes
      independent ratings; None in an empty bin.
    accuracy_high: upper bound, likewise.
  """

  low: float
  high: float
  count: int
  confidence: float | None
  accuracy: float | None
  accuracy_low: float | None
  accuracy_high: float | None


def apply_temperature(
  probabilities_nk: np.ndarray, temperature_n
) -> np.ndarray:
  """Divides the logits by the temperature; returns probabilities [N, K]."""
  temperature_n1 = np.reshape(temperature_n, (-1, 1))
  logits_nk = _log(probabilities_nk) / temperature_n1
  logits_nk = logits_nk - logits_nk.max(axis=1, keepdims=True)
  weights_nk = np.exp(logits_nk)
  return weights_nk / weights_nk.sum(axis=1, keepdims=True)


def fit_temperature(probabilities_nk: np.ndarray, human_n: np.ndarray) -> float:
  """The maximum-likelihood temperature, within `TEMPERATURES`.

  With b = 1 / T and l_k = log p_k, the NLL is the mean of log sum_k exp(b l_k)
  - b l_y: convex in b. Its derivative, the mean of (expected l under the scaled
  probabilities - l_y), increases with b; its zero is found by bisection.
  """
  logits_nk = _log(probabilities_nk)
  human_logit_n = np.take_along_axis(logits_nk, human_n[:, None], axis=1)[:, 0]

  def slope(inverse: float) -> float:
    scaled_nk = apply_temperature(probabilities_nk, 1 / inverse)
    return float(np.mean((scaled_nk * logits_nk).sum(axis=1) - human_logit_n))

  low, high = 1 / TEMPERATURES[1], 1 / TEMPERATURES[0]
  if slope(high) - slope(low) < 1e-9:
    return 1.0  # flat: all probabilities are equal, scaling changes nothing
  if slope(low) >= 0:
    return TEMPERATURES[1]
  if slope(high) <= 0:
    return TEMPERATURES[0]
  for _ in range(100):
    middle = (low * high) ** 0.5
    low, high = (middle, high) if slope(middle) < 0 else (low, middle)
  return 1 / middle


def reliability(
  probabilities_nk: np.ndarray, human_n: np.ndarray, num_bins: int
) -> list[Bin]:
  """Confidence and accuracy per bin."""
  bin_n, confidence_n, is_right_n = _binned(probabilities_nk, human_n, num_bins)
  bins = []
  for index in range(num_bins):
    is_in_n = bin_n == index
    count = int(is_in_n.sum())
    numbers = (None,) * 4
    if count:
      share = float(is_right_n[is_in_n].mean())
      mean = float(confidence_n[is_in_n].mean())
      numbers = (mean, share, *_wilson(share, count))
    bins.append(Bin(index / num_bins, (index + 1) / num_bins, count, *numbers))
  return bins


def calibration(
  table: Table,
  probabilities_nk: np.ndarray,
  num_bins: int,
  config: BootstrapConfig,
) -> dict[str, Estimate]:
  """ECE, NLL, Brier score, and mean confidence minus accuracy.

  Args:
    table: ratings with an answer of the critic.
    probabilities_nk: the critic's, possibly temperature-scaled.
    num_bins: B.
    config: of the intervals.
  """
  human_n = table.human_n
  bin_n, confidence_n, is_right_n = _binned(probabilities_nk, human_n, num_bins)
  excess_n = confidence_n - is_right_n
  columns_nc = np.column_stack(
    [
      np.ones(len(human_n)),
      nll(probabilities_nk, human_n),
      brier(probabilities_nk, human_n),
      excess_n,
      np.eye(num_bins)[bin_n] * excess_n[:, None],
    ]
  )
  sums_vc = bootstrap.per_video(columns_nc, table.video_n, table.num_videos)

  def metrics(weights_dv: np.ndarray) -> dict[str, np.ndarray]:
    sums_dc = weights_dv @ sums_vc
    count_d = sums_dc[:, 0]
    return {
      'ece': ratio(np.abs(sums_dc[:, 4:]).sum(axis=1), count_d),
      'nll': ratio(sums_dc[:, 1], count_d),
      'brier': ratio(sums_dc[:, 2], count_d),
      'overconfidence': ratio(sums_dc[:, 3], count_d),
    }

  return bootstrap.estimates(
    metrics, table.num_videos, sums_vc.shape[1], config
  )


def base_rates(table: Table) -> np.ndarray:
  """Predicts the human label frequencies for every clip, [N, K].

  This is the best constant prediction; a critic should beat it.
  """
  share_k = np.bincount(table.human_n, minlength=table.num_classes) / len(
    table.human_n
  )
  return np.tile(share_k, (len(table.human_n), 1))


def nll(probabilities_nk: np.ndarray, human_n: np.ndarray) -> np.ndarray:
  """-log of the probability given to the human label, [N]."""
  return -np.take_along_axis(_log(probabilities_nk), human_n[:, None], axis=1)[
    :, 0
  ]


def brier(probabilities_nk: np.ndarray, human_n: np.ndarray) -> np.ndarray:
  """Squared distance to the one-hot human label, [N]."""
  one_hot_nk = np.eye(probabilities_nk.shape[1])[human_n]
  return ((probabilities_nk - one_hot_nk) ** 2).sum(axis=1)


def _log(probabilities_nk: np.ndarray) -> np.ndarray:
  return np.log(np.maximum(probabilities_nk, _FLOOR))


def _binned(
  probabilities_nk: np.ndarray, human_n: np.ndarray, num_bins: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
  """Bin index, confidence and whether right, each [N]."""
  confidence_n = probabilities_nk.max(axis=1)
  is_right_n = (probabilities_nk.argmax(axis=1) == human_n).astype(float)
  # A value on an edge belongs to the bin below it.
  bin_n = np.ceil(confidence_n * num_bins).astype(int) - 1
  return np.clip(bin_n, 0, num_bins - 1), confidence_n, is_right_n


def _wilson(share: float, count: int) -> tuple[float, float]:
  """The 95 % interval of E. B. Wilson (1927) for a share of `count` trials."""
  z = 1.959963984540054  # 97.5 % quantile of the normal distribution
  centre = (share + z * z / (2 * count)) / (1 + z * z / count)
  spread = (
    z
    * (share * (1 - share) / count + z * z / (4 * count**2)) ** 0.5
    / (1 + z * z / count)
  )
  return max(0.0, centre - spread), min(1.0, centre + spread)
