"""Reading and writing the published config."""

import dataclasses

from absl.testing import parameterized
import pytest

from lift_jax.errors import UserError
from lift_jax.models.dino.config import DinoConfig
from tests.models.dino.tiny_dino import TINY
from tests.optional import transformers

# What facebook/dino-vitb16 states.
PUBLISHED = {
  'architectures': ['ViTModel'],
  'attention_probs_dropout_prob': 0.0,
  'hidden_act': 'gelu',
  'hidden_dropout_prob': 0.0,
  'hidden_size': 768,
  'image_size': 224,
  'initializer_range': 0.02,
  'intermediate_size': 3072,
  'layer_norm_eps': 1e-12,
  'model_type': 'vit',
  'num_attention_heads': 12,
  'num_channels': 3,
  'num_hidden_layers': 12,
  'patch_size': 16,
  'qkv_bias': True,
  'transformers_version': '4.11.0.dev0',
}


class ConfigTest(parameterized.TestCase):
  @pytest.mark.fast
  def test_published(self):
    self.assertEqual(DinoConfig.from_json(PUBLISHED), DinoConfig())

  @parameterized.parameters(DinoConfig(), TINY)
  def test_round_trip(self, config):
    self.assertEqual(DinoConfig.from_json(config.to_json()), config)
    theirs = transformers.ViTConfig(**config.to_json())
    self.assertEqual(DinoConfig.from_json(theirs.to_dict()), config)

  @pytest.mark.fast
  @parameterized.parameters(
    ({'model_type': 'dinov2'}, "^x: model_type='dinov2'"),
    ({'qkv_bias': False}, '^x: qkv_bias=False'),
    ({'hidden_size': None}, '^x: hidden_size=None'),
    ({'layerscale_value': 1.0}, r'^x: layerscale_value \(unknown\)'),
  )
  def test_refused(self, change, message):
    with self.assertRaisesRegex(UserError, message) as caught:
      DinoConfig.from_json(PUBLISHED | change, 'x')
    self.assertNotIn('\n', str(caught.exception))

  @pytest.mark.fast
  def test_every_size_differs_here(self):
    for field in dataclasses.fields(TINY):
      if field.name != 'feature_layer':
        self.assertNotEqual(getattr(TINY, field.name), field.default)
