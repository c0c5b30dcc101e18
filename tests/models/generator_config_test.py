"""Models that jobs open: from a path, or a random one."""

import dataclasses
import json
from types import SimpleNamespace
from unittest import mock

from absl.testing import parameterized
import pytest

from lift_jax.diffusion.schedule import ScheduleConfig
from lift_jax.errors import UserError
from lift_jax.models import generator_config, generator_folder, generators
from lift_jax.models.cogvideox.config import TransformerConfig
from lift_jax.models.cogvideox.model import CogVideoX, CogVideoXSizes
from lift_jax.models.cogvideox.vae_config import VAEConfig
from lift_jax.models.generator_config import declare_chosen
from lift_jax.models.t5.config import T5Config
from tests.models.tiny_family import Tiny, registered  # noqa: F401

RANDOM = CogVideoXSizes(
  family='cogvideox',
  transformer=TransformerConfig(num_layers=2),
  vae=VAEConfig(),
  text_encoder=T5Config(),
  schedule=ScheduleConfig(),
  seed=7,
)
CONFIG = generator_config.ModelConfig(
  path='',
  adapter='',
  random=RANDOM,
  compute_dtype='float32',
  attention='xla',
)


def open_again(tmp_path, wanted):
  """Opens a workdir whose model was made by `CONFIG`, under another config."""
  made = tmp_path / 'model'
  index = {
    '_class_name': 'CogVideoXPipeline',
    'scheduler': ['diffusers', 'CogVideoXDDIMScheduler'],
    generator_folder.RANDOM_SEED: RANDOM.seed,
  }
  model = CogVideoX(
    made,
    index,
    RANDOM.transformer,
    RANDOM.vae,
    RANDOM.text_encoder,
    RANDOM.schedule,
  )
  generator_folder.write_configs(model, made)
  # Configs are enough: no weights are made.
  with mock.patch.object(
    generator_folder, 'save_network', side_effect=AssertionError
  ):
    return generator_config.open_chosen(
      dataclasses.replace(CONFIG, random=wanted), tmp_path
    )


def test_the_same_model_is_opened_again(tmp_path):
  assert open_again(tmp_path, RANDOM).transformer == RANDOM.transformer


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'seed': 8}, 'model.random.seed = 7, which is now 8'),
    (
      {'transformer': TransformerConfig(num_layers=3)},
      'model.random.transformer.num_layers = 2, which is now 3',
    ),
    (
      {'schedule': ScheduleConfig(snr_shift_scale=1.0)},
      'model.random.schedule.snr_shift_scale = 3.0, which is now 1.0',
    ),
  ],
)
def test_another_random_model_is_refused(tmp_path, changes, message):
  with pytest.raises(UserError, match=message):
    open_again(tmp_path, dataclasses.replace(RANDOM, **changes))


def test_a_random_model_of_another_family(tmp_path):
  with pytest.raises(UserError, match="family = 'cogvideox', .* now 'tiny'"):
    open_again(tmp_path, Tiny.published['Tiny-1k'])


def test_no_model(tmp_path):
  with pytest.raises(UserError, match='model.path is empty'):
    generator_config.open_chosen(
      dataclasses.replace(CONFIG, random=None), tmp_path
    )


def test_a_model_of_another_kind(tmp_path):
  index = tmp_path / 'model_index.json'
  index.write_text(json.dumps({'_class_name': 'WanPipeline'}))
  with pytest.raises(UserError, match="'WanPipeline'; give .* CogVideoX"):
    generator_config.open_chosen(
      dataclasses.replace(CONFIG, path=str(tmp_path)), tmp_path
    )


@pytest.mark.parametrize(
  'change',
  [{'compute_dtype': 'float16'}, {'attention': 'flash'}],
)
def test_unknown_choices(change):
  (name,) = change
  with pytest.raises(UserError, match=f'model.{name} is'):
    dataclasses.replace(CONFIG, **change)


def _config(**settings):
  known = {'path': '', 'adapter': '', 'random': None, 'published': ''}
  return SimpleNamespace(**(known | settings))


class DeclareChosenTest(parameterized.TestCase):
  @parameterized.parameters(('CogVideoX-2b', 30, 30), ('CogVideoX-5b', 42, 48))
  def test_published_models(self, name, num_layers, num_heads):
    model = declare_chosen(_config(published=name))
    self.assertEqual(model.transformer.num_layers, num_layers)
    self.assertEqual(model.transformer.num_heads, num_heads)

  def test_random(self):
    """It takes precedence over `published`."""
    known = generators.published_sizes()['CogVideoX-5b']
    model = declare_chosen(_config(random=known, published='CogVideoX-2b'))
    self.assertEqual(model.transformer, known.transformer)

  def test_unknown(self):
    for name in ('', 'CogVideoX-9b'):
      with self.assertRaisesRegex(UserError, f'model.published is {name!r}'):
        declare_chosen(_config(published=name))
