"""Which model a plan is for."""

from types import SimpleNamespace

from absl.testing import parameterized

from lift_jax.errors import UserError
from lift_jax.models import generators
from lift_jax.planning import sizes


def _config(**settings):
  known = {'path': '', 'adapter': '', 'random': None, 'published': ''}
  return SimpleNamespace(**(known | settings))


class SizesTest(parameterized.TestCase):
  @parameterized.parameters(('CogVideoX-2b', 30, 30), ('CogVideoX-5b', 42, 48))
  def test_published_models(self, name, num_layers, num_heads):
    model = sizes.model_of(_config(published=name))
    self.assertEqual(model.transformer.num_layers, num_layers)
    self.assertEqual(model.transformer.num_heads, num_heads)

  @parameterized.parameters(
    ('VILA1.5-13b', 5120, 40), ('VILA1.5-40b', 7168, 60)
  )
  def test_published_critics(self, name, width, num_layers):
    critic = sizes.critic_of(_config(published=name))
    self.assertEqual(critic.config.llm.width, width)
    self.assertEqual(critic.config.llm.num_layers, num_layers)

  def test_random(self):
    """It goes before what the config is meant for."""
    known = generators.published_sizes()['CogVideoX-5b']
    model = sizes.model_of(_config(random=known, published='CogVideoX-2b'))
    self.assertEqual(model.transformer, known.transformer)

  @parameterized.parameters(sizes.model_of, sizes.critic_of)
  def test_unknown(self, find):
    for name in ('', 'CogVideoX-9b'):
      with self.assertRaisesRegex(UserError, f'model.published is {name!r}'):
        find(_config(published=name))
