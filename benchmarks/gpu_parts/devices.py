"""What JAX runs on."""

import sys
from typing import Any

import flax
import jax
import jaxlib

from lift_jax.errors import UserError


def check(tiny: bool) -> None:
  """Refuses to spend hours on a CPU.

  Raises:
    UserError: it would.
  """
  if jax.default_backend() == 'cpu' and not tiny:
    raise UserError('JAX sees the CPU alone, which is for --tiny')


def about(device: jax.Device) -> dict[str, Any]:
  """The device, the most memory that was taken of it, and versions."""
  memory = device.memory_stats() or {}
  return {
    'peak_bytes': memory.get('peak_bytes_in_use'),
    'device': device.device_kind,
    'versions': {
      'python': sys.version.split()[0],
      'jax': jax.__version__,
      'jaxlib': jaxlib.__version__,
      'flax': flax.__version__,
      'platform': ' '.join(device.client.platform_version.split()),
    },
  }
