"""How far a number would move with other videos of the same kind.

Ratings of one video hang together, so videos are drawn, not ratings: each draw
takes as many videos as there are, with replacement, and each rating of a video
counts as often as its video was drawn (the cluster bootstrap; A. C. Davison and
D. V. Hinkley, Bootstrap Methods and their Application, 1997, section 3.8). The
interval runs between quantiles of the draws.

D draws, V videos, K columns.
"""

from collections.abc import Callable, Iterator, Mapping
import dataclasses

import numpy as np

# Numbers held at a time by one array of a metric.
_CHUNK = 4_000_000


@dataclasses.dataclass(frozen=True)
class BootstrapConfig:
  """Draws of an interval.

  Attributes:
    draws: how many.
    coverage: of the interval, such as 0.95.
    seed: of the draws.
  """

  draws: int
  coverage: float
  seed: int


@dataclasses.dataclass(frozen=True)
class Estimate:
  """A number and its interval.

  Attributes:
    value: from the videos as they are; None where it is not defined, such as a
      correlation of things that are all equal.
    low: of the interval; None where it is not defined.
    high: likewise.
  """

  value: float | None
  low: float | None
  high: float | None


# From how often each video counts [D, V] to numbers [D] by name.
Metrics = Callable[[np.ndarray], Mapping[str, np.ndarray]]


def estimates(
  metrics: Metrics, num_videos: int, width: int, config: BootstrapConfig
) -> dict[str, Estimate]:
  """Each number with its interval.

  Args:
    metrics: what to compute; every number of one call sees the same draws.
    num_videos: V.
    width: the longest row that `metrics` makes for a draw.
    config: of the draws.
  """
  values = metrics(np.ones((1, num_videos)))
  draws = [
    metrics(weights_dv)
    for weights_dv in _weights(num_videos, max(width, num_videos), config)
  ]
  return {
    name: _estimate(
      float(value[0]), np.concatenate([draw[name] for draw in draws]), config
    )
    for name, value in values.items()
  }


def _weights(
  num_videos: int, width: int, config: BootstrapConfig
) -> Iterator[np.ndarray]:
  """How often each video is drawn, [D, V], for a few draws at a time.

  A draw depends on the seed and its number alone, not on how many come at a
  time, so that every metric of the same videos sees the same draws.
  """
  step = max(1, _CHUNK // width)
  rng = np.random.default_rng(config.seed)
  for first in range(0, config.draws, step):
    num = min(step, config.draws - first)
    drawn_dv = rng.integers(num_videos, size=(num, num_videos))
    drawn_dv += num_videos * np.arange(num)[:, None]
    counts = np.bincount(drawn_dv.ravel(), minlength=num * num_videos)
    yield counts.reshape(num, num_videos).astype(float)


def _estimate(
  value: float, draws_d: np.ndarray, config: BootstrapConfig
) -> Estimate:
  if not np.isfinite(value):
    return Estimate(None, None, None)
  # Few draws leave a number undefined, such as one without any Normal.
  draws_d = draws_d[np.isfinite(draws_d)]
  if not draws_d.size:
    return Estimate(value, None, None)
  outside = (1 - config.coverage) / 2
  low, high = np.quantile(draws_d, (outside, 1 - outside))
  return Estimate(value, float(low), float(high))


def per_video(
  values: np.ndarray, video_n: np.ndarray, num_videos: int
) -> np.ndarray:
  """Sums over the ratings of each video: [V, K] from [N, K].

  Whatever is a function of sums over ratings follows, in every draw, from
  `weights_dv @ per_video(...)`.
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
