"""Stop rules on numbers that are given."""

import dataclasses

import numpy as np
import pytest

from lift_jax.evaluation import guards
from lift_jax.evaluation.bootstrap import BootstrapConfig

pytestmark = pytest.mark.fast

_RULES = guards.StopRules(
  held_out_falls=True,
  max_motion_loss=0.1,
  max_static_rise=0.1,
  max_diversity_loss=0.1,
  max_anchor_distance=1e-3,
  max_implicit_accuracy=0.95,
  winner_window=3,
  bootstrap=BootstrapConfig(200, 0.95, 0),
)
_TRAINING = guards.Training(0.8, [0.1, -0.1, -0.1])


def measured(noise: float = 0.0, **means: float) -> dict[str, dict[str, float]]:
  """40 prompts with these means, and noise of their own."""
  rng = np.random.default_rng(0)
  values = {
    'reward': 0.5, 'held_out_reward': 0.5, 'frame_difference': 0.04,
    'static_share': 0.0, 'diversity': 0.2,
  } | means  # fmt: skip
  return {
    name: {
      f'{n}': mean + mean * noise * x for n, x in enumerate(rng.normal(size=40))
    }
    for name, mean in values.items()
  }


def check(now, good=None, training=_TRAINING, **rules) -> dict:
  base = measured(anchor_distance=0.0)
  found = guards.check(
    base, good or base, now, training, dataclasses.replace(_RULES, **rules)
  )
  return {guard.name: guard for guard in found}


def broken(*args, **kwargs) -> set[str]:
  return {n for n, guard in check(*args, **kwargs).items() if guard.broken}


def test_nothing_broken():
  assert broken(measured(anchor_distance=1e-4)) == set()


@pytest.mark.parametrize(
  ('means', 'name'),
  [
    ({'reward': 0.6, 'held_out_reward': 0.45}, 'held_out_reward'),
    ({'frame_difference': 0.034}, 'frame_difference'),
    ({'static_share': 0.2}, 'static_share'),
    ({'diversity': 0.17}, 'diversity'),
    ({'anchor_distance': 2e-3}, 'anchor_distance'),
  ],
)
def test_broken(means, name):
  now = measured(**means)
  guard = check(now)[name]
  assert guard.broken.startswith(
    'the reward of the held-out' if name == 'held_out_reward' else name
  )
  assert broken(now) == {name}


@pytest.mark.parametrize(
  'means',
  [
    {'reward': 0.45, 'held_out_reward': 0.45},  # both fall: not a hack
    {'reward': 0.6, 'held_out_reward': 0.5},
    {'frame_difference': 0.037},
    {'frame_difference': 0.06},
    {'static_share': 0.05},
    {'diversity': 0.185},
  ],
)
def test_within_limits(means):
  assert broken(measured(**means)) == set()


def test_uncertain():
  """A loss whose interval reaches zero breaks nothing."""
  assert broken(measured(noise=3.0, frame_difference=0.034)) == set()
  assert broken(measured(noise=0.1, frame_difference=0.034)) != set()


def test_since():
  """Rewards are compared with the last good round, motion with base."""
  good = measured(reward=0.7, held_out_reward=0.7, frame_difference=0.06)
  now = measured(reward=0.8, held_out_reward=0.6, frame_difference=0.05)
  assert broken(now) == set()
  assert broken(now, good) == {'held_out_reward'}
  found = check(now, good)
  assert found['held_out_reward'].value.value == pytest.approx(-0.1)
  assert found['frame_difference'].value.value == pytest.approx(0.25)


def test_paired():
  """The difficulty of a prompt cancels in the difference."""
  change = check(measured(noise=0.5, reward=0.6), measured(noise=0.5))
  value = change['reward'].value
  assert value.high - value.low < 0.1
  assert value.low < 0.1 < value.high


def test_training():
  now = measured()
  memorised = guards.Training(0.97, [])
  assert broken(now, training=memorised) == {'implicit_accuracy'}
  assert broken(now, training=memorised, max_implicit_accuracy=None) == set()
  winners = guards.Training(None, [-0.1, 0.1, 0.1, 0.1])
  assert broken(now, training=winners) == {'winner_change'}
  assert broken(now, training=winners, winner_window=4) == set()
  assert broken(now, training=winners, winner_window=5) == set()


def test_not_measured():
  """Numbers that a run does not have are no guards of it."""
  now = measured()
  del now['held_out_reward']
  found = check(now, training=guards.Training(None, []))
  assert not found.keys() & {
    'held_out_reward',
    'implicit_accuracy',
    'winner_change',
    'anchor_distance',
  }
