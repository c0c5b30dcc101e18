"""Graceful shutdown: a job stops between two pieces of work.

SIGTERM and Ctrl-C (SIGINT) both ask for it. A single host notes the signal
itself. On several hosts JAX's preemption service catches SIGTERM and makes all
of them stop: a host polls `reached_preemption_sync_point` with increasing
numbers, and JAX answers True for exactly one, the successor of the largest
number that any host had polled when the signal arrived. Hosts in lockstep poll
one number per step, and so stop at the same step. Independent hosts poll one
number per second. A host passes Ctrl-C on to the service as SIGTERM.

Where a job cannot stop gracefully, as while it loads a model, Ctrl-C raises
KeyboardInterrupt. A second one ends the process at once. So does the first one
while libraries are imported: nothing is lost then, and some imports would
swallow the exception.
"""

import contextlib
import os
import signal
import threading
import time
from types import FrameType
from typing import Any, Self

# The statuses that shells report for processes ended by these signals.
# Schedulers tell by that of SIGTERM that a job is to be started again.
_TERMINATED = 128 + signal.SIGTERM
INTERRUPTED = 128 + signal.SIGINT


class Stopped(Exception):
  """A job stopped early, as asked; the same command resumes it."""


class _Interrupts:
  """The Ctrl-Cs of this process.

  Attributes:
    noted: whether a `StopSignal` has noted one.
    repeated: how many were not typed, but repeated by `repeat_interrupt`.
  """

  def __init__(self):
    self.noted, self.repeated = False, 0


_interrupts = _Interrupts()


def status() -> int:
  """The exit status of a job that raises `Stopped`."""
  return INTERRUPTED if _interrupts.noted else _TERMINATED


def end_on_interrupt() -> Any:
  """Lets Ctrl-C end the process at once; returns the handler so far.

  A process that was started to ignore Ctrl-C, as by nohup, still does.
  """
  before = signal.getsignal(signal.SIGINT)
  if before is not signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.SIG_DFL)
  return before


def _raise_interrupt(number: int, frame: FrameType | None) -> None:
  raise KeyboardInterrupt


def repeat_interrupt() -> None:
  """Raises a KeyboardInterrupt again that was swallowed, as in a destructor.

  A moment later, when the main thread has left it.
  """
  _interrupts.repeated += 1
  timer = threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGINT))
  timer.daemon = True
  timer.start()


class Interruptible:
  """Lets a job be interrupted by Ctrl-C; a context of the main thread.

  Python runs the handler of a signal once native code returns, and that may be
  a compiler at work for minutes. So a thread waits for the second Ctrl-C.
  """

  def __enter__(self) -> Self:
    _interrupts.noted, _interrupts.repeated = False, 0
    reader, self._writer = os.pipe()
    os.set_blocking(self._writer, False)
    self._previous_writer = signal.set_wakeup_fd(
      self._writer, warn_on_full_buffer=False
    )
    threading.Thread(target=_end_on_second, args=(reader,), daemon=True).start()
    self._previous = signal.getsignal(signal.SIGINT)
    if self._previous is not signal.SIG_IGN:
      signal.signal(signal.SIGINT, _raise_interrupt)
    return self

  def __exit__(self, *exception) -> None:
    signal.signal(signal.SIGINT, self._previous)
    signal.set_wakeup_fd(self._previous_writer)
    os.close(self._writer)


def _end_on_second(reader: int) -> None:
  """Ends the process at the second Ctrl-C; returns once the pipe is closed.

  Args:
    reader: of a pipe that gets the number of each signal, as a byte.
  """
  count = 0
  with open(reader, 'rb', buffering=0) as numbers:
    while byte := numbers.read(1):
      count += byte[0] == signal.SIGINT
      if count - _interrupts.repeated >= 2:
        os._exit(INTERRUPTED)


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
    import numpy as np

    hosts = multihost_utils.process_allgather(
      np.array([self.polled, self.reached], np.int32)
    )
    polled, reached = hosts.max(axis=0)
    self.poll(polled)
    self.reached |= bool(reached)


_preemption = _PreemptionPoint()


class StopSignal:
  """Notes SIGTERM and Ctrl-C instead of dying; use it as a context manager.

  Args:
    together: whether the hosts run in lockstep and must stop at the same step.
      All must enter then.
  """

  def __init__(self, together: bool):
    import jax

    self._together = together
    self._is_single_host = jax.process_count() == 1
    self._has_signal = False
    self._previous: dict[signal.Signals, Any] = {}

  def __enter__(self) -> Self:
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
      self._catch(signal.SIGINT, self._interrupt)
    if self._is_single_host:
      self._catch(signal.SIGTERM, self._handle)
    elif self._together:
      _preemption.synchronise()
    else:
      self._start = time.monotonic() - _preemption.polled
    return self

  def _catch(self, number: signal.Signals, handler) -> None:
    self._previous[number] = signal.signal(number, handler)

  def _handle(self, number: int, frame: FrameType | None) -> None:
    self._has_signal = True

  def _interrupt(self, number: int, frame: FrameType | None) -> None:
    # Not `print`: the signal may have come in the middle of one.
    os.write(2, b'\nCtrl-C: stopping; again to end at once\n')
    _interrupts.noted = True
    signal.raise_signal(signal.SIGTERM)

  def __exit__(self, *exception) -> None:
    for number, handler in self._previous.items():
      signal.signal(number, handler)

  @property
  def name(self) -> str:
    """What asks the job to stop, for the log."""
    return 'Ctrl-C' if _interrupts.noted else 'SIGTERM'

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


def stop_signal(
  can_stop: bool,
) -> contextlib.AbstractContextManager[StopSignal | None]:
  """A `StopSignal` for hosts that work independently.

  Args:
    can_stop: False gives None, for work within a step of a job that notes
      signals itself, and stops after that step.
  """
  if can_stop:
    return StopSignal(together=False)
  return contextlib.nullcontext()
