"""Every config file is one that its job takes, whole and shrunk."""

import importlib.util

from absl.testing import parameterized

from lift_jax import config_lib
from lift_jax.errors import UserError
from lift_jax.jobs.align_config import AlignConfig
from lift_jax.jobs.demo_config import DemoConfig
from lift_jax.jobs.evaluate import EvaluateConfig
from lift_jax.jobs.sample import SampleConfig
from lift_jax.jobs.score import ScoreConfig
from lift_jax.jobs.train_critic import TrainCriticConfig
from tests.jobs import jobs

FOLDER = jobs.REPOSITORY / 'configs'
CLASSES = {
  'align_': AlignConfig,
  'critic_': TrainCriticConfig,
  'demo': DemoConfig,
  'eval_': EvaluateConfig,
  'sample': SampleConfig,
  'score': ScoreConfig,
}
NAMES = sorted(path.stem for path in FOLDER.glob('*.py'))


def load(name):
  path = FOLDER / f'{name}.py'
  spec = importlib.util.spec_from_file_location(f'{name}_config', path)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


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
  def test_says_what_it_is(self, name):
    module = load(name)
    self.assertIn('smoke', module.get_config.__doc__)
    with self.assertRaisesRegex(UserError, 'unknown'):
      module.get_config('small')
