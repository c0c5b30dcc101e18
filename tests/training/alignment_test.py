"""Trainable parameters and shardings for every `train.trainable`."""

import dataclasses
import types

import jax
import numpy as np
import optax
import pytest

from lift_jax import partitioning
from lift_jax.diffusion.schedule import ScheduleConfig
from lift_jax.errors import UserError
from lift_jax.models.cogvideox.config import COGVIDEOX_2B
from lift_jax.models.cogvideox.model import CogVideoX
from lift_jax.models.cogvideox.vae_config import VAEConfig
from lift_jax.models.generator_config import ModelConfig
from lift_jax.models.latents import LatentScale
from lift_jax.models.lora import LoRAConfig
from lift_jax.models.t5.config import T5Config
from lift_jax.training import alignment
from lift_jax.training import setup as setup_lib
from lift_jax.training.objectives import ObjectiveConfig
from lift_jax.training.objectives.dpo import DPO
from lift_jax.training.objectives.likelihood import SFT
from lift_jax.training.objectives.reward_weighted import RewardWeighted
from lift_jax.training.optimizer import OptimizerConfig, make_optimizer
from lift_jax.training.state import TrainState
from lift_jax.training.step import LatentBatch, StepConfig, make_train_step
from lift_jax.weights import param_paths

FOLDER = CogVideoX(
  path=None,
  index={},
  transformer=COGVIDEOX_2B,
  vae=VAEConfig(),
  text_encoder=T5Config(),
  schedule=ScheduleConfig(),
)
MODEL = ModelConfig(
  path='',
  adapter='',
  random=None,
  compute_dtype='bfloat16',
  attention='auto',
)


def setup_of(trainable, lora=None, **axes):
  mesh = partitioning.make_mesh(partitioning.MeshConfig(**axes))
  return alignment.make_setup(
    FOLDER, MODEL, trainable, lora or LoRAConfig(), mesh
  )


@pytest.mark.parametrize(
  ('trainable', 'count'),
  [
    # Every parameter of the 30 blocks of 2B, as the LiFT script trains.
    ('blocks', 1_682_446_080),
    ('all', 1_693_783_872),
    # 30 layers of four d x d products, A and B of rank 128 each.
    ('lora', 30 * 4 * 2 * 1920 * 128),
  ],
)
def test_what_trains_at_full_size(trainable, count):
  setup = setup_of(trainable)
  first, second = setup.split(setup.model.abstract_params)
  assert setup_lib.count(first) == count
  base = {
    name: leaf
    for name, leaf in param_paths.flatten(setup.model.abstract_params).items()
    if 'lora_' not in name
  }
  assert setup_lib.count(base) == 1_693_783_872
  total = 1_693_783_872 + (count if trainable == 'lora' else 0)
  assert setup_lib.count(first) + setup_lib.count(second) == total


def test_optimizer_lies_where_parameters_lie():
  setup = setup_of('blocks', fsdp=4, tensor=2)
  tx = make_optimizer(
    OptimizerConfig(1e-5, 200, 1, 0.9, 0.95, 1e-8, 1e-4, 1.0), 1000
  )
  abstract, places = setup_lib.abstract_state(setup, tx, with_ema=True)
  specs = {
    name: place.spec
    for name, place in param_paths.flatten(places).items()
    if name.endswith('blocks/ff/up/kernel')
  }
  assert len(specs) == 4  # the parameter, two moments, the average
  assert set(specs.values()) == {jax.P(None, ('fsdp', 'context'), 'tensor')}
  assert set(abstract.ema) == {'blocks'}


def test_adapters_outside_the_blocks():
  lora = LoRAConfig(rank=4, targets=('proj_out', 'blocks/ff/up'))
  setup = setup_of('lora', lora)
  first, _ = setup.split(setup.shardings)
  specs = {n: s.spec for n, s in param_paths.flatten(first).items()}
  assert specs == {
    'blocks/ff/up/lora_a': jax.P(None, 'fsdp', None),
    'blocks/ff/up/lora_b': jax.P(None, None, 'fsdp'),
    'proj_out/lora_a': jax.P('fsdp', None),
    'proj_out/lora_b': jax.P(),
  }


def test_heads_that_do_not_divide():
  with pytest.raises(UserError, match='does not divide the 30 attention heads'):
    setup_of('blocks', fsdp=2, tensor=4)


@pytest.mark.fast
def test_batch():
  train = types.SimpleNamespace(grad_accum=2)
  dpo = DPO(500.0, 'half', 'sigmoid', 0.0, 0.0)
  alignment.check_batch(dpo, train, 16, 4)
  with pytest.raises(UserError, match='a batch of 8 videos in pairs'):
    alignment.check_batch(dpo, train, 8, 4)
  alignment.check_batch(SFT(), train, 8, 4)


@pytest.mark.fast
@pytest.mark.parametrize(
  ('batch_by', 'objective', 'expected'),
  [
    ('clips', SFT(), [64, 64, 64]),
    ('cost', SFT(), [64, 160, 488]),
    # With a reference and in pairs, which both scale all buckets alike.
    ('cost', DPO(500.0, 'half', 'sigmoid', 0.0, 0.0), [64, 160, 480]),
  ],
)
def test_buckets(batch_by, objective, expected):
  """CogVideoX-2B with 49 frames, 25 and 9, of 480 x 720 pixels."""
  train = types.SimpleNamespace(
    trainable='blocks', grad_accum=2, batch_by=batch_by
  )
  clips = {(13, 60, 90): 5, (7, 60, 90): 3, (3, 60, 90): 2}
  buckets = alignment.make_buckets(FOLDER, train, objective, clips, 64, 4)
  assert {b: steps.num_examples for b, steps in buckets.items()} == clips
  assert [buckets[bucket].batch_size for bucket in clips] == expected
  # Tokens of the clip, and 226 of its text.
  num_tokens = 13 * 30 * 45 + 226
  linear = 2 * 12 * 1920**2 * 30 * num_tokens
  attention = 4 * num_tokens**2 * 1920 * 30
  longest = buckets[13, 60, 90]
  passes = 4 if objective.needs_reference else 3
  assert longest.cost == pytest.approx(passes * (linear + attention))
  assert longest.name == 'latents 13x60x90'
  if batch_by == 'cost':
    for steps in buckets.values():
      assert 0.93 < steps.step_cost / longest.step_cost <= 1


def test_step_weighs_examples():
  """A batch half as large as others has half of its gradient."""

  def gradient(mean_batch):
    step = jax.jit(
      make_train_step(
        lambda params, noisy, text, t: params['blocks/w'] * noisy,
        ScheduleConfig(),
        optax.sgd(1.0),
        SFT(),
        StepConfig(LatentScale(1.0), 0.0, 1, 0.0, mean_batch),
      )
    )
    latents = np.ones((2, 1, 2, 2, 3), np.float32)
    batch = LatentBatch(latents, latents, np.zeros((2, 1, 1)), {})
    params = {'blocks/w': np.ones((1,) * 5, np.float32)}
    state = TrainState.create(params, optax.sgd(1.0), False)
    mesh = partitioning.make_mesh(partitioning.MeshConfig(), jax.devices()[:1])
    with jax.set_mesh(mesh):
      state, metrics = step(
        state, {}, batch, np.zeros((1, 1)), jax.random.key(0), {}
      )
    return metrics['grad_norm'], state.trainable['blocks/w'] - 1

  (norm, change), (half_norm, half_change) = map(gradient, (None, 4.0))
  assert norm > 0
  np.testing.assert_allclose(half_norm, norm / 2, rtol=1e-6)
  np.testing.assert_allclose(half_change, change / 2, rtol=1e-6)


@dataclasses.dataclass(frozen=True)
class _TwoObjectives(ObjectiveConfig):
  other: RewardWeighted | None = None


def test_fingerprint_names_the_objective():
  """Its settings may change between runs."""
  folder = types.SimpleNamespace(fingerprint=lambda component: component)
  train = types.SimpleNamespace(trainable='blocks', ema_decay=0.0, seed=0)

  def note(name, real_weight):
    weighted = RewardWeighted(real_weight)
    objective = _TwoObjectives(name, reward_weighted=weighted, other=weighted)
    return alignment.fingerprint(folder, train, objective, LoRAConfig(), [], 8)

  first = note('reward_weighted', 1.0)
  assert note('reward_weighted', 2.0) == first
  assert note('other', 1.0) == first | {'objective': 'other'}
