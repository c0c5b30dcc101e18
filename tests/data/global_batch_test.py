"""Rows of hosts, and the batch that they make."""

import json

from absl.testing import parameterized
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np

from lift_jax.data import global_batch
from tests.jobs import jobs


class GlobalBatchTest(parameterized.TestCase):
  def sharding(self, num_devices):
    mesh = Mesh(np.array(jax.devices()[:num_devices]), ('data',))
    return NamedSharding(mesh, PartitionSpec('data'))

  @parameterized.parameters(1, 4)
  def test_local_indices(self, num_devices):
    np.testing.assert_array_equal(
      global_batch.local_indices(self.sharding(num_devices), 8), np.arange(8)
    )

  @parameterized.parameters(1, 2, 4)
  def test_to_global(self, num_devices):
    sharding = self.sharding(num_devices)
    arrays = {
      'tokens': np.arange(24, dtype=np.int32).reshape(8, 3),
      'weight': np.linspace(0, 1, 8, dtype=np.float32),
    }
    self.assertEqual(global_batch.global_size(arrays, sharding), 8)
    placed = global_batch.to_global(arrays, 8, sharding)
    self.assertEqual(sorted(placed), sorted(arrays))
    for name, array in arrays.items():
      self.assertEqual(placed[name].sharding, sharding)
      self.assertEqual(placed[name].dtype, array.dtype)
      np.testing.assert_array_equal(np.asarray(placed[name]), array)


def test_size_of_a_batch_in_copies():
  """Two devices hold each example; there are more devices than examples."""
  mesh = Mesh(np.array(jax.devices()[:8]).reshape(4, 2), ('data', 'context'))
  sharding = NamedSharding(mesh, PartitionSpec('data'))
  assert global_batch.global_size({'x': np.zeros((4, 2))}, sharding) == 4


# Of four devices, whose order in the mesh is not that of their hosts.
_HOST = """
import json
import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from lift_jax.data import global_batch
from lift_jax.runtime import distributed

distributed.initialize(True)
mesh = Mesh(np.array(jax.devices())[[0, 2, 1, 3]], ('data',))
sharding = NamedSharding(mesh, PartitionSpec('data'))
local = global_batch.local_indices(sharding, 8)
arrays = {'x': 10 * local}
size = global_batch.global_size(arrays, sharding)
batch = global_batch.to_global(arrays, size, sharding)
held = {
  shard.index[0].start: np.asarray(shard.data).tolist()
  for shard in batch['x'].addressable_shards
}
print(json.dumps([local.tolist(), sorted(held.items())]))
"""


def test_two_hosts():
  """Each reads the examples of its own devices and assigns them to these."""
  hosts = jobs.two_hosts(_HOST, [], num_devices=2)
  found = []
  for status, output, errors in hosts:
    assert status == 0, errors
    found.append(json.loads(output.splitlines()[-1]))
  assert found == [
    [[0, 1, 4, 5], [[0, [0, 10]], [4, [40, 50]]]],
    [[2, 3, 6, 7], [[2, [20, 30]], [6, [60, 70]]]],
  ]
