"""When the warning comes, and how often."""

import logging

import pytest

from lift_jax.training.drift import DriftWarning

pytestmark = pytest.mark.fast


def warned_at(changes, window, caplog):
  """Steps of the warnings; a change of None is of a batch without pairs."""
  watch = DriftWarning('winner_change', window, logging.getLogger('drift'))
  steps = []
  for step, change in enumerate(changes, 1):
    caplog.clear()
    count = 0 if change is None else 2
    watch(
      step,
      {'sum/winner_change': change or 0.0, 'count/winner_change': count},
    )
    steps += [step] * len(caplog.records)
    for record in caplog.records:
      assert f'up to step {step}' in record.getMessage()
      assert 'lower optimizer.learning_rate' in record.getMessage()
  return steps


@pytest.mark.parametrize(
  'changes, window, steps',
  [
    ([0.1, 0.2, 0.1, 0.3, 0.1, 0.1, 0.1], 3, [3, 6]),
    ([0.1, 0.1, -0.1, 0.1, 0.1, 0.1], 3, [6]),
    ([0.1, 0.0, 0.1, 0.0], 2, []),
    ([0.1, None, 0.1], 2, [3]),
  ],
)
def test_warnings(changes, window, steps, caplog):
  assert warned_at(changes, window, caplog) == steps
