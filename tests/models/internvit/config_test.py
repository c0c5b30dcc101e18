"""Reading and writing the published config."""

import dataclasses

from absl.testing import parameterized

from lift_jax import errors
from lift_jax.models.internvit import config as config_lib

# OpenGVLab/InternViT-6B-448px-V1-2.
PUBLISHED = {
  'architectures': ['InternVisionModel'],
  'attention_dropout': 0.0,
  'auto_map': {'AutoModel': 'modeling_intern_vit.InternVisionModel'},
  'drop_path_rate': 0.0,
  'dropout': 0.0,
  'hidden_act': 'gelu',
  'hidden_size': 3200,
  'image_size': 448,
  'initializer_factor': 0.1,
  'initializer_range': 1e-10,
  'intermediate_size': 12800,
  'layer_norm_eps': 1e-06,
  'model_type': 'intern_vit_6b',
  'num_attention_heads': 25,
  'num_channels': 3,
  'num_hidden_layers': 45,
  'patch_size': 14,
  'qk_normalization': True,
  'qkv_bias': False,
  'torch_dtype': 'bfloat16',
  'transformers_version': '4.37.2',
  'use_flash_attn': True,
}

OTHER = config_lib.InternViTConfig(
  image_size=30,
  patch_size=7,
  width=24,
  num_layers=5,
  num_heads=3,
  mlp_width=40,
  norm_eps=1e-3,
  feature_layer=-3,
  norm_type='layer_norm',
)


def _read(values, **options):
  return config_lib.InternViTConfig.from_json(values, **options)


class ConfigTest(parameterized.TestCase):
  def test_published(self):
    config = _read(PUBLISHED)
    self.assertEqual(config, config_lib.InternViTConfig())
    self.assertEqual(config.num_patches, 32 * 32)
    self.assertEqual(config.num_run_layers, 45)

  def test_last_but_one_layer(self):
    self.assertEqual(_read(PUBLISHED, feature_layer=-2).num_run_layers, 44)

  def test_norm_type(self):
    config = _read(PUBLISHED | {'norm_type': 'layer_norm'})
    self.assertEqual(config.norm_type, 'layer_norm')

  def test_every_field_differs_here(self):
    for field in dataclasses.fields(OTHER):
      self.assertNotEqual(getattr(OTHER, field.name), field.default)

  def test_round_trip(self):
    self.assertEqual(_read(OTHER.to_json(), feature_layer=-3), OTHER)

  @parameterized.parameters(
    ('model_type', 'siglip_vision_model'),
    ('hidden_act', 'gelu_new'),
    ('qkv_bias', True),
    ('qk_normalization', False),
    ('dropout', 0.1),
    ('norm_type', 'batch_norm'),
    ('norm_type', None),
    ('select_layer', -1),
    ('num_hidden_layers', 0),
    ('layer_norm_eps', '1e-6'),
    ('num_attention_heads', 24),
  )
  def test_rejects(self, key, value):
    with self.assertRaises(errors.UserError) as caught:
      _read(PUBLISHED | {key: value}, source='some/file.json')
    message = str(caught.exception)
    self.assertStartsWith(message, 'some/file.json: ')
    self.assertIn(key, message)
    self.assertNotIn('\n', message)

  def test_missing(self):
    values = {name: PUBLISHED[name] for name in PUBLISHED.keys() - {'dropout'}}
    self.assertEqual(_read(values), config_lib.InternViTConfig())
    del values['image_size']
    with self.assertRaisesRegex(errors.UserError, 'no image_size'):
      _read(values)
