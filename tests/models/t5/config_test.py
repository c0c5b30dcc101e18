"""Reading and writing the published config."""

from absl.testing import parameterized

from lift_jax import errors
from lift_jax.models.t5 import config as config_lib

# text_encoder/config.json of CogVideoX-2B.
PUBLISHED = {
  '_name_or_path': 'google/t5-v1_1-xxl',
  'architectures': ['T5EncoderModel'],
  'classifier_dropout': 0.0,
  'd_ff': 10240,
  'd_kv': 64,
  'd_model': 4096,
  'decoder_start_token_id': 0,
  'dense_act_fn': 'gelu_new',
  'dropout_rate': 0.1,
  'eos_token_id': 1,
  'feed_forward_proj': 'gated-gelu',
  'initializer_factor': 1.0,
  'is_encoder_decoder': True,
  'is_gated_act': True,
  'layer_norm_epsilon': 1e-06,
  'model_type': 't5',
  'num_decoder_layers': 24,
  'num_heads': 64,
  'num_layers': 24,
  'output_past': True,
  'pad_token_id': 0,
  'relative_attention_max_distance': 128,
  'relative_attention_num_buckets': 32,
  'tie_word_embeddings': False,
  'torch_dtype': 'float16',
  'transformers_version': '4.41.2',
  'use_cache': True,
  'vocab_size': 32128,
}


class ConfigTest(parameterized.TestCase):
  def test_published(self):
    self.assertEqual(
      config_lib.T5Config.from_json(PUBLISHED), config_lib.T5Config()
    )

  def test_round_trip(self):
    config = config_lib.T5Config(
      vocab_size=11,
      d_model=12,
      d_kv=5,
      d_ff=14,
      num_layers=3,
      num_heads=2,
      relative_attention_num_buckets=8,
      relative_attention_max_distance=20,
      layer_norm_epsilon=1e-3,
    )
    self.assertEqual(config_lib.T5Config.from_json(config.to_json()), config)

  def test_early_files_have_no_distance(self):
    values = dict(PUBLISHED)
    del values['relative_attention_max_distance']
    self.assertEqual(
      config_lib.T5Config.from_json(values), config_lib.T5Config()
    )

  @parameterized.parameters(
    ('feed_forward_proj', 'relu'),
    ('feed_forward_proj', 'gated-silu'),
    ('dense_act_fn', 'relu'),
    ('is_gated_act', False),
    ('is_decoder', True),
    ('model_type', 'umt5'),
    ('num_heads', '64'),
    ('num_layers', 0),
    ('d_model', 4096.0),
    ('d_kv', True),
    ('layer_norm_epsilon', -1e-6),
    ('relative_attention_num_buckets', 30),
    ('relative_attention_max_distance', 8),
    ('quantization_config', {'load_in_8bit': True}),
  )
  def test_rejects(self, key, value):
    with self.assertRaises(errors.UserError) as caught:
      config_lib.T5Config.from_json(PUBLISHED | {key: value}, 'some/file.json')
    message = str(caught.exception)
    self.assertStartsWith(message, 'some/file.json: ')
    self.assertIn(key.split('_')[-1], message)
    self.assertNotIn('\n', message)

  @parameterized.parameters('d_ff', 'vocab_size', 'feed_forward_proj')
  def test_missing(self, key):
    values = dict(PUBLISHED)
    del values[key]
    with self.assertRaisesRegex(errors.UserError, key):
      config_lib.T5Config.from_json(values)
