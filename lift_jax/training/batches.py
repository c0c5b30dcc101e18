"""How a batch lies on a mesh, whole and in parts."""

import jax

from lift_jax.partitioning import BATCH_AXES, constrain


def batch_spec(ndim: int) -> jax.sharding.PartitionSpec:
  return jax.sharding.PartitionSpec(BATCH_AXES, *(None,) * (ndim - 1))


def micro_batches(x: jax.Array, num: int) -> jax.Array:
  """[B, ...] to [num, B / num, ...], each micro-batch spread over all devices.

  Sample i goes to micro-batch i % num: a device keeps the samples it holds.
  """
  micro = x.reshape(-1, num, *x.shape[1:]).swapaxes(0, 1)
  return constrain(micro, jax.sharding.PartitionSpec(None, *batch_spec(x.ndim)))
