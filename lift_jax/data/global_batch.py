"""Global batches: each host reads the examples that its devices hold."""

from typing import Any

import jax
import numpy as np

READ_AHEAD = 4  # number of prefetched batches


def local_indices(
  sharding: jax.sharding.Sharding, batch_size: int
) -> np.ndarray:
  """Batch indices that the devices of this host hold, ascending."""
  slices = sharding.devices_indices_map((batch_size,))
  indices = set()
  for device in sharding.addressable_devices:
    (part,) = slices[device]
    indices.update(range(*part.indices(batch_size)))
  return np.array(sorted(indices))


def global_size(arrays: dict[str, Any], sharding: jax.sharding.Sharding) -> int:
  """Size of the batch whose examples of this host are in `arrays`."""
  # Hosts hold the same share of batches of any size; this one has a device for
  # each example.
  size = sharding.num_devices
  num_local = len(jax.tree.leaves(arrays)[0])
  return num_local * size // len(local_indices(sharding, size))


def to_global(
  arrays: dict[str, Any],
  batch_size: int,
  sharding: jax.sharding.Sharding,
) -> dict[str, Any]:
  """The examples of every host as arrays [batch_size, ...] on the mesh."""
  local = local_indices(sharding, batch_size)

  def globalize(array: np.ndarray) -> jax.Array:
    def part(index):
      wanted = range(*index[0].indices(batch_size))
      return array[np.searchsorted(local, wanted)]

    shape = (batch_size, *array.shape[1:])
    return jax.make_array_from_callback(shape, sharding, part)

  return jax.tree.map(globalize, arrays)
