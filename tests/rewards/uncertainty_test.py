"""Uncertainty and disagreement of rewards."""

import math

import pytest

from lift_jax.data.rubric import Scale
from lift_jax.rewards import uncertainty

pytestmark = pytest.mark.fast

SCALE = Scale(('one', 'two'), ('Yes', 'No'), (1.0, 0.0))


def critic(one, two):
  """Probabilities of Yes."""
  return {
    name: {'Yes': p, 'No': 1 - p} for name, p in (('one', one), ('two', two))
  }


def test_one_critic():
  """The standard deviation of a coin is sqrt(p (1 - p))."""
  found = uncertainty.uncertainty([critic(0.5, 0.9)], SCALE)
  assert found == pytest.approx((0.5 + 0.3) / 2)
  assert uncertainty.disagreement([critic(0.5, 0.9)], SCALE) == 0


def test_several():
  critics = [critic(0.9, 0.5), critic(0.1, 0.5)]
  assert uncertainty.disagreement(critics, SCALE) == pytest.approx(0.2)
  assert uncertainty.uncertainty(critics, SCALE) == pytest.approx(0.5)


def test_total_variance():
  critics = [critic(p, p) for p in (0.2, 0.5, 0.7)]
  own = [uncertainty.uncertainty([one], SCALE) ** 2 for one in critics]
  between = uncertainty.disagreement(critics, SCALE) ** 2
  total = uncertainty.uncertainty(critics, SCALE)
  assert total == pytest.approx(math.sqrt(between + sum(own) / 3))


def test_dimensions():
  """Only those that all critics answered count."""
  some = {'one': {'Yes': 1.0, 'No': 0.0}}
  other = {'two': {'Yes': 1.0, 'No': 0.0}}
  assert uncertainty.disagreement([critic(0.0, 0.3), some], SCALE) == 0.5
  assert uncertainty.disagreement([some, other], SCALE) == 0
