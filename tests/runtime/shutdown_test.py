"""Signals are noted inside the context; outside it they work as before."""

import os
import signal
import subprocess
import sys
import threading
import time
import weakref

import pytest

from lift_jax.cli import main
from lift_jax.runtime import shutdown
from lift_jax.runtime.shutdown import StopSignal
from tests.jobs import jobs


@pytest.fixture
def received():
  """Signals that reached the handler of a caller."""
  numbers = []
  handlers = {
    number: signal.signal(number, lambda number, _: numbers.append(1))
    for number in (signal.SIGTERM, signal.SIGINT)
  }
  yield numbers
  for number, handler in handlers.items():
    signal.signal(number, handler)


def terminate():
  os.kill(os.getpid(), signal.SIGTERM)


def interrupt():
  os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.parametrize('together', [False, True])
@pytest.mark.parametrize('send', [terminate, interrupt])
def test_one_host(received, together, send):
  with StopSignal(together) as stop:
    assert not stop.received and not stop.everywhere()
    send()
    assert stop.received and stop.everywhere()
    send()
  assert not received
  send()
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


@pytest.fixture
def ended(received, monkeypatch):
  """Is set once the process would end, with which status."""
  ended = threading.Event()
  monkeypatch.setattr(os, '_exit', lambda status: ended.set())
  return ended


def test_interrupted_once(ended):
  with pytest.raises(KeyboardInterrupt), shutdown.Interruptible():
    interrupt()
  assert not ended.is_set()


@pytest.mark.parametrize('together', [False, True])
def test_interrupted_twice(ended, capfd, together):
  with shutdown.Interruptible(), StopSignal(together) as stop:
    interrupt()
    assert stop.received and stop.name == 'Ctrl-C' and not ended.is_set()
    assert shutdown.status() == 130
    interrupt()
    assert ended.wait(5)
  assert capfd.readouterr().err.count('again to end at once') == 2


def test_terminated(ended):
  with shutdown.Interruptible(), StopSignal(together=False) as stop:
    for _ in range(3):
      terminate()
    assert stop.received and stop.name == 'SIGTERM' and not ended.is_set()
    assert shutdown.status() == 143


def test_next_job(received):
  """An interrupt of an earlier job of this process is forgotten."""
  with shutdown.Interruptible(), StopSignal(together=False):
    interrupt()
  with shutdown.Interruptible():
    assert shutdown.status() == 143
  interrupt()
  assert received == [1]


def test_ignored(ended):
  """As of a job that nohup starts."""
  signal.signal(signal.SIGINT, signal.SIG_IGN)
  assert shutdown.end_on_interrupt() is signal.SIG_IGN
  with shutdown.Interruptible(), StopSignal(together=False) as stop:
    interrupt()
    interrupt()
    assert not stop.received and not ended.is_set()
  assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_swallowed(ended, monkeypatch):
  """Python only prints what is raised in a destructor."""
  monkeypatch.setattr(sys, 'unraisablehook', sys.unraisablehook)
  main.silence_libraries.__wrapped__()
  thing = threading.Event()
  reference = weakref.ref(thing, lambda _: interrupt())
  with pytest.raises(KeyboardInterrupt), shutdown.Interruptible():
    del thing
    time.sleep(5)
  assert reference() is None and not ended.is_set()


_IMPORT = """
import importlib, signal
from lift_jax.cli import main

def swallow(name):
  try:
    signal.raise_signal(signal.SIGINT)
  except KeyboardInterrupt:
    print('swallowed')

signal.signal(signal.SIGINT, signal.default_int_handler)
importlib.import_module = swallow
main.main()
"""


def test_interrupted_while_importing():
  process = subprocess.run(
    [sys.executable, '-c', _IMPORT, 'align'], cwd=jobs.REPOSITORY, text=True,
    capture_output=True, check=False,
  )  # fmt: skip
  assert process.returncode == -signal.SIGINT
  assert process.stdout == process.stderr == ''


# Two hosts. The second sends itself a signal, and both wait until JAX has
# propagated it. They print where they stopped.
_HOST = """
import os, signal, time
import jax
from lift_jax.runtime import distributed
from lift_jax.runtime.shutdown import StopSignal

# A shell lets what it starts in the background ignore it.
signal.signal(signal.SIGINT, signal.default_int_handler)
distributed.initialize(True)
host = jax.process_index()

def terminate():
  if host == 1:
    os.kill(os.getpid(), signal.SIGNAL)
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
  ('name', 'work', 'expected'),
  [
    # At the next poll of each, though the first has done less by then.
    (
      'SIGTERM',
      'print(independent(90, terminate_at=40))',
      (range(4, 20), [41]),
    ),
    # At the same step, though the first has polled more often before.
    ('SIGINT', 'independent(4); print(lockstep(terminate_at=3))', ([3], [3])),
    # No host polls when the signal arrives, as while a model is loaded.
    ('SIGTERM', 'independent(4); terminate(); print(lockstep())', ([0], [0])),
  ],
)
def test_several_hosts(name, work, expected):
  code = _HOST.replace('SIGNAL', name).replace('{work}', work)
  hosts = jobs.two_hosts(code, [], 1)
  for (status, output, errors), where in zip(hosts, expected, strict=True):
    assert status == 0, errors
    assert int(output.splitlines()[-1]) in where, output
