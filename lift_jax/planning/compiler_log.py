"""A log file for what compilers print.

libtpu and XLA write to the standard error of the process: warnings about hosts
of a slice that is absent, and details of what did not compile.
"""

from collections.abc import Iterator
import contextlib
import os
import sys
import tempfile


@contextlib.contextmanager
def redirected() -> Iterator[None]:
  """Redirects standard error to lift_plan_*.log of the temporary folder.

  Files that remain empty are deleted.
  """
  log, path = tempfile.mkstemp('.log', 'lift_plan_')
  sys.stderr.flush()
  before = os.dup(2)
  os.dup2(log, 2)
  try:
    yield
  finally:
    sys.stderr.flush()
    os.dup2(before, 2)
    for number in (before, log):
      os.close(number)
    if not os.path.getsize(path):
      os.unlink(path)
