"""Progress of long work: a bar on a terminal, plain log lines elsewhere."""

from collections.abc import Collection, Iterator
import logging
import sys
import time
from typing import Self, TypeVar

import tqdm

_SECONDS_BETWEEN_LINES = 30.0
# Seconds until something is shown of work that is usually quick. A bar comes
# early, as several such loops may follow each other, and is erased at the end.
_BRIEF_BAR = 0.2
_BRIEF_LINE = 2.0

T = TypeVar('T')


class Progress:
  """Counts units of work and shows their rate and the time left.

  Both are of the work since the first update, which should be the end of the
  first batch: before it programs are compiled and inputs read, which would
  promise months. Use it as a context manager.

  Args:
    total: number of units.
    unit: their name, such as 'video'.
    done: number of units that an earlier run has done.
    logger: for the plain lines.
    enabled: False shows nothing; only the primary host should report.
    is_brief: whether the work is usually quick: then nothing is shown at first,
      and nothing stays on a terminal.
  """

  def __init__(
    self,
    total: int,
    unit: str,
    *,
    done: int = 0,
    logger: logging.Logger,
    enabled: bool = True,
    is_brief: bool = False,
  ):
    self._total, self._unit, self._logger = total, unit, logger
    self._done = done
    # Units and time at the end of the first update.
    self._first: tuple[int, float] | None = None
    self._last_line = time.monotonic()
    is_terminal = sys.stderr.isatty()
    delay = (_BRIEF_BAR if is_terminal else _BRIEF_LINE) if is_brief else 0.0
    self._shown_from = self._last_line + delay
    self._lines = enabled and not is_terminal
    self._bar = (
      tqdm.tqdm(
        total=total,
        initial=done,
        unit=unit,
        smoothing=0,
        delay=delay,
        leave=not is_brief,
      )
      if enabled and is_terminal
      else None
    )

  def update(self, units: int, note: str = '') -> None:
    """Counts `units` more; `note` is shown after the rate."""
    now = time.monotonic()
    is_first = self._first is None
    if is_first:
      self._first = self._done + units, now
      if self._bar is not None:
        self._bar.initial = self._done + units
        self._bar.unpause()  # its time starts now
    self._count(units, note, now)
    if is_first and self._bar is not None and now >= self._shown_from:
      self._bar.refresh()

  def skip(self, units: int) -> None:
    """Counts `units` that take no work, so that the rate is without them."""
    if self._first is not None:
      done, start = self._first
      self._first = done + units, start
    if self._bar is not None:
      self._bar.initial += units
    self._count(units, '', time.monotonic())

  def _count(self, units: int, note: str, now: float) -> None:
    self._done += units
    if self._bar is not None:
      self._bar.set_postfix_str(note, refresh=False)
      self._bar.update(units)
    elif self._lines:
      is_last = self._done >= self._total
      is_due = is_last or now - self._last_line > _SECONDS_BETWEEN_LINES
      if is_due and now >= self._shown_from:
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


def tracked(items: Collection[T], unit: str) -> Iterator[T]:
  """Yields the items; shows progress if that takes long.

  For work that is usually quick, such as checking the records of a file.
  """
  # It loads JAX, which much of what imports this module can do without.
  from lift_jax.runtime import distributed

  with Progress(
    len(items),
    unit,
    logger=logging.getLogger('lift'),
    enabled=distributed.is_primary(),
    is_brief=True,
  ) as progress:
    for item in items:
      yield item
      progress.update(1)
