"""How a shape goes: the way that it takes, and what disturbs it.

Shape suffixes: T frames, S steps between them; the last axis of 2 is (y, x).
Places and steps are in sides of the image, the shorter ones.
"""

import numpy as np

from lift_jax.toyworld import flaws, scenes

# A step of less than this share of the usual length is none; the error of a
# place in noise makes a fifth of the usual length of one that is none.
_STILL_SHARE = 0.42
# A step that differs so much from the others, in sides, stands out; three times
# the error of a place in noise, and less than the slowest step has.
_STEP_TOLERANCE = 0.75 / 32
# Half of the 45 degrees between directions.
_SECTOR = 22.5
# A clip that moves less from end to end, in sides, goes nowhere.
_MIN_TRAVEL = 3.0 / 32


def measure_motion(
  path_t2: np.ndarray,
) -> tuple[dict[str, float], np.ndarray]:
  """How strong each flaw of the motion of a path [T, 2] is.

  Returns:
    Strengths by the names in `flaws.MOTION_KINDS`, in the units of
    `flaws.STRENGTHS`; and the step [2] without what disturbs it.
  """
  steps_s2 = np.diff(path_t2, axis=0)
  num_steps = len(steps_s2)
  measures = dict.fromkeys(flaws.MOTION_KINDS, 0.0)
  length_s = np.linalg.norm(steps_s2, axis=1)
  if goes_nowhere(path_t2):
    return measures | {'freeze': 1.0}, np.zeros(2)
  # Halts in one stretch, all other steps alike. Before anything else, as the
  # mean of steps and halts is not far from either.
  still_s = length_s < _STILL_SHARE * np.quantile(length_s, 0.75)
  moving_s2 = steps_s2[~still_s]
  if _is_one_stretch(still_s) and _is_even(moving_s2):
    return measures | {'freeze': float(still_s.mean())}, moving_s2.mean(0)
  if _is_even(steps_s2):
    return measures, steps_s2.mean(0)
  # One step that stands out.
  rest = [np.delete(steps_s2, k, axis=0) for k in range(num_steps)]
  jump = int(np.argmin([_unevenness(steps) for steps in rest]))
  way_2 = rest[jump].mean(0)
  speed = np.linalg.norm(way_2)
  if _is_even(rest[jump]) and speed * num_steps > _MIN_TRAVEL:
    more_2 = steps_s2[jump] - way_2
    ahead = more_2 @ way_2 / speed
    aside = np.linalg.norm(more_2 - ahead * way_2 / speed)
    if ahead > aside:
      return measures | {'drop': float(ahead / speed / num_steps)}, way_2
    return measures | {'teleport': float(np.linalg.norm(more_2))}, way_2
  way_2, aside_t2 = _line(path_t2)
  jitter = np.sqrt(np.mean(np.sum(aside_t2**2, 1)))
  return measures | {'jitter': float(jitter)}, way_2


def _line(path_t2: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
  """The step [2] of the best even motion, and distances from it [T, 2]."""
  time_t = np.arange(len(path_t2)) - (len(path_t2) - 1) / 2
  way_2 = time_t @ path_t2 / (time_t @ time_t)
  return way_2, path_t2 - path_t2.mean(0) - time_t[:, None] * way_2


def goes_nowhere(path_t2: np.ndarray) -> bool:
  """Whether there is neither a way from end to end nor any single step."""
  travel = np.linalg.norm(_line(path_t2)[0]) * (len(path_t2) - 1)
  longest = np.linalg.norm(np.diff(path_t2, axis=0), axis=1).max()
  return bool(travel < _MIN_TRAVEL and longest < _STEP_TOLERANCE)


def _unevenness(steps_s2: np.ndarray) -> float:
  """The greatest distance of a step from the mean one."""
  return float(np.linalg.norm(steps_s2 - steps_s2.mean(0), axis=1).max())


def _is_one_stretch(flags_s: np.ndarray) -> bool:
  """Whether some are set, and all of these side by side."""
  places = np.flatnonzero(flags_s)
  return len(places) > 0 and places[-1] - places[0] + 1 == len(places)


def _is_even(steps_s2: np.ndarray) -> bool:
  return _unevenness(steps_s2) < _STEP_TOLERANCE


def direction(way_2: np.ndarray) -> str | None:
  """The direction of the grammar that a step [2] goes; None if it is none."""
  if not np.linalg.norm(way_2) > 0:
    return None
  angle = np.rad2deg(np.arctan2(way_2[0], way_2[1]))
  for name, degrees in scenes.MOTIONS.items():
    if abs((angle - degrees + 180) % 360 - 180) <= _SECTOR:
      return name
  return None
