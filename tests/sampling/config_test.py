"""Settings that no job can be done with are refused by name."""

import math

from absl.testing import parameterized

from lift_jax.errors import UserError
from lift_jax.sampling import config as config_lib

GOOD = {
  config_lib.SamplingPromptsConfig: {
    'file': 'prompts.txt',
    'text_key': '',
    'name_key': '',
    'negative': '',
    'videos_per_prompt': 1,
    'seed': 0,
    'same_name': 'error',
    'initial_noise': '',
  },
  config_lib.SamplingRunConfig: {
    'batch_per_shard': 1,
    'batches_per_round': 1,
    'offload': True,
    'num_writers': 1,
  },
  config_lib.OutputConfig: {
    'name': '{id}',
    'fps': 8.0,
    'crf': 18,
    'keep_latents': False,
    'sheet_clips': 0,
  },
}


class ConfigTest(parameterized.TestCase):
  @parameterized.parameters(
    (config_lib.SamplingPromptsConfig, 'videos_per_prompt', 5),
    (config_lib.SamplingPromptsConfig, 'same_name', 'first'),
    (config_lib.SamplingPromptsConfig, 'seed', -1),
    (config_lib.OutputConfig, 'fps', 1),
    (config_lib.OutputConfig, 'fps', 29.97),
    (config_lib.OutputConfig, 'fps', 1000.0),
    (config_lib.OutputConfig, 'crf', 0),
    (config_lib.OutputConfig, 'crf', 51),
  )
  def test_good(self, section, field, value):
    section(**GOOD[section] | {field: value})

  @parameterized.parameters(
    (config_lib.SamplingPromptsConfig, 'file', ''),
    (config_lib.SamplingPromptsConfig, 'videos_per_prompt', 0),
    (config_lib.SamplingPromptsConfig, 'same_name', 'last'),
    (config_lib.SamplingRunConfig, 'batch_per_shard', 0),
    (config_lib.SamplingRunConfig, 'batches_per_round', -1),
    (config_lib.SamplingRunConfig, 'num_writers', 0),
    (config_lib.OutputConfig, 'fps', 0.0),
    (config_lib.OutputConfig, 'fps', 0.1),
    (config_lib.OutputConfig, 'fps', 1001),
    (config_lib.OutputConfig, 'fps', math.nan),
    (config_lib.OutputConfig, 'fps', math.inf),
    (config_lib.OutputConfig, 'crf', -1),
    (config_lib.OutputConfig, 'crf', 52),
    (config_lib.OutputConfig, 'sheet_clips', -1),
  )
  def test_bad(self, section, field, value):
    name = section.__name__.removeprefix('Sampling').removesuffix('Config')
    name = name.lower()
    with self.assertRaisesRegex(UserError, f'{name}.{field} ') as caught:
      section(**GOOD[section] | {field: value})
    self.assertLen(str(caught.exception).splitlines(), 1)
