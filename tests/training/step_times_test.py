"""Times of steps by bucket, on a clock that the test moves."""

import time

import pytest

from lift_jax.training.step_times import StepTimes

pytestmark = pytest.mark.fast


class _Clock:
  """Seconds since the start, and those of them spent on compilation."""

  def __init__(self, monkeypatch):
    self.now = self.compiling = 0.0
    monkeypatch.setattr(time, 'monotonic', lambda: self.now)
    self.times = StepTimes(lambda: self.compiling)

  def step(self, bucket: str, seconds: float) -> None:
    self.now += seconds
    self.times.add(bucket)


@pytest.fixture
def clock(monkeypatch) -> _Clock:
  return _Clock(monkeypatch)


def test_one_bucket(clock):
  clock.step('a', 1.0)
  assert clock.times.metrics() == {}
  assert clock.times.lines() == []


def test_medians(clock):
  for seconds in (1.0, 9.0, 2.0):
    clock.step('tokens 4x8', seconds)
  clock.step('tokens 8x4', 2.5)
  assert clock.times.metrics() == {
    'step_seconds/tokens_4x8': 2.0,
    'step_seconds/tokens_8x4': 2.5,
    'step_seconds_spread': 1.25,
  }
  assert clock.times.lines() == [
    'a step on tokens 4x8 took 2 s',
    'a step on tokens 8x4 took 2.5 s',
    'the slowest bucket took 1.25 x the time of the fastest',
  ]


def test_what_is_not_counted(clock):
  clock.compiling += 3.0
  clock.step('a', 5.0)
  clock.step('a', 2.0)
  clock.now += 7.0  # validation
  clock.times.exclude(7.0)
  clock.step('b', 1.0)
  assert clock.times.medians() == {'a': 2.0, 'b': 1.0}


def test_recent_steps(clock):
  for seconds in (50.0, *[1.0] * 60, *[3.0] * 100):
    clock.step('a', seconds)
  assert clock.times.medians() == {'a': 3.0}
