"""Validation of a critic: the same means for any batch size and mesh."""

from absl.testing import parameterized
import jax
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P
import numpy as np

from lift_jax.data.global_batch import local_indices
from lift_jax.partitioning import BATCH_AXES, MeshConfig, make_mesh
from lift_jax.training.critic_step import answer_losses
from lift_jax.training.critic_validation import CriticValidation
from tests.training.critic_pair import BATCH, declare, params_of

MAX_TARGETS = 6


def examples_at(numbers):
  """These examples; indices past the end have no target."""
  size = len(BATCH.weight)
  indices = np.minimum(numbers, size - 1)
  arrays = {
    field: np.asarray(array)[indices]
    for field, array in BATCH._asdict().items()
    if array is not None  # ratings
  }
  arrays['is_target'] = arrays['is_target'] & (numbers < size)[:, None]
  return arrays


class CriticValidationTest(parameterized.TestCase):
  def expected(self, model, params):
    """Of every answer token by itself."""
    loss, is_there, is_right = jax.tree.map(
      np.asarray, answer_losses(model, params, BATCH, MAX_TARGETS)
    )
    has_answer = is_there[:, 0]
    return {
      'validation/loss': loss[is_there].mean(),
      'validation/label_loss': loss[has_answer, 0].mean(),
      'validation/token_accuracy': is_right[is_there].mean(),
      'validation/label_accuracy': is_right[has_answer, 0].mean(),
    }

  @parameterized.parameters((4, {'data': 2, 'fsdp': 2, 'tensor': 2}), (6, {}))
  def test_means(self, batch_size, axes):
    model = declare('all')
    params = params_of('all')
    num_devices = 8 if axes else 1
    mesh = make_mesh(
      MeshConfig(**{'fsdp': 1} | axes), jax.devices()[:num_devices]
    )
    sharding = NamedSharding(mesh, P(BATCH_AXES))
    local = local_indices(sharding, batch_size)

    def batches():
      for start in range(0, len(BATCH.weight), batch_size):
        yield examples_at(start + local)

    validation = CriticValidation(
      batches, batch_size, sharding, model, MAX_TARGETS
    )
    with jax.set_mesh(mesh):
      found = validation(params)
    expected = self.expected(model, params)
    self.assertEqual(found.keys(), expected.keys())
    for name, value in expected.items():
      self.assertIsInstance(found[name], float)
      np.testing.assert_allclose(found[name], value, rtol=1e-5, err_msg=name)
