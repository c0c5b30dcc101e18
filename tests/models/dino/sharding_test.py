"""Every parameter has one rule, every rule is used; sharded results agree."""

from absl.testing import parameterized
import jax
import numpy as np
import pytest

from lift_jax import partitioning
from lift_jax.models.dino import sharding
from lift_jax.models.dino.config import DinoConfig
from lift_jax.models.dino.tower import Tower
from lift_jax.models.functional import functional
from tests.models.dino.tiny_dino import TINY
from tests.random_weights import random_params
from tests.torch_weights import scaled_error


def _shardings(model, **axes):
  mesh = partitioning.make_mesh(partitioning.MeshConfig(**{'fsdp': 1} | axes))
  return mesh, partitioning.param_shardings(
    sharding.RULES, model.abstract_params, mesh
  )


class ShardingTest(parameterized.TestCase):
  @pytest.mark.fast
  @parameterized.parameters({'data': 8}, {'fsdp': 2, 'tensor': 4})
  def test_total(self, **axes):
    """`param_shardings` raises if a rule is missing or unused."""
    _shardings(functional(lambda rngs: Tower(DinoConfig(), rngs=rngs)), **axes)

  def test_same_result_on_a_mesh(self):
    model = functional(lambda rngs: Tower(TINY, rngs=rngs))
    params = random_params(model.abstract_params)
    pixels_bhw3 = np.random.default_rng(0).normal(size=(4, 30, 45, 3))
    pixels_bhw3 = pixels_bhw3.astype(np.float32)
    expected = jax.jit(model)(params, pixels_bhw3)
    mesh, shardings = _shardings(model, data=2, fsdp=2, tensor=2)
    batch = jax.NamedSharding(mesh, jax.P(partitioning.BATCH_AXES))
    with jax.set_mesh(mesh):
      actual = jax.jit(model)(
        jax.device_put(params, shardings), jax.device_put(pixels_bhw3, batch)
      )
    self.assertLess(scaled_error(actual, expected), 1e-5)
