"""Confidence intervals by the cluster bootstrap.

Ratings of one video are correlated, so videos are resampled, not ratings: each
resample draws as many videos as there are, with replacement, and each rating
counts as often as its video was drawn (A. C. Davison and D. V. Hinkley,
Bootstrap Methods and their Application, 1997, section 3.8). The interval is
bounded by quantiles over the resamples.

D resamples, V videos, K columns.
"""

from collections.abc import Callable, Iterator, Mapping
import dataclasses

import numpy as np

from lift_jax.runtime.progress import tracked

# Most elements of one array of a metric, so that a few stay in the cache of a
# core.
_CHUNK = 400_000


@dataclasses.dataclass(frozen=True)
class BootstrapConfig:
  """How intervals are computed.

  Attributes:
    draws: number of resamples.
    coverage: of the interval, such as 0.95.
    seed: of the resampling.
  """

  draws: int
  coverage: float
  seed: int


@dataclasses.dataclass(frozen=True)
class Estimate:
  """A value with its confidence interval.

  Attributes:
    value: from the original videos; None where it is undefined, such as the
      correlation of constant values.
    low: lower bound; None where it is undefined.
    high: upper bound; None where it is undefined.
  """

  value: float | None
  low: float | None
  high: float | None


# From the weight of each video [D, V] to values [D] by name.
Metrics = Callable[[np.ndarray], Mapping[str, np.ndarray]]


def estimates(
  metrics: Metrics, num_videos: int, width: int, config: BootstrapConfig
) -> dict[str, Estimate]:
  """Computes each metric with its interval.

  Args:
    metrics: what to compute; all metrics of one call see the same resamples.
    num_videos: V.
    width: most elements per resample in an array that `metrics` makes.
    config: number of resamples, coverage and seed.
  """
  values = metrics(np.ones((1, num_videos)))
  chunks = [
    metrics(weights_dv)
    for weights_dv in _weights(num_videos, max(width, num_videos), config)
  ]
  return {
    name: _estimate(
      float(value[0]), np.concatenate([chunk[name] for chunk in chunks]), config
    )
    for name, value in values.items()
  }


def _weights(
  num_videos: int, width: int, config: BootstrapConfig
) -> Iterator[np.ndarray]:
  """Yields how often each video is drawn, [D, V], a chunk of D at a time.

  A resample depends only on the seed and its index, not on the chunk size, so
  that every metric of the same videos sees the same resamples.
  """
  step = max(1, _CHUNK // width)
  rng = np.random.default_rng(config.seed)
  for first in tracked(range(0, config.draws, step), 'resample group'):
    num = min(step, config.draws - first)
    drawn_dv = rng.integers(num_videos, size=(num, num_videos))
    drawn_dv += num_videos * np.arange(num)[:, None]
    counts = np.bincount(drawn_dv.ravel(), minlength=num * num_videos)
    yield counts.reshape(num, num_videos).astype(float)


def _estimate(
  value: float, values_d: np.ndarray, config: BootstrapConfig
) -> Estimate:
  if not np.isfinite(value):
    return Estimate(None, None, None)
  # A metric may be undefined in a few resamples, such as one without a Normal.
  values_d = values_d[np.isfinite(values_d)]
  if not values_d.size:
    return Estimate(value, None, None)
  outside = (1 - config.coverage) / 2
  low, high = np.quantile(values_d, (outside, 1 - outside))
  return Estimate(value, float(low), float(high))


def per_video(
  values: np.ndarray, video_n: np.ndarray, num_videos: int
) -> np.ndarray:
  """Sums the ratings of each video: [N, K] to [V, K].

  A metric that is a function of sums over ratings can be computed for every
  resample from `weights_dv @ per_video(...)`.
  """
  sums_vk = np.zeros((num_videos, values.shape[1]))
  np.add.at(sums_vk, video_n, values)
  return sums_vk


def ratio(numerator: np.ndarray, denominator: np.ndarray) -> np.ndarray:
  """The quotient, NaN where the denominator is 0."""
  numerator, denominator = np.broadcast_arrays(numerator, denominator)
  return np.divide(
    numerator,
    denominator,
    out=np.full(numerator.shape, np.nan),
    where=denominator != 0,
  )
