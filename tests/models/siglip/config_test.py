"""Reading and writing the published config."""

import dataclasses

from absl.testing import parameterized
import transformers

from lift_jax import errors
from lift_jax.models.siglip import config as config_lib

# As it lies in folders of VILA-1.5.
PUBLISHED = {
  '_name_or_path': './vision_tower',
  'architectures': ['SiglipVisionModel'],
  'attention_dropout': 0.0,
  'hidden_act': 'gelu_pytorch_tanh',
  'hidden_size': 1152,
  'image_size': 384,
  'intermediate_size': 4304,
  'layer_norm_eps': 1e-06,
  'model_type': 'siglip_vision_model',
  'num_attention_heads': 16,
  'num_channels': 3,
  'num_hidden_layers': 27,
  'patch_size': 14,
  'torch_dtype': 'bfloat16',
  'transformers_version': '4.36.2',
}

OTHER = config_lib.SiglipConfig(
  image_size=30,
  patch_size=7,
  width=24,
  num_layers=5,
  num_heads=3,
  mlp_width=40,
  norm_eps=1e-3,
  feature_layer=-3,
)


def _read(values, **options):
  return config_lib.SiglipConfig.from_json(values, **options)


class ConfigTest(parameterized.TestCase):
  def test_published(self):
    config = _read(PUBLISHED)
    self.assertEqual(config, config_lib.SiglipConfig())
    self.assertEqual(config.num_patches, 27 * 27)
    self.assertEqual(config.num_run_layers, 26)

  def test_last_layer(self):
    self.assertEqual(_read(PUBLISHED, feature_layer=-1).num_run_layers, 27)

  def test_whole_model(self):
    """google/siglip-so400m-patch14-384, which omits most keys."""
    names = (
      'hidden_size',
      'image_size',
      'intermediate_size',
      'model_type',
      'num_attention_heads',
      'num_hidden_layers',
      'patch_size',
    )
    values = {
      'model_type': 'siglip',
      'text_config': {'model_type': 'siglip_text_model'},
      'vision_config': {name: PUBLISHED[name] for name in names},
    }
    self.assertEqual(_read(values), config_lib.SiglipConfig())

  def test_whole_model_of_transformers(self):
    vision = transformers.SiglipVisionConfig(**OTHER.to_json())
    values = transformers.SiglipConfig(
      text_config=transformers.SiglipTextConfig(), vision_config=vision
    ).to_dict()
    self.assertEqual(_read(values, feature_layer=-3), OTHER)

  def test_whole_model_without_the_tower(self):
    with self.assertRaisesRegex(errors.UserError, '^vision_config of x: no '):
      _read({'model_type': 'siglip'}, source='x')

  def test_every_field_differs_here(self):
    for field in dataclasses.fields(OTHER):
      self.assertNotEqual(getattr(OTHER, field.name), field.default)

  def test_round_trip(self):
    self.assertEqual(_read(OTHER.to_json(), feature_layer=-3), OTHER)

  def test_round_trip_through_transformers(self):
    values = transformers.SiglipVisionConfig(**OTHER.to_json()).to_dict()
    self.assertEqual(_read(values, feature_layer=-3), OTHER)

  @parameterized.parameters(
    ('model_type', 'clip_vision_model'),
    ('hidden_act', 'gelu'),
    ('attention_dropout', 0.1),
    ('num_channels', 1),
    ('quantization_config', {'load_in_8bit': True}),
    ('num_hidden_layers', 0),
    ('hidden_size', 1152.0),
    ('image_size', True),
    ('image_size', [384, 384]),
    ('image_size', 13),
    ('layer_norm_eps', -1e-6),
    ('num_attention_heads', 7),
  )
  def test_rejects(self, key, value):
    with self.assertRaises(errors.UserError) as caught:
      _read(PUBLISHED | {key: value}, source='some/file.json')
    message = str(caught.exception)
    self.assertStartsWith(message, 'some/file.json: ')
    self.assertIn(key, message)
    self.assertNotIn('\n', message)

  @parameterized.parameters('hidden_size', 'image_size')
  def test_missing(self, key):
    values = {name: PUBLISHED[name] for name in PUBLISHED.keys() - {key}}
    with self.assertRaisesRegex(errors.UserError, f'no {key}'):
      _read(values)

  @parameterized.parameters(0, 1, -28)
  def test_no_such_layer(self, feature_layer):
    with self.assertRaisesRegex(
      errors.UserError, f'mm_vision_select_layer {feature_layer} .* -27 to -1'
    ):
      _read(PUBLISHED, feature_layer=feature_layer)
