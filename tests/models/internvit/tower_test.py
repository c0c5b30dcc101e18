"""The tower against transformers' InternVLVisionModel.

That has other names, three projections in place of one, and one fixed epsilon
for queries and keys; it computes the same.
"""

import functools
import tempfile

from absl.testing import parameterized
import jax
import jax.numpy as jnp
import numpy as np

from lift_jax import errors
from lift_jax.models.functional import functional
from lift_jax.models.internvit import convert, tower
from lift_jax.models.internvit.config import NORM_TYPES, InternViTConfig
from lift_jax.weights import param_paths, published_tensors, safetensors_files
from tests.optional import safetensors_torch, torch, transformers
from tests.torch_weights import scaled_error

SIZES = {
  'image_size': 30,
  'patch_size': 7,
  'width': 20,
  'num_layers': 3,
  'num_heads': 5,
  'mlp_width': 40,
  'norm_eps': 1e-2,  # large, so that a wrong one shows
}

# Published name: name in transformers.
NAMES = {
  'embeddings.class_embedding': 'embeddings.cls_token',
  'embeddings.patch_embedding': 'embeddings.patch_embeddings.projection',
  'embeddings.position_embedding': 'embeddings.position_embeddings',
  'encoder.layers': 'encoder.layer',
  'attn.proj': 'attention.projection_layer',
  'attn.q_norm': 'attention.q_norm',
  'attn.k_norm': 'attention.k_norm',
  'norm1': 'layernorm_before',
  'norm2': 'layernorm_after',
  'ls1': 'lambda_1',
  'ls2': 'lambda_2',
}


def _config(norm_type='rms_norm', feature_layer=-1):
  return InternViTConfig(
    **SIZES, norm_type=norm_type, feature_layer=feature_layer
  )


def _model(config, **options):
  return functional(lambda rngs: tower.Tower(config, rngs=rngs, **options))


@functools.cache
def _reference(norm_type):
  torch.manual_seed(0)
  reference = transformers.InternVLVisionModel(
    transformers.InternVLVisionConfig(
      hidden_size=SIZES['width'],
      num_hidden_layers=SIZES['num_layers'],
      num_attention_heads=SIZES['num_heads'],
      intermediate_size=SIZES['mlp_width'],
      image_size=SIZES['image_size'],
      patch_size=SIZES['patch_size'],
      layer_norm_eps=SIZES['norm_eps'],
      norm_type=norm_type,
      attention_bias=False,
      use_qk_norm=True,
      attn_implementation='eager',
    )
  ).eval()
  for layer in reference.encoder.layer:
    layer.attention.q_norm.variance_epsilon = SIZES['norm_eps']
    layer.attention.k_norm.variance_epsilon = SIZES['norm_eps']
  with torch.no_grad():
    for name, tensor in reference.named_parameters():
      # The usual initial values leave scales at one and biases at zero.
      if 'lambda' in name or ('norm' in name and name.endswith('weight')):
        tensor.uniform_(0.5, 1.5)
      elif tensor.ndim == 1 or 'embeddings' in name:
        tensor.normal_(0, 0.5)
      else:
        tensor.normal_(0, 1.5 * tensor.shape[1] ** -0.5)
  return reference


def _published(norm_type='rms_norm'):
  """The reference's weights under OpenGVLab's names."""
  tensors = {}
  state = dict(_reference(norm_type).state_dict())
  for layer in range(SIZES['num_layers']):
    parts = [
      state.pop(f'encoder.layer.{layer}.attention.{part}_proj.weight')
      for part in 'qkv'
    ]
    tensors[f'encoder.layers.{layer}.attn.qkv.weight'] = torch.cat(parts)
  for name, tensor in state.items():
    for published, theirs in NAMES.items():
      name = name.replace(theirs, published)
    tensors[name] = tensor
  return tensors


def _load(config, tensors):
  """Parameters through a file, the shipped table and its exceptions."""
  with tempfile.TemporaryDirectory() as folder:
    safetensors_torch.save_file(tensors, f'{folder}/model.safetensors')
    return published_tensors.load(
      convert.INTERNVIT_TABLE,
      _model(config).abstract_params,
      safetensors_files.open_tensors(folder, 'model'),
      ignored=convert.internvit_ignored(config),
    )


def _pixels(batch=2):
  shape = (batch, SIZES['image_size'], SIZES['image_size'], 3)
  return np.random.default_rng(0).normal(size=shape).astype(np.float32)


class ParityTest(parameterized.TestCase):
  @parameterized.product(norm_type=NORM_TYPES, feature_layer=(-1, -2))
  def test_hidden_states(self, norm_type, feature_layer):
    config = _config(norm_type, feature_layer)
    params = _load(config, _published(norm_type))
    pixels_bhw3 = _pixels()
    with torch.no_grad():
      expected = _reference(norm_type)(
        torch.tensor(pixels_bhw3.transpose(0, 3, 1, 2)),
        output_hidden_states=True,
      ).hidden_states
    self.assertLen(expected, SIZES['num_layers'] + 1)
    actual = jax.jit(_model(config))(params, pixels_bhw3)
    self.assertEqual(actual.shape, (2, 16, SIZES['width']))
    without_class = expected[feature_layer][:, 1:]
    # Observed 2e-7; the tanh form of GELU would be 7e-5.
    self.assertLess(scaled_error(actual, without_class), 5e-6)

  def test_bfloat16(self):
    params = _load(_config(), _published())
    expected = jax.jit(_model(_config()))(params, _pixels())
    half = _model(_config(), dtype=jnp.bfloat16)
    actual = jax.jit(half)(params, _pixels())
    self.assertEqual(actual.dtype, jnp.bfloat16)
    difference = actual.astype(jnp.float32) - expected
    # Eight bits of mantissa through three layers; observed 6e-3.
    self.assertLess(
      float(jnp.linalg.norm(difference) / jnp.linalg.norm(expected)), 3e-2
    )

  def test_gradients(self):
    params = _load(_config(), _published())
    model = _model(_config(), remat='full')
    gradients = jax.jit(
      jax.grad(lambda params, x: jnp.square(model(params, x)).mean())
    )(params, _pixels())
    for name, gradient in param_paths.flatten(gradients).items():
      self.assertTrue(np.isfinite(gradient).all(), name)
      self.assertGreater(float(jnp.abs(gradient).max()), 0, name)

  def test_only_frames_of_its_size(self):
    model = _model(_config())
    with self.assertRaisesRegex(ValueError, r'frames \[B, 30, 30, 3\]'):
      jax.eval_shape(model, model.abstract_params, jnp.zeros((1, 37, 37, 3)))


class ConvertTest(parameterized.TestCase):
  def test_layers_after_the_feature_are_told(self):
    last, earlier = _config(), _config(feature_layer=-2)
    self.assertEqual(convert.internvit_ignored(last), ())
    self.assertEqual(
      convert.internvit_ignored(earlier), (r'encoder\.layers\.2\..+',)
    )

  @parameterized.parameters(
    'encoder.layers.3.ls1', 'encoder.layers.0.attn.qkv.bias'
  )
  def test_strangers(self, name):
    for feature_layer in (-1, -2):
      with self.assertRaisesRegex(errors.UserError, f'unknown: {name}'):
        _load(
          _config(feature_layer=feature_layer),
          _published() | {name: torch.ones(3)},
        )


class NormaliseTest(parameterized.TestCase):
  def test_formula(self):
    frames = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), np.uint8)
    actual = jax.jit(tower.normalise)(frames)
    self.assertEqual(actual.dtype, jnp.float32)
    # Written out once more, as torchvision's Normalize has it in VILA.
    mean = np.array([0.485, 0.456, 0.406])
    std = np.array([0.229, 0.224, 0.225])
    np.testing.assert_allclose(actual, (frames / 255 - mean) / std, atol=2e-6)


class FullSizeTest(parameterized.TestCase):
  def test_full_size(self):
    config = InternViTConfig()
    model = _model(config)
    leaves = jax.tree.leaves(model.abstract_params)
    # Of the model card: 5540 M.
    self.assertEqual(sum(leaf.size for leaf in leaves), 5_536_496_000)
    self.assertEqual({leaf.dtype for leaf in leaves}, {np.dtype('float32')})
    output = jax.eval_shape(
      _model(config, dtype=jnp.bfloat16),
      model.abstract_params,
      jax.ShapeDtypeStruct((8, 448, 448, 3), jnp.float32),
    )
    self.assertEqual(output.shape, (8, 1024, 3200))
    self.assertEqual(output.dtype, jnp.bfloat16)
