"""Seconds of something that runs on a device."""

from collections.abc import Callable
import statistics
import time

# Enough for a median. Steps of a second are as many as there is time for; what
# takes as long as that, such as a video, is run once.
_MOST_RUNS = 10
_SECONDS = 15.0


def repeat(run: Callable[[], None], tiny: bool) -> list[float]:
  """Seconds of each run, as many as there is time for.

  The first one warms up and does not count, unless there is no time for
  another.

  Args:
    run: returns when the device is done.
    tiny: two runs will do, as they tell nothing but that it works.
  """
  most = 2 if tiny else _MOST_RUNS
  seconds = []
  while len(seconds) <= most and (
    not seconds or sum(seconds) + seconds[-1] < _SECONDS
  ):
    start = time.monotonic()
    run()
    seconds.append(time.monotonic() - start)
  return seconds[1:] or seconds


def median(seconds: list[float]) -> float:
  return statistics.median(seconds)
