"""Shardings of a batch, and its division into micro-batches.

B examples  A micro-batches  U units of a micro-batch, which are never split
"""

from typing import Any

import jax

from lift_jax.partitioning import BATCH_AXES, constrain


def batch_spec(ndim: int) -> jax.sharding.PartitionSpec:
  return jax.sharding.PartitionSpec(BATCH_AXES, *(None,) * (ndim - 1))


def micro_batches(x: jax.Array, num: int, unit_size: int = 1) -> jax.Array:
  """[B, ...] to [A, B / A, ...], each micro-batch sharded over all devices.

  Unit i goes to micro-batch i % A, so no example moves to another device.

  Args:
    x: any array of a batch.
    num: number of micro-batches.
    unit_size: consecutive examples that stay together.
  """
  micro = x.reshape(-1, num, unit_size, *x.shape[1:]).swapaxes(0, 1)
  micro = micro.reshape(num, -1, *x.shape[1:])
  return constrain(micro, jax.sharding.PartitionSpec(None, *batch_spec(x.ndim)))


def weigh_examples(
  grads: Any, batch_size: int, mean_batch: float | None
) -> Any:
  """Gradients of a mean over a batch, such that all examples count alike.

  Args:
    grads: of the mean over `batch_size` examples.
    batch_size: of this step.
    mean_batch: mean of it over the steps of an epoch; None if it is the same in
      every step.
  """
  if mean_batch is None or batch_size == mean_batch:
    return grads
  return jax.tree.map(lambda x: x * (batch_size / mean_batch), grads)


def merge_micro_batches(x: jax.Array, num_units: int) -> jax.Array:
  """The inverse of `micro_batches`, also for one value per unit.

  Args:
    x: [A, U, ...], or [A, U * unit_size, ...].
    num_units: U.
  """
  num, _, *shape = x.shape
  parts = x.reshape(num, num_units, -1, *shape)
  return parts.swapaxes(0, 1).reshape(-1, *shape)
