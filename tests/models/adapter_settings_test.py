"""Configs of adapters: their scale, and which keys change the sum."""

import dataclasses

import pytest

from lift_jax.errors import UserError
from lift_jax.models import adapter_settings
from lift_jax.models.adapter_settings import read_settings
from tests.optional import peft

BASE = {'peft_type': 'LORA', 'r': 2, 'lora_alpha': 6}


def read(**changes):
  return read_settings(BASE | changes, 'x.json')


def test_every_key_of_peft_is_known():
  """And harmless at its default there."""
  groups = (
    adapter_settings.READ,
    adapter_settings.NO_EFFECT,
    adapter_settings.DEFAULTS.keys(),
  )
  known = [key for group in groups for key in group]
  fields = {field.name for field in dataclasses.fields(peft.LoraConfig)}
  assert sorted(known) == sorted(fields)
  defaults = peft.LoraConfig().to_dict()
  for key, value in adapter_settings.DEFAULTS.items():
    assert defaults[key] == value, key
  settings = read_settings(
    defaults | {'peft_type': 'LORA', 'r': 2, 'lora_alpha': 6}, 'x.json'
  )
  assert settings == read()


@pytest.mark.fast
class TestRead:
  def test_scale(self):
    settings = read(use_rslora=True, rank_pattern=None, alpha_pattern={})
    assert (settings.rank, settings.alpha) == (2, 6.0)
    assert settings.is_rank_stabilized
    assert not read(use_rslora=None).is_rank_stabilized

  def test_unstated(self):
    settings = read_settings({}, 'x.json')
    assert (settings.rank, settings.alpha) == (None, None)

  @pytest.mark.parametrize(
    ('pattern', 'name', 'rank'),
    [
      ({'up': 4}, 'layer.0.up', 4),
      ({'up': 4}, 'layer.0.up_proj', 2),
      ({'p': 4}, 'layer.0.up', 2),
      ({r'layer\.[01]\..*': 4}, 'net.layer.1.up', 4),
      ({'^layer.0.up': 4}, 'layer.0.up', 4),
      ({'^layer.0.up': 4}, 'net.layer.0.up', 2),
      ({'0.up': 4, 'layer.0.up': 8}, 'layer.0.up', 4),  # the first counts
      ({'layer.0.up': None}, 'layer.0.up', 2),
    ],
  )
  def test_patterns(self, pattern, name, rank):
    assert read(rank_pattern=pattern).rank_of([name]) == rank
    alphas = read(alpha_pattern=pattern)
    assert alphas.alpha_of([name]) == (6.0 if rank == 2 else rank)

  @pytest.mark.parametrize(
    'change',
    [
      {'modules_to_save': []},
      {'init_lora_weights': False},
      {'init_lora_weights': 'gaussian'},
      {'lora_dropout': 0.05, 'target_modules': 'all-linear'},
      {'layers_to_transform': [1]},
      {'use_dora': None, 'bias': None, 'lora_bias': False},
      {'a_key_of_the_future': None},
      {'a_key_of_the_future': {}},
      {'_commit_hash': 'abc'},
    ],
  )
  def test_harmless(self, change):
    assert read(**change) == read()

  @pytest.mark.parametrize(
    ('change', 'message'),
    [
      ({'peft_type': 'LOHA'}, "peft_type is 'LOHA'"),
      ({'use_dora': True}, 'use_dora = True'),
      ({'lora_bias': True}, 'lora_bias = True'),
      ({'bias': 'all'}, "bias = 'all'"),
      ({'fan_in_fan_out': True}, 'fan_in_fan_out = True'),
      ({'modules_to_save': ['head']}, r"modules_to_save = \['head'\]"),
      # These change the weights that are adapted.
      ({'init_lora_weights': 'pissa'}, "init_lora_weights = 'pissa'"),
      ({'init_lora_weights': 'olora'}, "init_lora_weights = 'olora'"),
      ({'layer_replication': [[0, 2], [1, 3]]}, 'layer_replication = '),
      ({'alora_invocation_tokens': [5]}, r'alora_invocation_tokens = \[5\]'),
      ({'use_qalora': True}, 'use_qalora = True'),
      ({'target_parameters': ['a.b']}, 'target_parameters = '),
      ({'a_key_of_the_future': 1}, 'a_key_of_the_future = 1'),
      ({'use_dora': True, 'bias': 'all'}, "bias = 'all', use_dora = True"),
    ],
  )
  def test_refused(self, change, message):
    with pytest.raises(UserError, match=rf'^x\.json: {message}'):
      read(**change)

  @pytest.mark.parametrize(
    ('key', 'value', 'message'),
    [
      ('lora_alpha', True, 'lora_alpha is True, not a number'),
      ('lora_alpha', '16', "lora_alpha is '16', not a number"),
      ('lora_alpha', float('nan'), 'lora_alpha is nan'),
      ('r', 0, 'r is 0; give a positive integer'),
      ('r', 2.5, 'r is 2.5; give a positive integer'),
      ('r', float('inf'), 'r is inf'),
      ('use_rslora', 'yes', "use_rslora is 'yes'"),
      ('rank_pattern', [4], r'rank_pattern is \[4\]'),
      ('rank_pattern', {'(': 4}, r"rank_pattern: '\(' is not a regular"),
      ('rank_pattern', {'a': 0}, r"rank_pattern\['a'\] is 0"),
      ('alpha_pattern', {'a': None, 'b': 'x'}, r"alpha_pattern\['b'\] is 'x'"),
    ],
  )
  def test_bad_values(self, key, value, message):
    with pytest.raises(UserError, match=message):
      read(**{key: value})
