"""Batches over several hosts: each reads the rows that its devices hold."""

from typing import Any

import jax
import numpy as np

READ_AHEAD = 4  # batches that are read while the devices work


def local_rows(sharding: jax.sharding.Sharding, batch_size: int) -> np.ndarray:
  """Rows of a batch that the devices of this host hold, ascending."""
  indices = sharding.addressable_devices_indices_map((batch_size,))
  rows = set()
  for (part,) in indices.values():
    rows.update(range(*part.indices(batch_size)))
  return np.array(sorted(rows))


def to_global(
  arrays: dict[str, Any],
  batch_size: int,
  sharding: jax.sharding.Sharding,
) -> dict[str, Any]:
  """The rows of every host as arrays [batch_size, ...] on the mesh."""
  rows = local_rows(sharding, batch_size)

  def place(array: np.ndarray) -> jax.Array:
    def part(index):
      wanted = range(*index[0].indices(batch_size))
      return array[np.searchsorted(rows, wanted)]

    shape = (batch_size, *array.shape[1:])
    return jax.make_array_from_callback(shape, sharding, part)

  return jax.tree.map(place, arrays)
