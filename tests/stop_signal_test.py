"""SIGTERM is noted inside, and does what it did before outside."""

import os
import signal
from unittest import mock

from jax.experimental import multihost_utils
import pytest

from lift_jax.stop_signal import StopSignal


@pytest.fixture
def received():
  """Signals that reached the handler of a caller."""
  numbers = []
  before = signal.signal(signal.SIGTERM, lambda number, _: numbers.append(1))
  yield numbers
  signal.signal(signal.SIGTERM, before)


def terminate():
  os.kill(os.getpid(), signal.SIGTERM)


@pytest.mark.parametrize('together', [False, True])
def test_one_host(received, together):
  with StopSignal(together) as stop:
    assert not stop.received and not stop.everywhere(0)
    terminate()
    assert stop.received
    assert stop.everywhere(1) and stop.everywhere(2)
    terminate()
  assert not received
  terminate()
  assert received == [1]


def test_handler_returns_after_an_error(received):
  with pytest.raises(KeyError), StopSignal(together=False) as stop:
    terminate()
    raise KeyError
  assert stop.received and not received
  terminate()
  assert received == [1]


def test_nothing_is_kept_for_the_next(received):
  with StopSignal(together=False):
    terminate()
  with StopSignal(together=False) as stop:
    assert not stop.received


def test_several_hosts_in_step(received):
  """JAX is asked, and the handler left to it."""
  with (
    mock.patch('jax.process_count', return_value=2),
    mock.patch.object(
      multihost_utils,
      'reached_preemption_sync_point',
      side_effect=lambda step: step == 7,
    ) as reached,
    StopSignal(together=True) as stop,
  ):
    terminate()
    assert received == [1] and not stop.received
    assert [stop.everywhere(step) for step in (6, 7)] == [False, True]
  assert reached.call_count == 2


def test_several_hosts_on_their_own(received):
  with (
    mock.patch('jax.process_count', return_value=2),
    StopSignal(together=False) as stop,
  ):
    terminate()
    assert stop.received and stop.everywhere(0) and not received
