"""Step caches: which steps of a sampler run the blocks of the transformer.

With x the tokens before the blocks, the residual of step i is

  R_i = blocks(x_i) - x_i

In a skipped step the blocks are replaced by x_i + R_j, where j is the last
computed step. Which steps are skipped follows from measured curves alone, so
that it is known before the run, and the same for all clips.

MagCache (arXiv 2506.09045) measures g_i = mean |R_i| / |R_(i-1)| over tokens.
After n skipped steps the length of R_j is off by a factor of the product of
their g, and the next step may be skipped while

  sum over skipped steps of |1 - product| <= threshold   and   n <= max_skips

TeaCache (arXiv 2411.19108) estimates how much the network's output changes by a
polynomial of how much the time embedding e does:

  d_i = mean |e_i - e_(i-1)| / mean |e_(i-1)|

A step may be skipped while the sum of polynomial(d) since the last computed
step is below the threshold; the first and the last step are computed.

C curves  N steps
"""

from collections.abc import Collection, Sequence

import numpy as np

DEGREE = 4  # of TeaCache's polynomial, as published


def magcache_steps(
  ratios_cn: np.ndarray,
  threshold: float,
  max_skips: int,
  retention: float,
  starts: Collection[int] = (0,),
) -> np.ndarray:
  """Which steps are computed, bool [N].

  Both guidance branches are computed in one pass. So a step is skipped if the
  curve of each allows it.

  Args:
    ratios_cn: g of every step, by curve.
    threshold: of the error.
    max_skips: steps that may be skipped in a row.
    retention: share of the steps, at the start, that are computed.
    starts: further steps that are computed, as there is no residual; 0 is one.
  """
  num_curves, num_steps = ratios_cn.shape
  first = int(num_steps * retention + 0.5)
  is_computed = np.ones(num_steps, bool)
  product_c, error_c, count = np.ones(num_curves), np.zeros(num_curves), 0
  for i in range(first, num_steps):
    product_c = product_c * ratios_cn[:, i]
    error_c = error_c + np.abs(1 - product_c)
    count += 1
    is_computed[i] = (
      i in starts or count > max_skips or bool(np.any(error_c > threshold))
    )
    if is_computed[i]:
      product_c, error_c, count = np.ones(num_curves), np.zeros(num_curves), 0
  return is_computed


def teacache_steps(
  changes_n: np.ndarray,
  coefficients: np.ndarray | Sequence[float],
  threshold: float,
  starts: Collection[int] = (0,),
) -> np.ndarray:
  """Which steps are computed, bool [N].

  Args:
    changes_n: d of every step.
    coefficients: of the polynomial, highest power first. It may be negative,
      as the published ones are close to 0, and then lowers the sum.
    threshold: of the sum.
    starts: see `magcache_steps`.
  """
  estimates_n = np.polyval(coefficients, changes_n)
  is_computed = np.ones(len(changes_n), bool)
  total = 0.0
  for i in range(len(changes_n) - 1):
    total += estimates_n[i]
    is_computed[i] = i in starts or total >= threshold
    if is_computed[i]:
      total = 0.0
  return is_computed


def fit_polynomial(x_n: np.ndarray, y_n: np.ndarray) -> np.ndarray:
  """Coefficients of the least-squares polynomial, highest power first.

  Of several, as with fewer points than coefficients, the smallest in units in
  which all columns have length 1.
  """
  powers = np.vander(np.asarray(x_n, np.float64), DEGREE + 1)
  lengths = np.linalg.norm(powers, axis=0)
  lengths[lengths == 0] = 1
  solution, *_ = np.linalg.lstsq(powers / lengths, y_n)
  return solution / lengths
