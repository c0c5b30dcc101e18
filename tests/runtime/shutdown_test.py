"""SIGTERM is noted inside the context; outside it works as before."""

import os
import signal

import pytest

from lift_jax.runtime.shutdown import StopSignal
from tests.jobs import jobs


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
    assert not stop.received and not stop.everywhere()
    terminate()
    assert stop.received and stop.everywhere()
    terminate()
  assert not received
  terminate()
  assert received == [1]


def test_handler_is_restored_after_an_error(received):
  with pytest.raises(KeyError), StopSignal(together=False) as stop:
    terminate()
    raise KeyError
  assert stop.received and not received
  terminate()
  assert received == [1]


def test_signal_is_not_kept_for_the_next_context(received):
  with StopSignal(together=False):
    terminate()
  with StopSignal(together=False) as stop:
    assert not stop.received


# Two hosts. The second sends itself SIGTERM, and both wait until JAX has
# propagated it. They print where they stopped.
_HOST = """
import os, signal, time
import jax
from lift_jax.runtime import distributed
from lift_jax.runtime.shutdown import StopSignal

distributed.initialize(True)
host = jax.process_index()

def terminate():
  if host == 1:
    os.kill(os.getpid(), signal.SIGTERM)
  time.sleep(3)  # JAX checks once a second for the signal

def independent(num_items, terminate_at=None):
  with StopSignal(together=False) as stop:
    for item in range(num_items):
      if stop.received:
        return item
      if item == terminate_at:
        terminate()
      time.sleep(0.1 if host else 1)

def lockstep(terminate_at=None):
  with StopSignal(together=True) as stop:
    for step in range(9):
      if step == terminate_at:
        terminate()
      if stop.everywhere():
        return step

{work}
distributed.wait_for_all('end')
"""


@pytest.mark.parametrize(
  ('work', 'expected'),
  [
    # At the next poll of each, though the first has done less by then.
    ('print(independent(90, terminate_at=40))', (range(4, 20), [41])),
    # At the same step, though the first has polled more often before.
    ('independent(4); print(lockstep(terminate_at=3))', ([3], [3])),
    # No host polls when the signal arrives, as while a model is loaded.
    ('independent(4); terminate(); print(lockstep())', ([0], [0])),
  ],
)
def test_several_hosts(work, expected):
  hosts = jobs.two_hosts(_HOST.replace('{work}', work), [], 1)
  for (status, output, errors), where in zip(hosts, expected, strict=True):
    assert status == 0, errors
    assert int(output.splitlines()[-1]) in where, output
