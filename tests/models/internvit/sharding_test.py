"""Every parameter has one rule, every rule is used; sharded results agree."""

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from lift_jax import partitioning
from lift_jax.models.functional import functional
from lift_jax.models.internvit import sharding, tower
from lift_jax.models.internvit.config import NORM_TYPES, InternViTConfig
from lift_jax.weights import param_paths
from tests.torch_weights import scaled_error

TINY = InternViTConfig(
  image_size=13,
  patch_size=4,
  width=40,
  num_layers=3,
  num_heads=5,
  mlp_width=24,
)


def _model(config):
  return functional(lambda rngs: tower.Tower(config, rngs=rngs))


def _mesh(**axes):
  return partitioning.make_mesh(partitioning.MeshConfig(**{'fsdp': 1} | axes))


class ShardingTest(parameterized.TestCase):
  @parameterized.product(
    axes=({'fsdp': 8}, {'fsdp': 2, 'tensor': 4}, {'tensor': 8}),
    norm_type=NORM_TYPES,
  )
  def test_total(self, axes, norm_type):
    """`param_shardings` raises if a rule is missing or unused."""
    model = _model(InternViTConfig(norm_type=norm_type))
    shardings = param_paths.flatten(
      partitioning.param_shardings(
        sharding.RULES, model.abstract_params, _mesh(**axes)
      )
    )
    for name, leaf in param_paths.flatten(model.abstract_params).items():
      if leaf.size > 10_000_000:
        self.assertContainsSubset(
          {'fsdp', 'tensor'}, set(shardings[name].spec), name
        )

  @parameterized.parameters(
    {'data': 2, 'fsdp': 2, 'tensor': 2},  # 5 heads filled up to 6
    {'tensor': 8},  # 5 heads filled up to 8
    {'fsdp': 4, 'context': 2},
  )
  def test_same_result_on_a_mesh(self, **axes):
    model = _model(TINY)
    params = jax.jit(model.init)(jax.random.key(0))
    frames = np.random.default_rng(0).integers(
      0, 256, (4, TINY.image_size, TINY.image_size, 3), np.uint8
    )

    def run(params, frames):
      pixels_bhw3 = tower.normalise(frames)

      def loss(params):
        x_bnd = model(params, pixels_bhw3)
        return jnp.square(x_bnd).mean(), x_bnd

      return jax.grad(loss, has_aux=True)(params)

    expected_grads, expected = jax.jit(run)(params, frames)
    mesh = _mesh(**axes)
    shardings = partitioning.param_shardings(
      sharding.RULES, model.abstract_params, mesh
    )
    batch = jax.NamedSharding(mesh, jax.P(partitioning.BATCH_AXES))
    with jax.set_mesh(mesh):
      grads, actual = jax.jit(run)(
        jax.device_put(params, shardings), jax.device_put(frames, batch)
      )
    self.assertLess(scaled_error(actual, expected), 1e-5)
    for ours, one_device in zip(
      jax.tree.leaves(grads), jax.tree.leaves(expected_grads), strict=True
    ):
      np.testing.assert_allclose(ours, one_device, rtol=1e-4, atol=1e-5)
