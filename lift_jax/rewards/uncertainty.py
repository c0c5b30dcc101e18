"""How uncertain the reward of a clip is, for one critic and for several.

A critic's label of a clip in one dimension is a random variable, and so is its
reward r. Both numbers are standard deviations in units of the reward, and
means over the dimensions:

  uncertainty   of r, where the distribution over labels is the mean of the
                critics' distributions
  disagreement  of the critics' soft rewards E[r], over the critics

For each dimension the square of the first is that of the second plus the mean
variance of r for a single critic (the law of total variance): several critics
are uncertain because each of them is, or because they disagree.

Legend: C critics, D dimensions, L labels.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from lift_jax.data.rubric import Scale

# From dimension and label to a probability.
Distributions = Mapping[str, Mapping[str, float]]


def uncertainty(critics: Sequence[Distributions], scale: Scale) -> float:
  """Standard deviation of the reward under the critics' mean distribution."""
  mean_dl, reward_l = np.mean(_array(critics, scale), axis=0), _rewards(scale)
  second_d = mean_dl @ np.square(reward_l)
  # Rounding may make the difference slightly negative.
  variance_d = np.maximum(second_d - np.square(mean_dl @ reward_l), 0)
  return _mean(np.sqrt(variance_d))


def disagreement(critics: Sequence[Distributions], scale: Scale) -> float:
  """Standard deviation of the soft reward over critics; 0 for one critic."""
  soft_cd = _array(critics, scale) @ _rewards(scale)
  return _mean(soft_cd.std(axis=0))


def _array(critics: Sequence[Distributions], scale: Scale) -> np.ndarray:
  """[C, D, L], in the dimensions that every critic answered.

  Probabilities are normalised again, as files have few digits.
  """
  names = [
    name for name in scale.dimensions if all(name in one for one in critics)
  ]
  p_cdl = np.array(
    [
      [[one[name][label] for label in scale.labels] for name in names]
      for one in critics
    ]
  ).reshape(len(critics), len(names), len(scale.labels))
  return p_cdl / p_cdl.sum(axis=-1, keepdims=True)


def _mean(values_d: np.ndarray) -> float:
  """The mean over dimensions; 0 if the critics have none in common."""
  return float(values_d.mean()) if values_d.size else 0.0


def _rewards(scale: Scale) -> np.ndarray:
  return np.array([scale.score(label) for label in scale.labels])
