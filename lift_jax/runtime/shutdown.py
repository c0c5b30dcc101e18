"""SIGTERM as a wish that a job grants between two pieces of work.

Of several hosts all stop where one is told to: JAX listens then, and passes the
word on. It is asked about one number after another and says yes to one of them,
the one after the largest that any host had asked about when the word came.
Hosts in step ask about one number at each step, so that they stop at the same
one. Hosts that work apart ask about one for each second.
"""

import signal
import time
from typing import Self

import jax
import numpy as np

# What shells say of a process that SIGTERM has ended. Whoever started a job
# tells by it one that is to be started again from one that is done.
STATUS = 128 + signal.SIGTERM


class Stopped(Exception):
  """A job ended on SIGTERM before it was done; the same command goes on."""


class _Word:
  """What this process has asked JAX; the word comes once in its life.

  Attributes:
    asked: the last number; none before it may have been left out.
    has_come: whether JAX said yes.
  """

  def __init__(self):
    self.asked, self.has_come = 0, False

  def ask(self, until: int) -> bool:
    """Whether the word has come, after all numbers up to this one."""
    from jax.experimental import multihost_utils

    while self.asked < until:
      self.asked += 1
      self.has_come |= multihost_utils.reached_preemption_sync_point(self.asked)
    return self.has_come

  def meet(self) -> None:
    """From here on all hosts ask about the same numbers; all must call it."""
    from jax.experimental import multihost_utils

    hosts = multihost_utils.process_allgather(
      np.array([self.asked, self.has_come], np.int32)
    )
    asked, has_come = hosts.max(axis=0)
    self.ask(asked)
    self.has_come |= bool(has_come)


_word = _Word()


class StopSignal:
  """Notes SIGTERM; use it as a context manager.

  Args:
    together: whether several hosts work in step, so that all must end at the
      same one. All must enter then.
  """

  def __init__(self, together: bool):
    self._together = together
    self._is_alone = jax.process_count() == 1
    self._is_noted = False

  def __enter__(self) -> Self:
    if self._is_alone:
      self._previous = signal.signal(signal.SIGTERM, self._note)
    elif self._together:
      _word.meet()
    else:
      self._start = time.monotonic() - _word.asked
    return self

  def _note(self, number, frame) -> None:
    self._is_noted = True

  def __exit__(self, *exception) -> None:
    if self._is_alone:
      signal.signal(signal.SIGTERM, self._previous)

  @property
  def received(self) -> bool:
    """Whether this host or another was asked to stop; for hosts apart."""
    if self._is_alone:
      return self._is_noted
    return _word.ask(int(time.monotonic() - self._start))

  def everywhere(self) -> bool:
    """The same on all hosts, which work together and call it at each step."""
    if self._is_alone:
      return self._is_noted
    return _word.ask(_word.asked + 1)
