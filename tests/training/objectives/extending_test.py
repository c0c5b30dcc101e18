"""The example of docs/extending.md, followed step by step."""

import importlib
import re
import sys

import jax
import ml_collections
import numpy as np
import optax
import pytest

from lift_jax import config_lib
from lift_jax.diffusion.schedule import ScheduleConfig
from lift_jax.errors import UserError
from lift_jax.training import objectives
from lift_jax.training import step as step_lib
from lift_jax.training.state import TrainState
from tests.jobs import jobs
from tests.training.objectives import tiny

_MODULE = 'lift_jax.training.objectives.exponential'


@pytest.fixture
def section() -> str:
  page = (jobs.REPOSITORY / 'docs' / 'extending.md').read_text('utf-8')
  (text,) = re.findall(
    r'^## Add an objective\n(.*?)(?=^## |\Z)', page, re.M | re.S
  )
  return text


@pytest.fixture
def blocks(section) -> list[str]:
  return re.findall(r'^```python\n(.*?)^```', section, re.M | re.S)


@pytest.fixture
def extended(blocks, tmp_path, monkeypatch):
  """The registry with the new objective in it."""
  own_file, registry, _ = blocks
  (tmp_path / 'exponential.py').write_text(own_file)
  paths = [*objectives.__path__, str(tmp_path)]
  monkeypatch.setattr(objectives, '__path__', paths)
  monkeypatch.setattr(objectives, 'exponential', None, raising=False)
  source = importlib.util.find_spec(objectives.__name__).loader.get_source(
    objectives.__name__
  )
  import_line, field = registry.split('\n\n')
  last_field = '  reward_weighted: RewardWeighted | None = None\n'
  assert last_field in source
  source = source.replace(last_field, last_field + field)
  source = source.replace('\n\n\n', f'\n{import_line}\n\n\n', 1)
  module = type(sys)('extended_objectives')
  monkeypatch.setitem(sys.modules, module.__name__, module)
  exec(compile(source, 'extended', 'exec'), vars(module))
  yield module
  sys.modules.pop(_MODULE, None)


def test_is_short(section):
  assert len(section.strip().splitlines()) <= 60


def test_trains(blocks, extended):
  config = ml_collections.ConfigDict()
  exec(blocks[2], {'config': config})
  chosen = config_lib.resolve(
    config.objective, extended.ObjectiveConfig, 'objective'
  ).chosen
  assert type(chosen).__module__ == _MODULE
  tx = optax.sgd(0.1)
  step = jax.jit(
    step_lib.make_train_step(
      tiny.model, ScheduleConfig(), tx, chosen, tiny.CONFIG
    )
  )
  state = TrainState.create(tiny.params(), tx, with_ema=False)
  batch = step_lib.LatentBatch.of(tiny.arrays(), chosen)
  for _ in range(2):
    before = state
    state, metrics = step(
      state, {}, batch, tiny.NULL_TEXT, jax.random.key(0), {}
    )
    assert not np.array_equal(state.trainable['w'], before.trainable['w'])
    # exp(r / 0.5) is between 1 and e^2.
    ratio = metrics['loss'] / metrics['error']
    assert 1 < ratio < np.exp(2)


def test_settings_are_checked(extended):
  section = {'name': 'exponential', 'exponential': {'temperature': 0.0}}
  with pytest.raises(UserError, match='exponential.temperature must be above'):
    config_lib.resolve(section, extended.ObjectiveConfig)
