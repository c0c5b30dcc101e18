"""Times of steps by bucket."""

import collections
from collections.abc import Callable
import statistics
import time

_RECENT = 100  # steps of each bucket whose median is taken


class StepTimes:
  """Measures the time from the end of a step to that of the next one.

  Args:
    compile_seconds: spent on compilation so far; a step that something is
      compiled in is left out.
  """

  def __init__(self, compile_seconds: Callable[[], float]):
    self._compile_seconds = compile_seconds
    self._compiling = compile_seconds()
    self._last = time.monotonic()
    self._seconds = collections.defaultdict(
      lambda: collections.deque(maxlen=_RECENT)
    )

  def exclude(self, seconds: float) -> None:
    """Does not count time that has just passed."""
    self._last += seconds

  def add(self, bucket: str) -> None:
    """To be called when a step on a bucket has ended."""
    now, compiling = time.monotonic(), self._compile_seconds()
    if compiling == self._compiling:
      self._seconds[bucket].append(now - self._last)
    self._last, self._compiling = now, compiling

  def medians(self) -> dict[str, float]:
    """Seconds of a step on each bucket, the median of recent ones."""
    return {
      bucket: statistics.median(seconds)
      for bucket, seconds in sorted(self._seconds.items())
    }

  def metrics(self) -> dict[str, float]:
    """The medians, and the largest over the smallest; {} for one bucket."""
    medians = self.medians()
    if len(medians) < 2:
      return {}
    named = {
      f'step_seconds/{bucket.replace(" ", "_")}': seconds
      for bucket, seconds in medians.items()
    }
    return named | {'step_seconds_spread': spread(medians)}

  def lines(self) -> list[str]:
    """The same for people."""
    medians = self.medians()
    if len(medians) < 2:
      return []
    return [
      *(
        f'a step on {bucket} took {seconds:.3g} s'
        for bucket, seconds in medians.items()
      ),
      f'the slowest bucket took {spread(medians):.2f} x the time of the '
      'fastest',
    ]


def spread(medians: dict[str, float]) -> float:
  """The largest over the smallest."""
  return max(medians.values()) / min(medians.values())
