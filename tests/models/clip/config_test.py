"""Reading and writing the published config."""

import dataclasses

from absl.testing import parameterized
import pytest

from lift_jax.errors import UserError
from lift_jax.models.clip.config import L14, ClipConfig, ClipVisionConfig
from tests.models.clip.tiny_clip import TINY
from tests.optional import transformers

# What openai/clip-vit-large-patch14 states beside keys of any model: the sizes
# twice, and dropout, which later versions do not have.
PUBLISHED = {
  'architectures': ['CLIPModel'],
  'initializer_factor': 1.0,
  'logit_scale_init_value': 2.6592,
  'model_type': 'clip',
  'projection_dim': 768,
  'text_config': {
    'attention_dropout': 0.0,
    'bos_token_id': 0,
    'dropout': 0.0,
    'eos_token_id': 2,
    'hidden_act': 'quick_gelu',
    'hidden_size': 768,
    'intermediate_size': 3072,
    'layer_norm_eps': 1e-05,
    'max_position_embeddings': 77,
    'model_type': 'clip_text_model',
    'num_attention_heads': 12,
    'num_hidden_layers': 12,
    'pad_token_id': 1,
    'projection_dim': 768,
    'top_k': 50,
    'vocab_size': 49408,
  },
  'text_config_dict': {
    'hidden_size': 768,
    'intermediate_size': 3072,
    'num_attention_heads': 12,
    'num_hidden_layers': 12,
    'projection_dim': 768,
  },
  'torch_dtype': 'float32',
  'vision_config': {
    'attention_dropout': 0.0,
    'dropout': 0.0,
    'hidden_act': 'quick_gelu',
    'hidden_size': 1024,
    'image_size': 224,
    'intermediate_size': 4096,
    'layer_norm_eps': 1e-05,
    'model_type': 'clip_vision_model',
    'num_attention_heads': 16,
    'num_channels': 3,
    'num_hidden_layers': 24,
    'patch_size': 14,
    'projection_dim': 768,
  },
  'vision_config_dict': None,
}


class ConfigTest(parameterized.TestCase):
  @pytest.mark.fast
  def test_published(self):
    self.assertEqual(ClipConfig.from_json(PUBLISHED), L14)

  @pytest.mark.fast
  def test_sizes_that_differ(self):
    """transformers takes those of the second section."""
    values = PUBLISHED | {'vision_config_dict': {'patch_size': 16}}
    self.assertEqual(ClipConfig.from_json(values).vision.patch_size, 16)

  @parameterized.parameters(ClipConfig(), L14, TINY)
  def test_round_trip(self, config):
    self.assertEqual(ClipConfig.from_json(config.to_json()), config)
    # As transformers reads it and writes it again.
    theirs = transformers.CLIPConfig(**config.to_json())
    self.assertEqual(ClipConfig.from_json(theirs.to_dict()), config)
    self.assertEqual(ClipConfig.from_json(theirs.to_diff_dict()), config)

  @pytest.mark.fast
  @parameterized.parameters(
    ({'model_type': 'siglip'}, "^x: model_type='siglip'"),
    ({'projection_dim': 0}, '^x: projection_dim=0'),
    ({'heads': 1}, r'^x: heads \(unknown\)'),
    ({'text_config': 3}, '^x: text_config is not an object'),
    ({'vision_config': {'hidden_act': 'gelu'}}, '^vision_config of x: hidden_'),
    ({'text_config': {'hidden_size': 9}, 'text_config_dict': None},
     '^text_config of x: hidden_size 9 .*divisible'),
  )  # fmt: skip
  def test_refused(self, change, message):
    with self.assertRaisesRegex(UserError, message) as caught:
      ClipConfig.from_json(PUBLISHED | change, 'x')
    self.assertNotIn('\n', str(caught.exception))

  @pytest.mark.fast
  def test_model_type_must_be_stated(self):
    with self.assertRaisesRegex(UserError, 'no model_type; use the config of'):
      ClipConfig.from_json({})

  @pytest.mark.fast
  def test_every_size_differs_here(self):
    for name in ('vision', 'text'):
      part, default = getattr(TINY, name), getattr(ClipConfig(), name)
      for field in dataclasses.fields(part):
        if field.name != 'feature_layer':
          self.assertNotEqual(
            getattr(part, field.name), getattr(default, field.name)
          )
    self.assertEqual(ClipVisionConfig().num_run_layers, 12)
