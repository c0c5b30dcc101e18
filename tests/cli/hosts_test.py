"""Hosts that lose one another: real processes on this machine."""

import pathlib
import signal

from absl.testing import parameterized
import pytest

from tests.cli import jobs, runs

# Of two hosts the second may die as it comes to the end of a step.
_HOST = """
import functools, os, signal, sys
import jax
from lift_jax.cli import main
from lift_jax.training import loop

dies_at = int(sys.argv[1])
is_due = loop.TrainCheckpoints.is_due

def die_then(self, step):
  if step == dies_at and os.environ['JAX_PROCESS_ID'] == '1':
    os.kill(os.getpid(), signal.SIGKILL)
  return is_due(self, step)

loop.TrainCheckpoints.is_due = die_then
# JAX waits 100 s otherwise.
jax.distributed.initialize = functools.partial(
  jax.distributed.initialize, heartbeat_timeout_seconds=10
)
sys.exit(main.main([*sys.argv[2:], '--multihost']))
"""


class LostHostTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _setting(self, world, tmp_path):
    self.world, self.folder = world, tmp_path

  def hosts(self, workdir: pathlib.Path, dies_at: int):
    argv = [str(dies_at), *self.world.align(workdir)]
    return jobs.two_hosts(_HOST, argv, 2)

  def test_killed(self):
    """The other one says so and ends; both go on as if nothing had been."""
    whole, workdir = self.folder / 'whole', self.folder / 'run'
    for status, _, errors in self.hosts(whole, 0):
      self.assertEqual(status, 0, errors)
    (status, _, errors), (killed, *_) = self.hosts(workdir, 5)
    self.assertEqual(killed, -signal.SIGKILL)
    # JAX ends the process, within the time that it waits for a sign of life.
    self.assertEqual(status, -signal.SIGABRT, errors)
    self.assertIn('stopped sending heartbeats', errors)
    self.assertIn('another task died', errors)
    self.assertNotIn(str(jobs.STEPS), jobs.checkpoints_of(workdir))
    hosts = self.hosts(workdir, 0)
    for status, _, errors in hosts:
      self.assertEqual(status, 0, errors)
    # That of step 4 may not have been complete.
    self.assertRegex(hosts[0][1], 'resumed at step [24]')
    runs.assert_same(*(jobs.state_of(w, jobs.STEPS) for w in (workdir, whole)))
