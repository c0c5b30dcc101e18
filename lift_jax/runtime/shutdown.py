"""Graceful shutdown on SIGTERM: a job stops between two pieces of work.

A single host notes the signal itself. On several hosts JAX's preemption service
catches it and makes all of them stop: a host polls
`reached_preemption_sync_point` with increasing numbers, and JAX answers True
for exactly one, the successor of the largest number that any host had polled
when the signal arrived. Hosts in lockstep poll one number per step, and so stop
at the same step. Independent hosts poll one number per second.
"""

import signal
import time
from typing import Self

import jax
import numpy as np

# The exit status that shells report for a process ended by SIGTERM. Schedulers
# tell by it that a job is to be started again.
STATUS = 128 + signal.SIGTERM


class Stopped(Exception):
  """A job stopped early on SIGTERM; the same command resumes it."""


class _PreemptionPoint:
  """Polls JAX's preemption sync point, once for every number.

  There is one per process, as JAX reports a preemption only once.

  Attributes:
    polled: the last number; all numbers up to it have been polled.
    reached: whether JAX has reported a preemption.
  """

  def __init__(self):
    self.polled, self.reached = 0, False

  def poll(self, until: int) -> bool:
    """Whether JAX has reported a preemption at any number up to this one."""
    from jax.experimental import multihost_utils

    while self.polled < until:
      self.polled += 1
      self.reached |= multihost_utils.reached_preemption_sync_point(self.polled)
    return self.reached

  def synchronise(self) -> None:
    """Makes all hosts continue from the same number; all must call it."""
    from jax.experimental import multihost_utils

    hosts = multihost_utils.process_allgather(
      np.array([self.polled, self.reached], np.int32)
    )
    polled, reached = hosts.max(axis=0)
    self.poll(polled)
    self.reached |= bool(reached)


_preemption = _PreemptionPoint()


class StopSignal:
  """Notes SIGTERM instead of dying from it; use it as a context manager.

  Args:
    together: whether the hosts run in lockstep and must stop at the same step.
      All must enter then.
  """

  def __init__(self, together: bool):
    self._together = together
    self._is_single_host = jax.process_count() == 1
    self._has_signal = False

  def __enter__(self) -> Self:
    if self._is_single_host:
      self._previous = signal.signal(signal.SIGTERM, self._handle)
    elif self._together:
      _preemption.synchronise()
    else:
      self._start = time.monotonic() - _preemption.polled
    return self

  def _handle(self, number, frame) -> None:
    self._has_signal = True

  def __exit__(self, *exception) -> None:
    if self._is_single_host:
      signal.signal(signal.SIGTERM, self._previous)

  @property
  def received(self) -> bool:
    """Whether any host was asked to stop; for hosts that work independently."""
    if self._is_single_host:
      return self._has_signal
    return _preemption.poll(int(time.monotonic() - self._start))

  def everywhere(self) -> bool:
    """The same on all hosts; for hosts in lockstep, which call it each step."""
    if self._is_single_host:
      return self._has_signal
    return _preemption.poll(_preemption.polled + 1)
