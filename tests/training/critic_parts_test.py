"""Parts of critics: which parameters each has, their rates, bad settings."""

import collections
import dataclasses
import math
import pathlib

import pytest

from lift_jax.errors import UserError
from lift_jax.models import lora
from lift_jax.models.functional import functional
from lift_jax.models.qwen3vl.backbone import Qwen3VLCritic
from lift_jax.models.qwen3vl.config import PUBLISHED
from lift_jax.models.vila.backbone import VilaCritic
from lift_jax.training import critic_parts
from lift_jax.training import setup as setup_lib
from lift_jax.training.critic_parts import PartConfig, PartsConfig
from lift_jax.weights import param_paths
from tests.models.vila.critics import VILA_1_5_13B, VILA_1_5_40B

pytestmark = pytest.mark.fast

FROZEN, ADAPTED, FULL = map(PartConfig, ('frozen', 'lora', 'full'))
LORA = lora.LoRAConfig(rank=16, targets=('llm/blocks/attn/to_(q|k|v|out)',))
QWEN = Qwen3VLCritic(pathlib.Path(), PUBLISHED['Qwen3-VL-4B'])
VILA = VilaCritic(pathlib.Path(), VILA_1_5_13B)


def test_parameters():
  """Every parameter is in one part, with the published numbers of 2B."""
  critic = Qwen3VLCritic(pathlib.Path(), PUBLISHED['Qwen3-VL-2B'])
  visual, mergers = 406_957_056, 25_174_016 + 75_540_480
  assert _sizes(critic) == {
    'decoder': 2_127_532_032 - visual,
    'vision_tower': visual - mergers,
    'projector': mergers,
  }
  params = functional(VILA.build()).abstract_params
  assert _sizes(VILA) == {
    'decoder': setup_lib.count(params['llm']),
    'vision_tower': setup_lib.count(params['vision_tower']),
    'projector': setup_lib.count(params['projector']),
  }


def _sizes(critic):
  params = functional(critic.build()).abstract_params
  found = collections.Counter()
  for name, leaf in param_paths.flatten(params).items():
    found[critic_parts.part_of(critic, name)] += math.prod(leaf.shape)
  return found


@pytest.mark.parametrize('config', [VILA_1_5_13B, VILA_1_5_40B, None])
def test_adapters_of_towers(config):
  """Each linear layer of the tower's blocks, by names that can be written."""
  critic = QWEN if config is None else VilaCritic(pathlib.Path(), config)
  parts = PartsConfig(ADAPTED, FROZEN, ADAPTED)
  targets = critic_parts.adapter_targets(critic, parts, LORA)
  build = lora.adapted(
    critic.build(), dataclasses.replace(LORA, targets=targets)
  )
  params = functional(build).abstract_params
  adapters, base = param_paths.partition(params, lora.is_adapter)
  known = {rule.ours for rule in critic.adapter_table}
  adapted = set(param_paths.flatten(adapters))
  assert adapted <= known
  kernels = {
    name.removesuffix('/kernel')
    for name in param_paths.flatten(base)
    if name.startswith('vision_tower/blocks/') and name.endswith('/kernel')
  }
  assert kernels
  assert {f'{name}/lora_a' for name in kernels} <= adapted
  is_trained = critic_parts.trained_by_name(critic, parts)
  assert {n for n in param_paths.flatten(params) if is_trained(n)} == adapted


def test_what_trains():
  is_trained = critic_parts.trained_by_name(
    QWEN, PartsConfig(FROZEN, FULL, ADAPTED)
  )
  trained = {
    'llm/final_norm/scale': False,
    'llm/token_embedding/embedding': False,
    'vision_tower/merger/linear_in/kernel': True,
    'vision_tower/deepstack_mergers/norm/bias': True,
    'vision_tower/blocks/attn/to_qkv/kernel': False,
    'vision_tower/blocks/attn/to_qkv/lora_b': True,
    'vision_tower/positions': False,
  }
  assert {name: is_trained(name) for name in trained} == trained


def test_rates():
  parts = PartsConfig(
    ADAPTED, PartConfig('full', 3e-5), PartConfig('lora', 2e-6)
  )
  rate_of = critic_parts.peak_rates(QWEN, parts, 1e-5)
  assert rate_of('llm/blocks/attn/to_q/lora_a') == 1e-5
  assert rate_of('vision_tower/merger/norm/scale') == 3e-5
  assert rate_of('vision_tower/blocks/mlp/up/lora_b') == 2e-6
  # The same optimizer as ever without rates of parts.
  assert critic_parts.peak_rates(QWEN, PartsConfig(), 1e-5) is None


@pytest.mark.parametrize(
  ('parts', 'message'),
  [
    (
      {'decoder': PartConfig('all')},
      r"parts.decoder.training is 'all'; .*full",
    ),
    ({'projector': ADAPTED}, r"parts.projector.training is 'lora'; choose one"),
    ({'decoder': FROZEN}, "all of them are 'frozen'"),
    (
      {'vision_tower': PartConfig('full', 0.0)},
      'parts.vision_tower.learning_rate is 0; give a number above 0',
    ),
    ({'decoder': PartConfig('full', math.nan)}, 'learning_rate is nan'),
  ],
)
def test_bad_settings(parts, message):
  with pytest.raises(UserError, match=message):
    PartsConfig(**parts)
