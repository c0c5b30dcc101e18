"""Several hosts, and who of them speaks."""

from collections.abc import Iterator
import contextlib
import logging
import os
import sys
import time

import jax
import numpy as np

from lift_jax.errors import UserError

# How long a host waits for one that has more to do.
_WEEK_IN_MS = 7 * 24 * 3600 * 1000

# How long JAX may take to end a process once another is lost; it knows at once.
_SECONDS_TO_END = 60

# Longest message that one host passes on to the others, in bytes.
_MESSAGE_BYTES = 2048


def initialize(multihost: bool) -> None:
  """Joins the other hosts; must run before any device is touched.

  JAX recognises Cloud TPU, SLURM and Kubernetes. Elsewhere three variables say
  who is who: JAX_COORDINATOR_ADDRESS (host:port of the first process),
  JAX_NUM_PROCESSES and JAX_PROCESS_ID. JAX itself reads only the first, so the
  other two are passed on here; where they are set they go before what JAX
  recognises.

  Raises:
    UserError: `--multihost` was given and the hosts do not meet.
  """
  if not multihost:
    return
  num_processes = _number('JAX_NUM_PROCESSES')
  process_id = _number('JAX_PROCESS_ID')
  try:
    jax.distributed.initialize(
      num_processes=num_processes, process_id=process_id
    )
  except (ValueError, RuntimeError) as error:
    raise UserError(
      f'--multihost: the hosts did not meet ({error}); on machines that JAX '
      'does not recognise set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and '
      'JAX_PROCESS_ID'
    ) from error


def _number(name: str) -> int | None:
  """A number from the environment, or None where it is not set."""
  text = os.environ.get(name)
  if text is None:
    return None
  if not text.isdecimal():
    raise UserError(f'--multihost: {name} is {text!r}; set it to a number')
  return int(text)


def is_primary() -> bool:
  """Whether this host writes logs and indexes."""
  return jax.process_index() == 0


def start_logging() -> logging.Logger:
  """The project's logger, on the primary host alone."""
  logger = logging.getLogger('lift')
  if not logger.handlers:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter('%(message)s'))
    logger.addHandler(handler)
    logger.propagate = False
  logger.setLevel(logging.INFO if is_primary() else logging.WARNING)
  return logger


def barrier(name: str) -> None:
  """Waits until every host has come here."""
  if jax.process_count() > 1:
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices(name)


def wait_for_all(name: str) -> None:
  """A barrier for hosts that work apart and come hours after one another.

  The devices take no part, whose collectives may give up after minutes. Where
  a host is lost meanwhile JAX ends the others, and they say so.
  """
  if jax.process_count() == 1:
    return
  from orbax.checkpoint import multihost

  try:
    multihost.get_barrier_sync_fn()(key=name, timeout_ms=_WEEK_IN_MS)
  except RuntimeError:
    print(
      f'host {jax.process_index()}: another host is lost; what this one has '
      'done is kept, and the same command on all hosts goes on from there',
      file=sys.stderr,
      flush=True,
    )
    time.sleep(_SECONDS_TO_END)
    raise


def true_everywhere(value: bool) -> bool:
  """Whether it is true on every host; all must call it."""
  if jax.process_count() == 1:
    return value
  from jax.experimental import multihost_utils

  return bool(multihost_utils.process_allgather(np.array(value)).all())


@contextlib.contextmanager
def working_apart(name: str) -> Iterator[None]:
  """Work at which hosts do not wait for one another; they end it together.

  The error of one is told at once, as the others may go on for hours, and in
  the end becomes that of all.

  Args:
    name: of the barrier at the end.

  Raises:
    UserError: that of the first host that has one.
  """
  error = None
  try:
    yield
  except UserError as raised:
    error = raised
    if jax.process_count() > 1:
      print(f'host {jax.process_index()}: {error}', file=sys.stderr)
  wait_for_all(name)
  raise_together(error)


def raise_together(error: UserError | None) -> None:
  """A barrier at which the error of one host becomes that of all.

  Otherwise the others would wait for a host that has stopped.

  Args:
    error: what went wrong on this host, or None.

  Raises:
    UserError: that of the first host that has one.
  """
  if jax.process_count() == 1:
    if error is not None:
      raise error
    return
  from jax.experimental import multihost_utils

  message = np.zeros(_MESSAGE_BYTES, np.uint8)
  if error is not None:
    text = np.frombuffer(str(error).encode()[:_MESSAGE_BYTES], np.uint8)
    message[: len(text)] = text
  for row in multihost_utils.process_allgather(message):
    text = bytes(row).rstrip(b'\0').decode(errors='ignore')
    if text:
      raise UserError(text)
