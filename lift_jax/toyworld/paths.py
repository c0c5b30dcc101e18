"""Measures the motion of a shape and its flaws from the shape's path.

Shape suffixes: T frames, S steps between them; the last axis of 2 is (y, x).
Positions and steps are in shorter sides of the image.
"""

import numpy as np

from lift_jax.toyworld import flaws, scenes

# A step shorter than this share of the usual length is a halt; in noise, the
# error of positions makes a halt look like a fifth of the usual length.
_HALT_SHARE = 0.42
# A step is an outlier if it differs by more from the others, in sides: three
# times the error of positions in noise, and less than the slowest step.
_STEP_TOLERANCE = 0.75 / 32
# Half of the 45 degrees between directions.
_SECTOR = 22.5
# A shape that moves less from end to end, in sides, is stationary.
_MIN_TRAVEL = 3.0 / 32


def measure_motion(
  path_t2: np.ndarray,
) -> tuple[dict[str, float], np.ndarray]:
  """Strengths of the motion's flaws, from a path [T, 2].

  Returns:
    Strengths by the names in `flaws.MOTION_KINDS`, in the units of
    `flaws.STRENGTHS`; and the step [2] of the motion without flaws.
  """
  steps_s2 = np.diff(path_t2, axis=0)
  num_steps = len(steps_s2)
  measures = dict.fromkeys(flaws.MOTION_KINDS, 0.0)
  length_s = np.linalg.norm(steps_s2, axis=1)
  if is_stationary(path_t2):
    return measures | {'freeze': 1.0}, np.zeros(2)
  # Consecutive halts, with uniform steps otherwise. This comes first, as halts
  # and steps may both be within the tolerance of their mean.
  is_halt_s = length_s < _HALT_SHARE * np.quantile(length_s, 0.75)
  moving_s2 = steps_s2[~is_halt_s]
  if _are_consecutive(is_halt_s) and _are_uniform(moving_s2):
    return measures | {'freeze': float(is_halt_s.mean())}, moving_s2.mean(0)
  if _are_uniform(steps_s2):
    return measures, steps_s2.mean(0)
  # A single outlier among the steps.
  rest = [np.delete(steps_s2, k, axis=0) for k in range(num_steps)]
  jump = int(np.argmin([_max_deviation(steps) for steps in rest]))
  step_2 = rest[jump].mean(0)
  speed = np.linalg.norm(step_2)
  if _are_uniform(rest[jump]) and speed * num_steps > _MIN_TRAVEL:
    excess_2 = steps_s2[jump] - step_2
    ahead = excess_2 @ step_2 / speed
    sideways = np.linalg.norm(excess_2 - ahead * step_2 / speed)
    if ahead > sideways:
      return measures | {'drop': float(ahead / speed / num_steps)}, step_2
    return measures | {'teleport': float(np.linalg.norm(excess_2))}, step_2
  step_2, residual_t2 = _fit_line(path_t2)
  jitter = np.sqrt(np.mean(np.sum(residual_t2**2, 1)))
  return measures | {'jitter': float(jitter)}, step_2


def _fit_line(path_t2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """Least-squares uniform motion: its step [2], and the residuals [T, 2]."""
  time_t = np.arange(len(path_t2)) - (len(path_t2) - 1) / 2
  step_2 = time_t @ path_t2 / (time_t @ time_t)
  return step_2, path_t2 - path_t2.mean(0) - time_t[:, None] * step_2


def is_stationary(path_t2: np.ndarray) -> bool:
  """Whether neither the total travel nor any single step is significant."""
  travel = np.linalg.norm(_fit_line(path_t2)[0]) * (len(path_t2) - 1)
  longest = np.linalg.norm(np.diff(path_t2, axis=0), axis=1).max()
  return bool(travel < _MIN_TRAVEL and longest < _STEP_TOLERANCE)


def _max_deviation(steps_s2: np.ndarray) -> float:
  """The largest distance of a step from the mean step."""
  return float(np.linalg.norm(steps_s2 - steps_s2.mean(0), axis=1).max())


def _are_consecutive(flags_s: np.ndarray) -> bool:
  """Whether some flags are set, and all of them consecutive."""
  indices = np.flatnonzero(flags_s)
  return len(indices) > 0 and indices[-1] - indices[0] + 1 == len(indices)


def _are_uniform(steps_s2: np.ndarray) -> bool:
  return _max_deviation(steps_s2) < _STEP_TOLERANCE


def direction(step_2: np.ndarray) -> str | None:
  """The direction of a step [2] in words of the grammar; None for no step."""
  if not np.linalg.norm(step_2) > 0:
    return None
  angle = np.rad2deg(np.arctan2(step_2[0], step_2[1]))
  for name, degrees in scenes.MOTIONS.items():
    if abs((angle - degrees + 180) % 360 - 180) <= _SECTOR:
      return name
  return None
