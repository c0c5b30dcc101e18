"""SIGTERM as a wish that a job grants between two pieces of work."""

import signal
from typing import Self

import jax

# What shells say of a process that SIGTERM has ended. Whoever started a job
# tells by it one that is to be started again from one that is done.
STATUS = 128 + signal.SIGTERM


class Stopped(Exception):
  """A job ended on SIGTERM before it was done; the same command goes on."""


class StopSignal:
  """Notes SIGTERM; use it as a context manager.

  Args:
    together: whether several hosts work in step, so that all must end at the
      same one. JAX listens then, and passes the word on.
  """

  def __init__(self, together: bool):
    self.received = False
    self._is_mine = not together or jax.process_count() == 1

  def __enter__(self) -> Self:
    if self._is_mine:
      self._previous = signal.signal(signal.SIGTERM, self._note)
    return self

  def _note(self, number, frame) -> None:
    self.received = True

  def __exit__(self, *exception) -> None:
    if self._is_mine:
      signal.signal(signal.SIGTERM, self._previous)

  def everywhere(self, step: int) -> bool:
    """Whether any host was asked to stop; all agree on the step."""
    if self._is_mine:
      return self.received
    from jax.experimental import multihost_utils

    return multihost_utils.reached_preemption_sync_point(step)
