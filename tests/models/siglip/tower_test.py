"""The tower against transformers' SiglipVisionModel."""

import functools
import tempfile

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from lift_jax import errors
from lift_jax.models.functional import functional
from lift_jax.models.siglip import convert, tower
from lift_jax.models.siglip.config import SiglipConfig
from lift_jax.weights import param_paths, published_tensors, safetensors_files
from tests.optional import safetensors_torch, torch, transformers
from tests.torch_weights import scaled_error

# A rest of 2 pixels at the edges, a width that heads do not suggest, and a
# large epsilon, so that a wrong one shows.
TINY = SiglipConfig(
  image_size=30,
  patch_size=7,
  width=24,
  num_layers=4,
  num_heads=3,
  mlp_width=40,
  norm_eps=1e-2,
)


def _model(config=TINY, **options):
  return functional(lambda rngs: tower.Tower(config, rngs=rngs, **options))


@functools.cache
def _reference():
  torch.manual_seed(0)
  reference = transformers.SiglipVisionModel(
    transformers.SiglipVisionConfig(
      **TINY.to_json(), attn_implementation='eager'
    )
  ).eval()
  with torch.no_grad():
    for name, tensor in reference.named_parameters():
      # The usual initial values leave scales at one and biases at zero.
      if 'norm' in name and name.endswith('weight'):
        tensor.uniform_(0.5, 1.5)
      elif tensor.ndim == 1:
        tensor.normal_(0, 0.5)
      else:
        fan_in = tensor[0].numel()
        tensor.normal_(0, 1.5 * fan_in**-0.5)
  return reference


def _published():
  """{name: tensor} as in published files: version 5 drops the prefix."""
  return {
    f'vision_model.{name}': tensor
    for name, tensor in _reference().state_dict().items()
  }


@functools.cache
def _params(feature_layer):
  config = SiglipConfig(**_without_layer(TINY), feature_layer=feature_layer)
  return _load(config, _published()), _model(config)


def _without_layer(config):
  return {
    name: value
    for name, value in vars(config).items()
    if name != 'feature_layer'
  }


def _load(config, tensors, ignored=None):
  """Parameters through a file, the shipped table and its exceptions."""
  with tempfile.TemporaryDirectory() as folder:
    safetensors_torch.save_file(tensors, f'{folder}/model.safetensors')
    return published_tensors.load(
      convert.SIGLIP_TABLE,
      _model(config).abstract_params,
      safetensors_files.open_tensors(folder, 'model'),
      ignored=convert.siglip_ignored(config) if ignored is None else ignored,
    )


def _pixels(batch=2):
  shape = (batch, TINY.image_size, TINY.image_size, 3)
  return np.random.default_rng(0).normal(size=shape).astype(np.float32)


class ParityTest(parameterized.TestCase):
  @parameterized.parameters(-2, -1, -4)
  def test_hidden_states(self, feature_layer):
    params, model = _params(feature_layer)
    pixels_bhw3 = _pixels()
    with torch.no_grad():
      expected = _reference()(
        torch.tensor(pixels_bhw3.transpose(0, 3, 1, 2)),
        output_hidden_states=True,
      ).hidden_states
    self.assertLen(expected, TINY.num_layers + 1)
    actual = jax.jit(model)(params, pixels_bhw3)
    self.assertEqual(actual.shape, (2, 16, TINY.width))
    # Observed 4e-7; the exact form of GELU would be 1e-4, another layer 0.4.
    self.assertLess(scaled_error(actual, expected[feature_layer]), 5e-6)

  def test_bfloat16(self):
    params, model = _params(-2)
    expected = jax.jit(model)(params, _pixels())
    half = _model(dtype=jnp.bfloat16)
    actual = jax.jit(half)(params, _pixels())
    self.assertEqual(actual.dtype, jnp.bfloat16)
    difference = actual.astype(jnp.float32) - expected
    # Eight bits of mantissa through three layers; observed 7e-3.
    self.assertLess(
      float(jnp.linalg.norm(difference) / jnp.linalg.norm(expected)), 3e-2
    )

  def test_gradients(self):
    """They are finite, and the same for every remat policy."""
    params, _ = _params(-2)

    def gradients(remat):
      model = _model(remat=remat)
      return jax.jit(
        jax.grad(lambda params, x: jnp.square(model(params, x)).mean())
      )(params, _pixels())

    plain = gradients('none')
    for name, gradient in param_paths.flatten(plain).items():
      self.assertTrue(np.isfinite(gradient).all(), name)
      self.assertGreater(float(jnp.abs(gradient).max()), 0, name)
    for remat in ('full', 'save_attention'):
      for ours, theirs in zip(
        jax.tree.leaves(gradients(remat)), jax.tree.leaves(plain), strict=True
      ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-6)

  def test_only_frames_of_its_size(self):
    params, model = _params(-2)
    with self.assertRaisesRegex(ValueError, r'frames \[B, 30, 30, 3\]'):
      model(params, jnp.zeros((1, 30, 37, 3)))


class ConvertTest(parameterized.TestCase):
  def test_no_part_is_ignored_unless_told(self):
    # A layer of 16 tensors, a norm of 2, a head of 11.
    with self.assertRaisesRegex(
      errors.UserError, '29 unknown: vision_model.encoder.layers.3.'
    ):
      _load(TINY, _published(), ignored=())

  def test_weights_of_a_whole_model(self):
    text = {
      'text_model.final_layer_norm.weight': torch.ones(3),
      'logit_scale': torch.ones(1),
      'logit_bias': torch.ones(1),
    }
    params, _ = _params(-2)
    jax.tree.map(
      np.testing.assert_array_equal, _load(TINY, _published() | text), params
    )

  @parameterized.parameters(
    'vision_model.encoder.layers.4.layer_norm1.weight',
    'vision_model.embeddings.class_embedding',
    'vision_model.pre_layernorm.weight',
    'vision_model.header',
  )
  def test_strangers(self, name):
    with self.assertRaisesRegex(errors.UserError, f'unknown: {name}'):
      _load(TINY, _published() | {name: torch.ones(3)})

  def test_a_layer_is_missing(self):
    """The feature of a shorter tower would be one layer early."""
    tensors = {
      name: tensor
      for name, tensor in _published().items()
      if '.layers.2.' not in name
    }
    with self.assertRaisesRegex(errors.UserError, 'missing: .*layers.2.'):
      _load(TINY, tensors)


class NormaliseTest(parameterized.TestCase):
  @parameterized.parameters(((4, 5, 3),), ((2, 4, 5, 3),), ((2, 2, 4, 5, 3),))
  def test_processor(self, shape):
    frames = np.random.default_rng(0).integers(0, 256, shape).astype(np.uint8)
    actual = jax.jit(tower.normalise)(frames)
    self.assertEqual(actual.dtype, jnp.float32)
    np.testing.assert_allclose(actual, frames / 127.5 - 1, atol=1e-6)


class FullSizeTest(parameterized.TestCase):
  def test_full_size(self):
    config = SiglipConfig()
    model = _model(config)
    leaves = jax.tree.leaves(model.abstract_params)
    width, mlp = config.width, config.mlp_width
    norm, feed = 2 * width, 2 * width * mlp + width + mlp
    layer = 2 * norm + 4 * (width**2 + width) + feed
    # A query for all, attention, a norm and a feed-forward layer.
    head = width + 4 * (width**2 + width) + norm + feed
    published = 428_225_600
    self.assertEqual(
      sum(leaf.size for leaf in leaves), published - layer - norm - head
    )
    self.assertEqual({leaf.dtype for leaf in leaves}, {np.dtype('float32')})
    output = jax.eval_shape(
      _model(config, dtype=jnp.bfloat16),
      model.abstract_params,
      jax.ShapeDtypeStruct((8, 384, 384, 3), jnp.float32),
    )
    self.assertEqual(output.shape, (8, 729, 1152))
    self.assertEqual(output.dtype, jnp.bfloat16)
