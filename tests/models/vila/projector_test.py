"""The projector compared with a transcription of VILA's mlp_downsample."""

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from lift_jax import errors, partitioning
from lift_jax.models.functional import functional
from lift_jax.models.vila import projector
from lift_jax.weights import conversion
from tests.models.vila.critics import PROJECTOR_JSON
from tests.models.vila.torch_projector import Reference
from tests.optional import torch
from tests.torch_weights import params_from_torch, scaled_error

TINY = projector.ProjectorConfig(vision_width=6, width=16)

# Sizes of the three published critics.
FULL_SIZES = (
  (projector.ProjectorConfig(vision_width=1152, width=2560), 18_364_416),
  (projector.ProjectorConfig(vision_width=1152, width=5120), 49_826_816),
  (projector.ProjectorConfig(vision_width=3200, width=7168), 143_170_560),
)


def _model(config=TINY, **options):
  return functional(
    lambda rngs: projector.Projector(config, rngs=rngs, **options)
  )


def _pair():
  torch.manual_seed(0)
  reference = Reference(TINY).eval()
  model = _model()
  params = params_from_torch(
    projector.PROJECTOR_TABLE, model.abstract_params, reference
  )
  return model, params, reference


def _features(grid, batch=2):
  shape = (batch, grid * grid, TINY.vision_width)
  return np.random.default_rng(grid).normal(size=shape).astype(np.float32)


class MergeTest(parameterized.TestCase):
  def test_order(self):
    """By hand: patches 0 to 8 of a 3 x 3 grid, and zeros."""
    x_bnc = jnp.arange(1.0, 10).reshape(1, 9, 1)
    self.assertEqual(
      projector.merge_patches(x_bnc)[0].astype(int).tolist(),
      [[1, 2, 4, 5], [7, 8, 0, 0], [3, 0, 6, 0], [9, 0, 0, 0]],
    )

  @parameterized.parameters((729, 196), (1024, 256), (1, 1), (4, 1), (9, 4))
  def test_num_tokens(self, num_patches, expected):
    self.assertEqual(projector.num_tokens(num_patches), expected)
    x_bnc = jax.ShapeDtypeStruct((3, num_patches, 5), jnp.float32)
    merged = jax.eval_shape(projector.merge_patches, x_bnc)
    self.assertEqual(merged.shape, (3, expected, 20))

  def test_class_token(self):
    with self.assertRaisesRegex(ValueError, '1025 patches'):
      projector.merge_patches(jnp.zeros((1, 1025, 2)))


class ProjectorTest(parameterized.TestCase):
  @parameterized.parameters(27, 32, 3)
  def test_parity(self, grid):
    model, params, reference = _pair()
    x_bnc = _features(grid)
    with torch.no_grad():
      expected = reference(torch.tensor(x_bnc)).numpy()
    actual = np.asarray(jax.jit(model)(params, x_bnc))
    # Observed 2e-7; the tanh form of GELU would be 8e-5.
    self.assertLess(scaled_error(actual, expected), 5e-6)
    # Row-major tokens would differ.
    half = -(-grid // 2)
    other = actual.reshape(2, half, half, -1).swapaxes(1, 2)
    self.assertGreater(
      scaled_error(other.reshape(expected.shape), expected), 0.1
    )

  def test_bfloat16(self):
    _, params, _ = _pair()
    expected = _model()(params, _features(5))
    actual = _model(dtype=jnp.bfloat16)(params, _features(5))
    self.assertEqual(actual.dtype, jnp.bfloat16)
    self.assertLess(scaled_error(actual.astype(jnp.float32), expected), 3e-2)

  @parameterized.parameters(*FULL_SIZES)
  def test_full_size(self, config, expected):
    model = _model(config)
    leaves = jax.tree.leaves(model.abstract_params)
    self.assertEqual(sum(leaf.size for leaf in leaves), expected)
    sources = conversion.resolve(
      projector.PROJECTOR_TABLE, model.abstract_params
    )
    names = [name for source in sources.values() for name in source.names]
    self.assertCountEqual(
      names, [f'layers.{i}.{x}' for i in (1, 2, 4) for x in ('weight', 'bias')]
    )
    output = jax.eval_shape(
      model,
      model.abstract_params,
      jax.ShapeDtypeStruct((8, 729, config.vision_width), jnp.float32),
    )
    self.assertEqual(output.shape, (8, 196, config.width))


class ShardingTest(parameterized.TestCase):
  @parameterized.parameters(
    {'fsdp': 8}, {'fsdp': 2, 'tensor': 4}, {'tensor': 8}
  )
  def test_total(self, **axes):
    for config, _ in FULL_SIZES:
      partitioning.param_shardings(
        projector.RULES, _model(config).abstract_params, self._mesh(**axes)
      )

  def test_same_result_on_a_mesh(self):
    model, params, _ = _pair()
    expected = jax.jit(model)(params, _features(3, batch=4))
    mesh = self._mesh(data=2, fsdp=2, tensor=2)
    shardings = partitioning.param_shardings(
      projector.RULES, model.abstract_params, mesh
    )
    batch = jax.NamedSharding(mesh, jax.P(partitioning.BATCH_AXES))
    with jax.set_mesh(mesh):
      actual = jax.jit(model)(
        jax.device_put(params, shardings),
        jax.device_put(_features(3, batch=4), batch),
      )
    self.assertLess(scaled_error(actual, expected), 1e-5)

  def _mesh(self, **axes):
    return partitioning.make_mesh(partitioning.MeshConfig(**{'fsdp': 1} | axes))


class ConfigTest(parameterized.TestCase):
  def _read(self, values):
    return projector.ProjectorConfig.from_json(
      values, 'some/file.json', vision_width=6, width=16
    )

  def test_published(self):
    self.assertEqual(self._read(PROJECTOR_JSON), TINY)
    self.assertEqual(self._read(TINY.to_json()), TINY)

  @parameterized.parameters(
    {'mm_projector_type': 'mlp2x_gelu'},
    # Of later weights; its tokens are row-major.
    {'mm_projector_type': 'mlp_downsample_2x2_fix'},
    {'mm_projector_type': None},
    {'model_type': 'llama'},
    {'downsample_rate': 3},
  )
  def test_rejects(self, **change):
    with self.assertRaises(errors.UserError) as caught:
      self._read(PROJECTOR_JSON | change)
    self.assertStartsWith(str(caught.exception), 'some/file.json: ')
    self.assertIn(*change, str(caught.exception))

  def test_missing(self):
    with self.assertRaisesRegex(errors.UserError, 'no mm_projector_type'):
      self._read({'model_type': 'v2l_projector'})
