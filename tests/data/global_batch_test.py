"""Rows of hosts, and the batch that they make."""

from absl.testing import parameterized
import jax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
import numpy as np

from lift_jax.data import global_batch


class GlobalBatchTest(parameterized.TestCase):
  def sharding(self, num_devices):
    mesh = Mesh(np.array(jax.devices()[:num_devices]), ('data',))
    return NamedSharding(mesh, PartitionSpec('data'))

  @parameterized.parameters(1, 4)
  def test_local_rows(self, num_devices):
    np.testing.assert_array_equal(
      global_batch.local_rows(self.sharding(num_devices), 8), np.arange(8)
    )

  @parameterized.parameters(1, 2, 4)
  def test_to_global(self, num_devices):
    sharding = self.sharding(num_devices)
    arrays = {
      'tokens': np.arange(24, dtype=np.int32).reshape(8, 3),
      'weight': np.linspace(0, 1, 8, dtype=np.float32),
    }
    placed = global_batch.to_global(arrays, 8, sharding)
    self.assertEqual(sorted(placed), sorted(arrays))
    for name, array in arrays.items():
      self.assertEqual(placed[name].sharding, sharding)
      self.assertEqual(placed[name].dtype, array.dtype)
      np.testing.assert_array_equal(np.asarray(placed[name]), array)
