"""Sharding rules of VILA, for every size and mesh."""

from absl.testing import parameterized
import jax

from lift_jax import partitioning
from lift_jax.errors import UserError
from lift_jax.models.functional import functional
from lift_jax.models.siglip.config import SiglipConfig
from lift_jax.models.vila import sharding
from lift_jax.models.vila.config import VilaConfig
from lift_jax.models.vila.model import Vila
from lift_jax.models.vila.projector import ProjectorConfig
from lift_jax.weights import param_paths
from tests.models.llama.sizes import VILA_3B
from tests.models.vila.critics import CONFIG, VILA_1_5_13B, VILA_1_5_40B

VILA_1_5_3B = VilaConfig(SiglipConfig(), ProjectorConfig(width=2560), VILA_3B)
CONFIGS = {
  'tiny': CONFIG,
  '3b': VILA_1_5_3B,
  '13b': VILA_1_5_13B,
  '40b': VILA_1_5_40B,
}


def _mesh(**axes):
  return partitioning.make_mesh(partitioning.MeshConfig(**{'fsdp': 1} | axes))


def _abstract_params(config):
  return functional(lambda rngs: Vila(config, rngs=rngs)).abstract_params


class ShardingTest(parameterized.TestCase):
  @parameterized.product(
    size=tuple(CONFIGS),
    axes=(
      {'fsdp': 8},
      {'fsdp': 4, 'tensor': 2},
      {'data': 2, 'context': 2, 'tensor': 2},
    ),
  )
  def test_total(self, size, axes):
    config, mesh = CONFIGS[size], _mesh(**axes)
    sharding.check_mesh(config, mesh)
    params = _abstract_params(config)
    shardings = partitioning.param_shardings(
      sharding.rules(config), params, mesh
    )
    places = param_paths.flatten(shardings)
    # No large parameter that can be sharded is replicated.
    for name, leaf in param_paths.flatten(params).items():
      if leaf.size > 1e8 and mesh.shape['data'] == 1:
        part = places[name].shard_shape(leaf.shape)
        self.assertEqual(leaf.size, 8 * jax.ShapeDtypeStruct(part, 'i1').size)

  def test_each_network_has_its_own_rules(self):
    """The same name means different things in them: 'blocks/mlp/up/kernel'."""
    shardings = partitioning.param_shardings(
      sharding.rules(CONFIG),
      _abstract_params(CONFIG),
      _mesh(fsdp=4, tensor=2),
    )
    specs = {n: s.spec for n, s in param_paths.flatten(shardings).items()}
    layered = jax.P(None, 'fsdp', 'tensor')
    self.assertEqual(specs['vision_tower/blocks/mlp/up/kernel'], layered)
    self.assertEqual(specs['llm/blocks/mlp/up/kernel'], layered)
    self.assertEqual(
      specs['projector/linear_in/kernel'], jax.P('fsdp', 'tensor')
    )
    self.assertEqual(
      specs['llm/token_embedding/embedding'], jax.P('tensor', 'fsdp')
    )

  def test_heads_that_do_not_divide(self):
    with self.assertRaisesRegex(UserError, 'mesh.tensor is 4'):
      sharding.check_mesh(CONFIG, _mesh(fsdp=2, tensor=4))
