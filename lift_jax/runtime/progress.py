"""Progress of long work: a bar on a terminal, plain log lines elsewhere."""

import logging
import sys
import time
from typing import Self

import tqdm

_SECONDS_BETWEEN_LINES = 30.0


class Progress:
  """Counts units of work and shows their rate and the time left.

  Both are of the work since the first update: before it programs are compiled
  and inputs read, which would promise months. Use it as a context manager.

  Args:
    total: number of units.
    unit: their name, such as 'video'.
    done: number of units that an earlier run has done.
    logger: for the plain lines.
    enabled: False shows nothing; only the primary host should report.
  """

  def __init__(
    self,
    total: int,
    unit: str,
    *,
    done: int = 0,
    logger: logging.Logger,
    enabled: bool = True,
  ):
    self._total, self._unit, self._logger = total, unit, logger
    self._done = done
    # Units and time at the end of the first update.
    self._first: tuple[int, float] | None = None
    self._last_line = time.monotonic()
    self._lines = enabled and not sys.stderr.isatty()
    self._bar = (
      tqdm.tqdm(total=total, initial=done, unit=unit, smoothing=0)
      if enabled and sys.stderr.isatty()
      else None
    )

  def update(self, units: int, note: str = '') -> None:
    """Counts `units` more; `note` is shown after the rate."""
    self._done += units
    now = time.monotonic()
    is_first = self._first is None
    if is_first:
      self._first = self._done, now
    if self._bar is not None:
      self._bar.set_postfix_str(note, refresh=False)
      if is_first:
        self._bar.initial = self._done
        self._bar.unpause()  # its time starts now
      self._bar.update(units)
      if is_first:
        self._bar.refresh()
    elif self._lines:
      is_last = self._done >= self._total
      if is_last or now - self._last_line > _SECONDS_BETWEEN_LINES:
        self._last_line = now
        self._logger.info(
          '%s', ', '.join(filter(None, [self._line(now), note]))
        )

  def _line(self, now: float) -> str:
    first, start = self._first or (0, now)
    counted = f'{self._done}/{self._total} {self._unit}s'
    if self._done == first:
      return counted
    rate = (self._done - first) / max(now - start, 1e-9)
    left = (self._total - self._done) / rate
    return f'{counted}, {rate:.3g} {self._unit}s/s, {left:.0f} s left'

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *exception) -> None:
    if self._bar is not None:
      self._bar.close()
