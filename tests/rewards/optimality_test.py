"""Rewards relative to the other clips of a prompt."""

import numpy as np
import pytest

from lift_jax.rewards.optimality import optimality

pytestmark = pytest.mark.fast


def test_worked_example():
  """Means of the prompts: 0.5 and 1."""
  found = optimality([0.0, 1.0, 1.0, 1.0], ['a', 'a', 'b', 'b'])
  deviation = np.std([0, 1, 1, 1]) + 1e-4
  expected = [0.5 - 0.05 / deviation, 0.5 + 0.05 / deviation, 0.5, 0.5]
  np.testing.assert_allclose(found, expected)


def test_ends():
  """One clip far from the 99 others of its prompt."""
  found = optimality([1.0] + [0.0] * 99, ['a'] * 100)
  assert found[0] == 1
  assert np.all(found[1:] < 0.5)


def test_equal_rewards():
  np.testing.assert_allclose(optimality([0.7] * 3, ['a'] * 3), [0.5] * 3)
