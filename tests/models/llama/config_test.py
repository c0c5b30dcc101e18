"""Reading and writing the published config."""

import dataclasses

from absl.testing import parameterized
import transformers

from lift_jax import errors
from lift_jax.models.llama import config as config_lib

# A Vicuna of transformers 4.36, as it lies in folders of VILA-1.5.
PUBLISHED = {
  '_name_or_path': './llm',
  'architectures': ['LlamaForCausalLM'],
  'attention_bias': False,
  'attention_dropout': 0.0,
  'bos_token_id': 1,
  'eos_token_id': 2,
  'hidden_act': 'silu',
  'hidden_size': 5120,
  'initializer_range': 0.02,
  'intermediate_size': 13824,
  'max_length': 4096,
  'max_position_embeddings': 4096,
  'model_max_length': 4096,
  'model_type': 'llama',
  'num_attention_heads': 40,
  'num_hidden_layers': 40,
  'num_key_value_heads': 40,
  'pad_token_id': 0,
  'pretraining_tp': 1,
  'rms_norm_eps': 1e-05,
  'rope_scaling': None,
  'rope_theta': 10000.0,
  'tie_word_embeddings': False,
  'tokenizer_model_max_length': 4096,
  'tokenizer_padding_side': 'right',
  'torch_dtype': 'bfloat16',
  'transformers_version': '4.36.2',
  'use_cache': True,
  'vocab_size': 32000,
}

OTHER = config_lib.LlamaConfig(
  vocab_size=11,
  width=12,
  num_layers=3,
  num_heads=4,
  num_kv_heads=2,
  head_dim=6,
  mlp_width=14,
  rope_theta=77.0,
  norm_eps=1e-3,
  max_length=15,
)


def _without(*keys):
  return {key: PUBLISHED[key] for key in PUBLISHED.keys() - set(keys)}


class ConfigTest(parameterized.TestCase):
  def test_published(self):
    self.assertEqual(
      config_lib.LlamaConfig.from_json(PUBLISHED), config_lib.VILA_13B
    )

  def test_shared_key_heads(self):
    values = PUBLISHED | {
      'hidden_size': 7168,
      'intermediate_size': 20480,
      'num_attention_heads': 56,
      'num_hidden_layers': 60,
      'num_key_value_heads': 8,
      'rope_theta': 5000000,
      'vocab_size': 64000,
    }
    self.assertEqual(
      config_lib.LlamaConfig.from_json(values), config_lib.VILA_40B
    )

  def test_every_field_differs_here(self):
    for field in dataclasses.fields(OTHER):
      self.assertNotEqual(getattr(OTHER, field.name), field.default)

  def test_round_trip(self):
    values = OTHER.to_json()
    self.assertEqual(config_lib.LlamaConfig.from_json(values), OTHER)

  def test_round_trip_through_transformers(self):
    """It writes the form of version 5, with `rope_parameters`."""
    values = transformers.LlamaConfig(**OTHER.to_json()).to_dict()
    self.assertIn('rope_parameters', values)
    self.assertNotIn('rope_theta', values)
    self.assertEqual(config_lib.LlamaConfig.from_json(values), OTHER)

  @parameterized.parameters(
    ({},),
    ({'rope_parameters': {'rope_theta': 10000.0, 'rope_type': 'default'}},),
    ({'rope_scaling': {'type': 'default'}},),
    ({'rope_theta': 10000, 'rope_parameters': {'rope_theta': 10000.0}},),
    ({'head_dim': 128},),
    ({'head_dim': None, 'num_key_value_heads': None},),
  )
  def test_forms_of_other_versions(self, more):
    values = _without(
      'rope_theta',
      'rope_scaling',
      'num_key_value_heads',
      'attention_bias',
      'attention_dropout',
    )
    self.assertEqual(
      config_lib.LlamaConfig.from_json(values | more), config_lib.VILA_13B
    )

  @parameterized.parameters(
    ('attention_bias', True),
    ('attention_dropout', 0.1),
    ('mlp_bias', True),
    ('hidden_act', 'gelu'),
    ('tie_word_embeddings', True),
    ('model_type', 'mistral'),
    ('sliding_window', 4096),
    ('quantization_config', {'load_in_8bit': True}),
    ('rope_scaling', {'type': 'linear', 'factor': 2.0}),
    ('rope_scaling', {'rope_type': 'llama3', 'factor': 8.0}),
    ('rope_scaling', 2.0),
    ('rope_parameters', {'rope_theta': 1e4, 'partial_rotary_factor': 0.5}),
    ('rope_parameters', {'rope_theta': 5e6}),
    ('rope_theta', '10000'),
    ('num_hidden_layers', 0),
    ('hidden_size', 5120.0),
    ('vocab_size', True),
    ('rms_norm_eps', -1e-6),
    ('num_key_value_heads', 7),
    ('head_dim', 127),
    ('num_attention_heads', 48),
  )
  def test_rejects(self, key, value):
    with self.assertRaises(errors.UserError) as caught:
      config_lib.LlamaConfig.from_json(
        PUBLISHED | {key: value}, 'some/file.json'
      )
    message = str(caught.exception)
    self.assertStartsWith(message, 'some/file.json: ')
    self.assertIn(key.split('_')[-1], message)
    self.assertNotIn('\n', message)

  @parameterized.parameters(
    'hidden_size', 'rms_norm_eps', 'max_position_embeddings'
  )
  def test_missing(self, key):
    with self.assertRaisesRegex(errors.UserError, f'no {key}'):
      config_lib.LlamaConfig.from_json(_without(key))
