"""Every parameter has one rule, every rule is used; sharded results agree."""

import functools

from absl.testing import parameterized
import jax
import numpy as np
import pytest

from lift_jax import partitioning
from lift_jax.models.clip import sharding
from lift_jax.models.clip.config import L14, ClipConfig
from lift_jax.models.clip.model import Clip
from lift_jax.models.functional import functional
from tests.models.clip.tiny_clip import TINY
from tests.random_weights import random_params
from tests.torch_weights import scaled_error


def _shardings(model, **axes):
  mesh = partitioning.make_mesh(partitioning.MeshConfig(**{'fsdp': 1} | axes))
  return mesh, partitioning.param_shardings(
    sharding.RULES, model.abstract_params, mesh
  )


class ShardingTest(parameterized.TestCase):
  @pytest.mark.fast
  @parameterized.product(
    config=(ClipConfig(), L14), axes=({'data': 8}, {'fsdp': 2, 'tensor': 4})
  )
  def test_total(self, config, axes):
    """`param_shardings` raises if a rule is missing or unused."""
    _shardings(functional(lambda rngs: Clip(config, rngs=rngs)), **axes)

  def test_same_result_on_a_mesh(self):
    model = functional(lambda rngs: Clip(TINY, rngs=rngs))
    params = random_params(model.abstract_params)
    rng = np.random.default_rng(0)
    pixels_bhw3 = rng.normal(size=(4, 30, 30, 3)).astype(np.float32)
    ids_bn = rng.integers(0, 514, (4, 12)).astype(np.int32)
    length_b = np.array([3, 12, 5, 7], np.int32)

    @jax.jit
    def run(params, pixels_bhw3, ids_bn, length_b):
      return (
        model(params, pixels_bhw3, method='images'),
        model(params, ids_bn, length_b, method='texts'),
      )

    expected = run(params, pixels_bhw3, ids_bn, length_b)
    mesh, shardings = _shardings(model, data=2, fsdp=2, tensor=2)
    put = functools.partial(
      jax.device_put,
      device=jax.NamedSharding(mesh, jax.P(partitioning.BATCH_AXES)),
    )
    with jax.set_mesh(mesh):
      actual = run(
        jax.device_put(params, shardings),
        put(pixels_bhw3),
        put(ids_bn),
        put(length_b),
      )
    for ours, one_device in zip(actual, expected, strict=True):
      self.assertLess(scaled_error(ours, one_device), 1e-5)
