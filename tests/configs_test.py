"""Every config file is one that its job takes, whole and shrunk."""

import re

from absl.testing import parameterized
import numpy as np
import pytest

from lift_jax import config_lib
from lift_jax.cli import job_flags
from lift_jax.data import critic_units
from lift_jax.data.hra import read_hra
from lift_jax.errors import UserError
from lift_jax.jobs import demo_config
from lift_jax.jobs.align_config import AlignConfig
from lift_jax.jobs.annotate import AnnotateConfig
from lift_jax.jobs.compare_config import CompareConfig
from lift_jax.jobs.evaluate import EvaluateConfig
from lift_jax.jobs.rounds_config import RoundsConfig
from lift_jax.jobs.sample import SampleConfig
from lift_jax.jobs.score import ScoreConfig
from lift_jax.jobs.train_critic import TrainCriticConfig
from lift_jax.toyworld import weights
from tests import published
from tests.data.critic_units_test import example
from tests.jobs import jobs

pytestmark = pytest.mark.fast

FOLDER = jobs.REPOSITORY / 'configs'
CLASSES = {
  'align_': AlignConfig,
  'annotate': AnnotateConfig,
  'compare': CompareConfig,
  'critic_': TrainCriticConfig,
  'eval_': EvaluateConfig,
  'rounds_': RoundsConfig,
  'sample': SampleConfig,
  'score': ScoreConfig,
}
TAKES_TIME = (
  'batch_size', 'height', 'max_frames', 'num_frames', 'num_steps', 'steps',
  'width',
)  # fmt: skip
NAMES = sorted(path.stem for path in FOLDER.glob('*.py'))


def load(name):
  return config_lib.load_module(FOLDER / f'{name}.py')


def difference(name, other, variant=None) -> dict:
  """Fields of one config that another has not, or has with another value."""
  fields, others = (
    flattened(load(config).get_config(variant).to_dict())
    for config in (name, other)
  )
  return {
    key: value
    for key, value in fields.items()
    if key not in others or value != others[key]
  }


def flattened(tree, where='') -> dict:
  """Leaves of nested dicts, by names such as 'train.steps'."""
  leaves = {}
  for key, value in tree.items():
    if isinstance(value, dict) and value:
      leaves |= flattened(value, f'{where}{key}.')
    else:
      leaves[f'{where}{key}'] = value
  return leaves


def leaves(section, prefix=''):
  """(name, value) of every setting."""
  for name, value in section.items():
    if isinstance(value, dict):
      yield from leaves(value, f'{prefix}{name}.')
    else:
      yield f'{prefix}{name}', value


class ConfigsTest(parameterized.TestCase):
  @parameterized.product(name=NAMES, variant=(None, 'smoke'))
  def test_resolves(self, name, variant):
    (config_class,) = (
      kind for start, kind in CLASSES.items() if name.startswith(start)
    )
    config = load(name).get_config(variant)
    resolved = config_lib.resolve(config, config_class)
    self.assertIsInstance(resolved, config_class)

  @parameterized.parameters(*NAMES)
  def test_smoke(self, name):
    """It needs no file of a user, and has less of what takes time."""
    shipped = {''}
    if name.startswith('rounds_'):  # random critics give no labels
      shipped |= {str(weights.T2V), str(weights.CRITIC)}
    whole, small = (
      dict(leaves(load(name).get_config(variant).to_dict()))
      for variant in (None, 'smoke')
    )
    self.assertNotEqual(small, whole)
    for key, value in small.items():
      field = key.rpartition('.')[2]
      # The demo fills in those of its jobs.
      if field in ('path', 'root', 'adapter') and name != 'demo':
        self.assertIn(value, shipped, key)
      if field in TAKES_TIME and isinstance(whole.get(key), int):
        self.assertLessEqual(value, whole[key], key)

  @parameterized.parameters(*NAMES)
  def test_unknown_variant(self, name):
    with self.assertRaisesRegex(UserError, 'unknown'):
      load(name).get_config('small')

  @parameterized.parameters(
    *(name for name in NAMES if name.startswith(('align_', 'critic_')))
  )
  def test_steps(self, name):
    for arg, kind in (('steps=7', None), ('smoke,steps=7', 'smoke')):
      config = load(name).get_config(arg)
      self.assertEqual(config.train.steps, 7)
      config.train.steps = None
      rest = load(name).get_config(kind)
      with rest.ignore_type():
        rest.train.steps = None
      self.assertEqual(config.to_dict(), rest.to_dict())


class PaddingTest(parameterized.TestCase):
  @parameterized.product(
    config=(('critic_vila_13b', 8 * 196), ('critic_qwen3vl_4b', 6 * 340 + 2)),
    source=(published.OURS, published.THEIRS),
    tokens_of_word=(1.0, 1.4),
  )
  def test_critics(self, config, source, tokens_of_word):
    """At most 15% on texts as people wrote them, with the tokens of a clip.

    Words and punctuation marks are counted in place of the tokens of a model,
    and 30 more for the template.
    """
    published.require(source)
    name, num_positions = config
    buckets = sorted(load(name).get_config().data.text_buckets)
    examples = []
    for file in ('vidgen-data.json', 'lift_sample/hra.json'):
      for record in read_hra(source, [file], require_files=False).records:
        text = record.caption + record.question + record.rationale
        num_words = len(re.findall(r'\w+|[^\w\s]', text))
        num_tokens = 30 + round(tokens_of_word * num_words)
        length = next(bucket for bucket in buckets if bucket >= num_tokens)
        tokens = np.zeros(num_positions + num_tokens, np.int32)
        examples.append(
          example('a', tokens=tokens, length=num_positions + length)
        )
    units = critic_units.single_units(examples)
    self.assertBetween(critic_units.padding_share(units, examples), 0.01, 0.15)


class BasedTest(parameterized.TestCase):
  """Configs that build on another change what they say they change."""

  def test_5b(self):
    self.assertEqual(
      difference('align_cogvideox_5b', 'align_cogvideox_2b'),
      {'model.published': 'CogVideoX-5b', 'train.grad_accum': 8},
    )
    self.assertEqual(
      difference('align_cogvideox_5b', 'align_cogvideox_2b', 'smoke'),
      {
        'model.published': 'CogVideoX-5b',
        'train.grad_accum': 8,
        'model.random.transformer.use_rotary': True,
        'model.random.vae.scaling_factor': 0.7,
        'model.random.schedule.snr_shift_scale': 1.0,
      },
    )

  @parameterized.parameters(None, 'smoke')
  def test_lora(self, variant):
    self.assertEqual(
      difference('align_cogvideox_2b_lora', 'align_cogvideox_2b', variant),
      {'train.trainable': 'lora', 'optimizer.learning_rate': 1e-4},
    )
    self.assertEqual(
      difference('align_cogvideox_5b_lora', 'align_cogvideox_5b', variant),
      {
        'train.trainable': 'lora',
        'lora.rank': 64,
        'optimizer.learning_rate': 5e-6,
      },
    )

  @parameterized.parameters('2b', '8b')
  def test_qwen(self, size):
    self.assertEqual(
      difference(f'critic_qwen3vl_{size}', 'critic_qwen3vl_4b'),
      {'model.published': f'Qwen3-VL-{size.upper()}'},
    )
    self.assertEqual(
      difference('critic_qwen3vl_4b', 'critic_vila_13b'),
      {
        'model.published': 'Qwen3-VL-4B',
        'model.template': 'qwen3-vl',
        'train.trainable': 'parts',
        'parts.projector.training': 'full',
        'parts.vision_tower.training': 'lora',
        'parts.vision_tower.learning_rate': 2e-6,
        'losses.label': 1.0,
        'losses.pair': 1.0,
        'lora.dropout': 0.05,
      },
    )

  def test_qwen_variant_of_the_tiny_critic(self):
    config = load('critic_tiny').get_config('smoke,qwen')
    resolved = config_lib.resolve(config, TrainCriticConfig)
    self.assertEqual(resolved.model.random.backbone, 'qwen3vl')
    self.assertEqual(resolved.model.template, 'qwen3-vl')

  def test_from_another_folder(self):
    """They find their base wherever they are loaded from."""
    with pytest.MonkeyPatch.context() as patch:
      patch.chdir('/')
      config, _ = job_flags.read_config(
        f'{FOLDER / "align_cogvideox_5b_lora.py"}:smoke', (), AlignConfig
      )
    self.assertEqual(config.train.trainable, 'lora')


class RoundsConfigTest(parameterized.TestCase):
  def test_published(self):
    """Flow-DPO's and MPO's settings, see docs/rounds.md."""
    align = load('rounds_cogvideox_2b').get_config().align
    self.assertEqual((align.lora.rank, align.lora.alpha), (64, 128.0))
    self.assertEqual(align.optimizer.learning_rate, 5e-6)
    self.assertEqual(align.objective.name, 'dpo')
    self.assertEqual(align.objective.dpo.beta, 500.0)
    self.assertEqual(align.objective.dpo.convention, 'half')
    self.assertEqual(align.train.batch_size, 2 * 32)


class DemoConfigTest(parameterized.TestCase):
  @parameterized.parameters(None, 'smoke')
  def test_resolves(self, variant):
    config = demo_config.get_config(variant)
    resolved = config_lib.resolve(config, demo_config.DemoConfig)
    self.assertEqual(resolved.sample.model, resolved.align.model)
    self.assertEqual(resolved.sample.video, resolved.align.validation.video)
