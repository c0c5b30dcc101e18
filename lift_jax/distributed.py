"""Several hosts, and who of them speaks."""

import logging
import sys

import jax

from lift_jax.errors import UserError


def initialize(multihost: bool) -> None:
  """Joins the other hosts; must run before any device is touched.

  Cloud TPU, SLURM and Kubernetes are recognised by JAX; anything else names
  the coordinator in JAX's own environment variables.

  Raises:
    UserError: `--multihost` was given and the hosts do not meet.
  """
  if not multihost:
    return
  try:
    jax.distributed.initialize()
  except (ValueError, RuntimeError) as error:
    raise UserError(
      f'--multihost: the hosts did not meet ({error}); on machines that JAX '
      'does not recognise set JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and '
      'JAX_PROCESS_ID'
    ) from error


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
