"""The learning rate against diffusers' schedule; the limits of the config."""

import dataclasses

import jax.numpy as jnp
import numpy as np
import pytest

from lift_jax.errors import UserError
from lift_jax.training.optimizer import (
  OptimizerConfig,
  learning_rate_schedule,
  make_optimizer,
)
from tests.optional import Package, torch

optimization = Package('diffusers.optimization')

LIFT = OptimizerConfig(
  learning_rate=1e-5,
  warmup_steps=200,
  cycles=1,
  beta1=0.9,
  beta2=0.95,
  eps=1e-8,
  weight_decay=1e-4,
  clip_norm=1.0,
)


@pytest.mark.parametrize(
  ('cycles', 'warmup', 'num_steps'),
  [(1, 200, 1000), (3, 10, 100), (1, 0, 50), (2, 60, 50)],
)
def test_cosine_with_hard_restarts(cycles, warmup, num_steps):
  config = dataclasses.replace(LIFT, cycles=cycles, warmup_steps=warmup)
  optimizer = torch.optim.SGD([torch.zeros(1)], lr=config.learning_rate)
  theirs = optimization.get_cosine_with_hard_restarts_schedule_with_warmup(
    optimizer, warmup, num_steps, num_cycles=cycles
  ).lr_lambdas[0]
  steps = range(num_steps + 1)
  np.testing.assert_allclose(
    [learning_rate_schedule(config, num_steps)(step) for step in steps],
    [config.learning_rate * theirs(step) for step in steps],
    rtol=1e-4,
    atol=1e-12,
  )


@pytest.mark.fast
def test_rates_of_parts():
  """A part moves as with an optimizer of its own at its rate.

  The gradients are clipped together.
  """
  params = {'a': {'x': jnp.ones(3)}, 'b': jnp.full(2, 2.0)}
  grads = {'a': {'x': jnp.array([0.1, -0.2, 0.3])}, 'b': jnp.array([0.4, -9])}
  config = dataclasses.replace(LIFT, warmup_steps=0, weight_decay=0.1)

  def updates(config, *peak_of):
    tx = make_optimizer(config, 10, *peak_of)
    return tx.update(grads, tx.init(params), params)[0]

  mixed = updates(config, lambda name: 2e-5 if name == 'b' else 1e-5)
  same = updates(config)
  np.testing.assert_array_equal(mixed['a']['x'], same['a']['x'])
  double = updates(dataclasses.replace(config, learning_rate=2e-5))
  np.testing.assert_allclose(mixed['b'], double['b'], rtol=1e-6)


@pytest.mark.parametrize(
  ('change', 'message'),
  [
    ({'learning_rate': 0.0}, 'learning_rate must be above 0'),
    ({'clip_norm': -1.0}, 'clip_norm must be above 0'),
    ({'cycles': 0}, 'cycles must be above 0'),
    ({'warmup_steps': -1}, 'warmup_steps must not be below 0'),
  ],
)
def test_bad_values(change, message):
  with pytest.raises(UserError, match=message):
    dataclasses.replace(LIFT, **change)
