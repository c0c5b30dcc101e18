"""Multi-host initialisation, barriers, errors and logging."""

from collections.abc import Iterator
import contextlib
import logging
import os
import sys
import time

import jax
import numpy as np

from lift_jax.errors import UserError

# How long hosts that work independently may wait for the slowest one.
_WEEK_IN_MS = 7 * 24 * 3600 * 1000

# How long JAX may take to terminate a process once another one is lost.
_SECONDS_TO_END = 60

# Longest error message that one host sends to the others, in bytes.
_MESSAGE_BYTES = 2048


def initialize(multihost: bool) -> None:
  """Connects this process to the other hosts, before any device is used.

  JAX detects Cloud TPU, SLURM and Kubernetes. Elsewhere set three environment
  variables: JAX_COORDINATOR_ADDRESS (host:port of the first process),
  JAX_NUM_PROCESSES and JAX_PROCESS_ID. JAX itself reads only the first; the
  other two are passed to it here, and take precedence over what it detects.

  Raises:
    UserError: `--multihost` was given and the hosts cannot connect.
  """
  if not multihost:
    if not jax.distributed.is_initialized():
      _check_alone()
    return
  num_processes = _environment_int('JAX_NUM_PROCESSES')
  process_id = _environment_int('JAX_PROCESS_ID')
  _environment_int('JAX_COORDINATOR_PORT')
  for name in ('JAX_COORDINATOR_ADDRESS', 'JAX_COORDINATOR_BIND_ADDRESS'):
    _check_address(name)
  try:
    jax.distributed.initialize(
      num_processes=num_processes, process_id=process_id
    )
  except KeyError as error:  # JAX reads what a launcher should have set
    raise UserError(
      f'--multihost: the environment lacks {error}, which goes with what '
      f'detected the cluster; set it, or {_VARIABLES}'
    ) from error
  # Whatever fails here fails on the environment: JAX parses variables of
  # several launchers without checks, and asks servers of metadata.
  except Exception as error:
    raise UserError(
      f'--multihost: the hosts could not connect ({error}); on clusters that '
      f'JAX does not detect, set {_VARIABLES}'
    ) from error


_VARIABLES = 'JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID'


def _environment_int(name: str) -> int | None:
  """The integer in an environment variable; None if it is not set."""
  text = os.environ.get(name)
  if text is None:
    return None
  if not text.isdecimal():
    raise UserError(f'--multihost: {name} is {text!r}; set it to a number')
  return int(text)


def _check_address(name: str) -> None:
  """Raises UserError unless a variable is unset, or HOST:PORT.

  JAX crashes at some other texts, and waits for minutes at others.
  """
  text = os.environ.get(name)
  if text is None:
    return
  host, _, port = text.rpartition(':')
  if not host or not port.isdecimal() or not 0 < int(port) < 2**16:
    raise UserError(
      f'--multihost: {name} is {text!r}; set it to HOST:PORT, such as '
      'first-host:1234'
    )


# What launchers tell each process of a job: how many there are. SLURM says so
# to the script of a batch job too, which is one process; a step has nodes.
_COUNTS = (
  ('JAX_NUM_PROCESSES', 'JAX_PROCESS_ID'),
  ('SLURM_NTASKS', 'SLURM_STEP_NODELIST'),
  ('OMPI_COMM_WORLD_SIZE', 'OMPI_COMM_WORLD_RANK'),
)


def _check_alone() -> None:
  """Raises UserError if this is one of several processes of a job."""
  counts = {
    name: int(text)
    for name, other in _COUNTS
    if other in os.environ and (text := os.environ.get(name, '')).isdecimal()
  }
  workers = os.environ.get('TPU_WORKER_HOSTNAMES', '')
  counts['TPU_WORKER_HOSTNAMES'] = len(workers.split(','))
  for name, count in counts.items():
    if count > 1:
      raise UserError(
        f'--multihost is missing: this is one of {count} processes, according '
        f'to {name}; add it, or unset {name} for a job of its own'
      )


def is_primary() -> bool:
  """Whether this is the host that writes logs and indexes: process 0."""
  return jax.process_index() == 0


def start_logging() -> logging.Logger:
  """The project's logger; only the primary host logs below warnings."""
  logger = logging.getLogger('lift')
  if not logger.handlers:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(logging.Formatter('%(message)s'))
    logger.addHandler(handler)
    logger.propagate = False
  logger.setLevel(logging.INFO if is_primary() else logging.WARNING)
  return logger


def barrier(name: str) -> None:
  """Waits until every host has reached this barrier."""
  if jax.process_count() > 1:
    from jax.experimental import multihost_utils

    multihost_utils.sync_global_devices(name)


def wait_for_all(name: str) -> None:
  """A barrier for independent hosts, which may arrive hours apart.

  It uses no devices, whose collectives may time out after minutes. If a host is
  lost meanwhile, JAX terminates the others, and they print why.
  """
  if jax.process_count() == 1:
    return
  from orbax.checkpoint import multihost

  try:
    multihost.get_barrier_sync_fn()(key=name, timeout_ms=_WEEK_IN_MS)
  except RuntimeError:
    print(
      f'host {jax.process_index()}: lost another host; the finished work is '
      'kept, and the same command on all hosts resumes it',
      file=sys.stderr,
      flush=True,
    )
    time.sleep(_SECONDS_TO_END)
    raise


def true_everywhere(value: bool) -> bool:
  """Whether `value` is true on every host; all must call it."""
  if jax.process_count() == 1:
    return value
  from jax.experimental import multihost_utils

  return bool(multihost_utils.process_allgather(np.array(value)).all())


@contextlib.contextmanager
def independent_work(name: str) -> Iterator[None]:
  """Work that hosts do independently, with a barrier at the end.

  An error is printed at once, as other hosts may work on for hours; at the
  barrier every host raises it.

  Args:
    name: of the barrier.

  Raises:
    UserError: the error of the first host that has one.
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
  """A barrier at which all hosts raise the error of any one of them.

  Otherwise the others would wait for a host that has stopped.

  Args:
    error: of this host, or None.

  Raises:
    UserError: the error of the first host that has one.
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
  for data in multihost_utils.process_allgather(message):
    text = bytes(data).rstrip(b'\0').decode(errors='ignore')
    if text:
      raise UserError(text)
