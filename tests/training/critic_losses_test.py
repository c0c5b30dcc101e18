"""Losses of labels and pairs: worked numbers, gradients, settings."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lift_jax.errors import UserError
from lift_jax.training import critic_losses
from lift_jax.training.critic_losses import LabelScale, LossConfig
from tests.optional import torch

pytestmark = pytest.mark.fast

SCALE = LabelScale(ids=(4, 1, 2), rewards=(0.9, 0.2, 0.05))
FIRST, SAME, SECOND = np.eye(3, dtype=np.float32)


@pytest.mark.parametrize(
  ('difference', 'expected'),
  [
    (0.0, (0.1667, 0.6667, 0.1667)),
    (1.0, (0.3522, 0.5793, 0.0685)),
    (2.0, (0.5964, 0.3772, 0.0264)),
  ],
)
def test_outcomes(difference, expected):
  """Rao and Kupper's probabilities with theta 5, computed by hand."""
  log_p = critic_losses.outcomes(jnp.array([difference]), 5.0)
  np.testing.assert_allclose(np.exp(log_p[0]), expected, atol=5e-5)
  mirrored = critic_losses.outcomes(jnp.array([-difference]), 5.0)
  np.testing.assert_allclose(log_p[0], mirrored[0, ::-1], rtol=1e-6)


def test_pair_losses():
  losses = critic_losses.pair_losses(
    jnp.array([1.0, 1.0, -1.0, 1.0]),
    np.stack([FIRST, SAME, SECOND, np.zeros(3)]),
    5.0,
  )
  np.testing.assert_allclose(losses, [1.04359, 0.54597, 1.04359, 0], atol=1e-5)


@pytest.mark.parametrize('theta', [1.5, 5.0])
def test_gradient_of_pairs(theta):
  """Against torch: VideoReward's loss, written from the paper's formula."""
  d = np.array([-3.0, -0.4, 0.0, 0.7, 2.0], np.float32)
  preference = np.array(
    [FIRST, SAME, SAME, SECOND, [0.25, 0.5, 0.25]], np.float32
  )
  grads = jax.grad(
    lambda x: critic_losses.pair_losses(x, preference, theta).sum()
  )(d)
  x = torch.tensor(d, dtype=torch.float64, requires_grad=True)
  e = torch.exp(x)
  p_first, p_second = e / (e + theta), 1 / (1 + theta * e)
  p_same = (theta**2 - 1) * e / ((e + theta) * (theta * e + 1))
  p = torch.stack([p_first, p_same, p_second], 1)
  np.testing.assert_allclose(p.sum(1).detach(), 1, rtol=1e-12)
  (-torch.log(p) * torch.tensor(preference)).sum().backward()
  np.testing.assert_allclose(grads, x.grad, rtol=1e-5, atol=1e-6)


def test_labels():
  """Against torch's cross-entropy with soft targets; none without votes."""
  rng = np.random.default_rng(0)
  logits = rng.normal(size=(4, 7)).astype(np.float32)
  shares = np.array(
    [[1, 0, 0], [2 / 3, 0, 1 / 3], [0, 0, 0], [0.5, 0.25, 0.25]], np.float32
  )
  loss, grad = jax.value_and_grad(
    lambda x: critic_losses.label_cross_entropy(x, shares, SCALE).sum()
  )(logits)
  x = torch.tensor(logits, requires_grad=True)
  targets = torch.zeros(4, 7)
  targets[:, list(SCALE.ids)] = torch.tensor(shares)
  expected = torch.nn.functional.cross_entropy(x, targets, reduction='sum')
  expected.backward()
  np.testing.assert_allclose(loss, expected.item(), rtol=1e-6)
  np.testing.assert_allclose(grad, x.grad, atol=1e-6)
  assert not grad[2].any()


def test_expected_reward():
  """Of the probabilities among the labels alone: 1/2, 1/4 and 1/4."""
  logits = np.full((1, 7), 9.0, np.float32)
  logits[0, list(SCALE.ids)] = np.log([2, 1, 1])
  reward = critic_losses.expected_reward(logits, SCALE)
  assert float(reward[0]) == pytest.approx(0.45 + 0.05 + 0.0125)


def test_overall_reward():
  """Two pairs in two dimensions, of which the first counts three times."""
  scale = dataclasses.replace(SCALE, dimension_weights=(1.5, 0.5))
  rewards = jnp.array([0.8, 0.2, 0.4, 0.6, 0.1, 0.1, 0.3, 0.5])
  found = critic_losses.overall_reward(rewards, scale)
  np.testing.assert_allclose(found, [[0.7, 0.3], [0.15, 0.2]], rtol=1e-6)


def test_compare():
  """At a scale of 10, differences of 0.1, -0.1 and 0.2."""
  found = critic_losses.compare(
    jnp.array([[0.5, 0.4], [0.3, 0.4], [0.6, 0.4], [0.9, 0.1]]),
    np.stack([FIRST, SAME, FIRST, np.zeros(3)]),
    LossConfig(pair_scale=10.0, theta=5.0),
  )
  expected = -np.log(0.3522) - np.log(0.5793) - np.log(0.5964)
  np.testing.assert_allclose(found, [expected, 2, 3], rtol=1e-4)


@pytest.mark.parametrize(
  ('losses', 'size'),
  [
    (LossConfig(label=1.0), 1),
    (LossConfig(pair=1.0), 2),
    (LossConfig(pair=1.0, overall=1.0), 6),
  ],
)
def test_unit_size(losses, size):
  assert losses.unit_size(num_dimensions=3) == size


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'answer': 0.0}, 'losses.overall are all 0; give one of them a weight'),
    ({'label': -1.0}, 'losses.label is -1'),
    ({'pair': math.nan}, 'losses.pair is nan'),
    ({'overall': -1.0}, 'losses.overall is -1'),
    ({'theta': 1.0}, 'losses.theta is 1; give a number above 1'),
    ({'pair_scale': 0.0}, 'losses.pair_scale is 0'),
  ],
)
def test_bad_settings(changes, message):
  with pytest.raises(UserError, match=message):
    dataclasses.replace(LossConfig(), **changes)
