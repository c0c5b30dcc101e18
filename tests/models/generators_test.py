"""The registry of model families, and that only `models` imports one."""

import ast
import json
import re

from absl.testing import parameterized
import pytest

from lift_jax import config_lib
from lift_jax.errors import UserError
from lift_jax.models import generators
from lift_jax.models.generators import Flops, RandomModelConfig
from tests.jobs.jobs import REPOSITORY
from tests.models.tiny_family import (  # noqa: F401
  Tiny,
  TinySizes,
  registered,
)


def _imports(path):
  """Full names of everything that a module imports."""
  for node in ast.walk(ast.parse(path.read_text())):
    if isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names)
    elif isinstance(node, ast.ImportFrom):
      yield from (f'{node.module}.{alias.name}' for alias in node.names)


def test_only_models_import_a_family():
  package = REPOSITORY / 'lift_jax'
  rooms = {one.__module__.rsplit('.', 1)[0] for one in generators.families()}
  rooms.discard('tests.models')
  assert rooms == {'lift_jax.models.cogvideox'}
  found = [
    (path.name, name)
    for path in package.rglob('*.py')
    if package / 'models' not in path.parents
    for name in _imports(path)
    if any(name.startswith(room) for room in rooms)
  ]
  assert found == []


class FamiliesTest(parameterized.TestCase):
  def test_random_section(self):
    """Each family has sections of its own."""
    section = {
      'family': 'tiny', 'seed': 1, 'transformer': {'num_heads': 4}, 'vae': {},
      'text_encoder': {}, 'schedule': {},
    }  # fmt: skip
    sizes = config_lib.resolve(section, RandomModelConfig, 'model.random')
    self.assertIsInstance(sizes, TinySizes)
    model = generators.from_sizes(sizes)
    self.assertIsInstance(model, Tiny)
    self.assertEqual(model.transformer.num_heads, 4)
    with self.assertRaisesRegex(UserError, 'transformer.text_width is not'):
      section['family'] = 'cogvideox'
      section['transformer'] = {'num_heads': 4, 'text_width': 3}
      config_lib.resolve(section, RandomModelConfig, 'model.random')

  @parameterized.parameters(
    ({}, 'model.random lacks family; name one of '),
    ({'family': 'tinny'}, "model.random.family is 'tinny'; choose one of"),
  )
  def test_unknown_family(self, section, message):
    with self.assertRaisesRegex(UserError, message):
      config_lib.resolve(section, RandomModelConfig, 'model.random')

  def test_published(self):
    known = set(generators.published_sizes())
    self.assertLessEqual({'CogVideoX-2b', 'CogVideoX-5b', 'Tiny-1k'}, known)


@pytest.mark.parametrize('name', ['WanPipeline', None, ['CogVideoXPipeline']])
def test_folder_of_no_family(tmp_path, name):
  index = {} if name is None else {'_class_name': name}
  (tmp_path / 'model_index.json').write_text(json.dumps(index))
  message = re.escape(f'_class_name is {name!r}; give')
  with pytest.raises(UserError, match=message):
    generators.open_model(tmp_path)


def test_flops():
  flops = Flops(linear=10.0, attention=1.0)
  assert flops.forward == 11.0
  assert flops.training(trains_kernels=True) == 33.0
  assert flops.training(trains_kernels=False) == 23.0
