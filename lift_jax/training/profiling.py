"""JAX profiler traces of a few training steps."""

import pathlib
import re
from typing import Any, Self

import jax

from lift_jax.errors import UserError
from lift_jax.runtime import storage


def parse_steps(text: str) -> range:
  """The steps of 'START:COUNT', numbered from 1 as in the log; '' gives none.

  Raises:
    UserError: the text has another format.
  """
  if not text:
    return range(0)
  if not re.fullmatch(r'[1-9]\d*:[1-9]\d*', text):
    raise UserError(
      f"train.profile is {text!r}; write START:COUNT, such as '10:3', or ''"
    )
  start, count = map(int, text.split(':'))
  return range(start, start + count)


class StepProfiler:
  """Traces steps on this host; use it as a context manager around the loop.

  A run that resumes after the first of the steps traces none; one that ends
  before the last of them keeps the trace so far.

  Args:
    folder: gets the trace, which TensorBoard and Perfetto show.
    steps: consecutive ones; an empty range traces none.
  """

  def __init__(self, folder: pathlib.Path, steps: range):
    self._folder, self._steps = folder, steps
    self._trace: storage.Mirror | None = None

  def before(self, step: int) -> None:
    """Must be called before step number `step` starts."""
    if self._steps and step == self._steps[0]:
      self._trace = storage.Mirror(self._folder)
      jax.profiler.start_trace(str(self._trace.local))

  def after(self, step: int, outputs: Any) -> None:
    """Must be called with outputs of the step, once it is dispatched."""
    if self._trace is not None and step == self._steps[-1]:
      jax.block_until_ready(outputs)
      self._stop(self._trace)

  def _stop(self, trace: storage.Mirror) -> None:
    self._trace = None
    jax.profiler.stop_trace()
    trace.close()

  def __enter__(self) -> Self:
    return self

  def __exit__(self, *exception) -> None:
    if self._trace is not None:
      self._stop(self._trace)
