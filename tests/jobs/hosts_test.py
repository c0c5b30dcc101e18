"""Hosts that lose one another, or are stopped: real processes on this machine.

One of two hosts gets a signal as it ends a piece of work, which is a step, a
clip or a rating. `align_test` has the SIGTERM of a training run.
"""

import json
import re
import signal

from absl.testing import parameterized
import pytest

from lift_jax.data import cache as cache_lib
from lift_jax.runtime.files import file_sha256
from tests.jobs import jobs, runs, sample_jobs, score_jobs

# Does jobs of one kind, or one again and again; each time a host gets a signal,
# or none. Prints the status and the number of pieces.
_HOST = """
import functools, json, os, signal, sys, time
import jax
from lift_jax.runtime import distributed, shutdown
from lift_jax.cli import main
from lift_jax.runtime.journal import Journal
from lift_jax.training.encoding import ClipEncoder
from lift_jax.sampling.loop import ClipWriter
from lift_jax.training.loop import TrainCheckpoints

turns = json.loads(sys.argv[1])
owner, method = {
  'align': (TrainCheckpoints, 'is_due'),
  'prepare': (ClipEncoder, 'captions'),
  'sample': (ClipWriter, 'put'),
  'score': (Journal, 'add'),
}[turns[0][0][0]]
work = getattr(owner, method)

def work_and_stop(self, *args):
  global count
  result = work(self, *args)
  count += 1
  if name == 'SIGTERM' and count == 1:
    distributed.wait_for_all('both are at work')
  if count == number and os.environ['JAX_PROCESS_ID'] == str(host):
    os.kill(os.getpid(), getattr(signal, name))
  if name == 'SIGTERM':
    time.sleep(3)  # JAX looks once a second whether it has come
  return result

setattr(owner, method, work_and_stop)
# JAX waits 100 s otherwise.
jax.distributed.initialize = functools.partial(
  jax.distributed.initialize, heartbeat_timeout_seconds=10
)
for turn, (job, name, host, number) in enumerate(turns):
  count = 0
  status = main.main([*job, *['--multihost'][turn:]])
  print(json.dumps([status, count]), flush=True)
  shutdown._preemption.reached = False  # as in a new process
"""
_UNDISTURBED = ('', 0, 0)


class _HostsTest(parameterized.TestCase):
  """Two hosts, each of which has `num_devices`."""

  num_devices: int

  def hosts(self, *turns: tuple[list[str], str, int, int]):
    """(return code, output, errors) of each.

    Args:
      turns: each time: name and flags of a job, name of a signal, which host
        gets it, and the number of the piece of work, from 1.
    """
    return jobs.two_hosts(_HOST, [json.dumps(turns)], self.num_devices)

  def assert_done(self, job: list[str]) -> str:
    """Both hosts do all there is to do; returns what the first one says."""
    hosts = self.hosts((job, *_UNDISTURBED))
    for status, output, errors in hosts:
      self.assertEqual(status, 0, errors)
      self.assertEqual(turns_of(output)[0][0], 0)
    return hosts[0][1]

  def assert_lost(self, hosts, killed: int):
    """JAX ends the other, within the time that it waits for a sign of life."""
    self.assertEqual(hosts[killed][0], -signal.SIGKILL, hosts[killed][2])
    status, _, errors = hosts[1 - killed]
    self.assertEqual(status, -signal.SIGABRT, errors)
    self.assertIn('another task died', errors)
    return errors


def turns_of(output: str) -> list[tuple[int, int]]:
  """(status, pieces of work) of each turn that came to an end."""
  return [
    tuple(json.loads(line))
    for line in output.splitlines()
    if re.fullmatch(r'\[\d+, \d+\]', line)
  ]


class AlignTest(_HostsTest):
  num_devices = 2

  @pytest.fixture(autouse=True)
  def _setting(self, world, tmp_path):
    self.world, self.folder = world, tmp_path

  def test_killed(self):
    """The other one says so and ends; both go on as if nothing had been."""
    whole, workdir = self.folder / 'whole', self.folder / 'run'
    job = self.world.align(workdir)
    hosts = self.hosts(
      (self.world.align(whole), *_UNDISTURBED), (job, 'SIGKILL', 1, 5)
    )
    errors = self.assert_lost(hosts, killed=1)
    self.assertIn('stopped sending heartbeats', errors)
    for _, output, _ in hosts:
      self.assertEqual(turns_of(output), [(0, jobs.STEPS)])
    self.assertNotIn(str(jobs.STEPS), jobs.checkpoints_of(workdir))
    # That of step 4 may not have been complete.
    self.assertRegex(self.assert_done(job), 'resumed at step [24]')
    runs.assert_same(*(jobs.state_of(w, jobs.STEPS) for w in (workdir, whole)))


class _ApartTest(_HostsTest):
  """Hosts that share the work and do not wait for one another."""

  num_devices = 1

  def assert_stopped_and_lost(self, job, killed: int) -> tuple[str, list[int]]:
    """Both stop on the SIGTERM of one, and then one of them is killed.

    Returns:
      What the first host says, and how many pieces each did till SIGTERM.
    """
    hosts = self.hosts((job, 'SIGTERM', 1, 1), (job, 'SIGKILL', killed, 1))
    self.assertNotIn('Traceback', self.assert_lost(hosts, killed))
    turns = [turns_of(output) for _, output, _ in hosts]
    self.assertEqual([[status for status, _ in t] for t in turns], [[143]] * 2)
    for _, output, _ in hosts:
      self.assertIn('; run again to resume', output)
    return hosts[0][1], [count for ((_, count),) in turns]


class PrepareTest(_ApartTest):
  @pytest.fixture(autouse=True)
  def _setting(self, world, tmp_path):
    self.world, self.workdir = world, tmp_path / 'run'
    self.job = ['prepare', *jobs.flags(
      self.workdir, data__root=world.root, data__synthetic='wide.json',
      model__path=world.workdir / 'model', prepare__records_per_shard=2,
    )]  # fmt: skip

  def test_stopped_and_killed(self):
    """What is encoded stays, but for a shard of the one that was killed."""
    output, counts = self.assert_stopped_and_lost(self.job, killed=0)
    self.assertEqual(counts[1], 1)
    self.assertBetween(counts[0], 1, 3)  # of 4
    self.assertIn(f'{sum(counts)} of 8 clips are in', output)
    self.assertFalse((self.workdir / 'cache' / 'index.json').exists())
    output = self.assert_done(self.job)
    (kept,) = re.findall(r'(\d+) of 8 clips are in', output)
    self.assertBetween(int(kept), sum(counts), 7)
    self.assertEmpty(jobs.leftovers(self.workdir))
    records = jobs.records_of(self.workdir / 'cache')
    expected = jobs.records_of(self.world.workdir / 'cache')
    self.assertLen(records, 8)
    for video, (bucket, data) in records.items():
      self.assertEqual(bucket, expected[video][0])
      runs.assert_same(
        cache_lib.unpack(data),
        cache_lib.unpack(expected[video][1]),
        rtol=1e-5,
        atol=1e-5,
      )


class SampleTest(_ApartTest):
  @pytest.fixture(autouse=True)
  def _setting(self, world, tmp_path):
    self.workdir = tmp_path / 'run'
    mesh = {f'mesh__{axis}': 1 for axis in ('data', 'context', 'tensor')}
    self.job = sample_jobs.arguments(
      self.workdir, world.workdir / 'model', tmp_path, **mesh
    )

  def test_stopped_and_killed(self):
    """What is written stays; of the one that was killed, one is not."""
    output, counts = self.assert_stopped_and_lost(self.job, killed=1)
    self.assertEqual(counts[1], 1)
    self.assertBetween(counts[0], 1, 3)  # of 4
    self.assertIn(f'sample: {sum(counts)} videos, contact sheet', output)
    self.assertIn(f'{counts[0]} of 4 videos are in', output)
    output = self.assert_done(self.job)
    (kept,) = re.findall(r'(\d) of 4 videos are in', output)
    self.assertBetween(int(kept), counts[0], 4)
    lines = sample_jobs.lines_of(self.workdir)
    self.assertEqual(
      [line['prompt'] for line in lines], list(sample_jobs.PROMPTS)
    )
    for line in lines:
      for name, digest in line['files'].items():
        self.assertEqual(file_sha256(self.workdir / name), digest)
    self.assertEmpty(jobs.leftovers(self.workdir))
    self.assertEmpty(list(self.workdir.glob('.manifest-*')))


@pytest.fixture(scope='module')
def critic_world(tmp_path_factory) -> score_jobs.World:
  return score_jobs.World(tmp_path_factory.mktemp('critic'))


class ScoreTest(_ApartTest):
  @pytest.fixture(autouse=True)
  def _setting(self, critic_world, tmp_path):
    self.world, self.workdir = critic_world, tmp_path / 'run'
    mesh = {f'mesh__{axis}': 1 for axis in ('data', 'fsdp', 'tensor')}
    self.job = critic_world.arguments(self.workdir, **mesh, **score_jobs.LESS)

  def test_stopped_and_killed(self):
    """Each rating stays; the host that lives on makes its own first."""
    output, counts = self.assert_stopped_and_lost(self.job, killed=1)
    self.assertEqual(counts[1], 1)
    self.assertBetween(counts[0], 1, 3)  # of 4
    self.assertIn(f'{sum(counts)} of 7 videos in', output)
    self.assertIn(f'{counts[0]} of 4 videos are rated', output)
    self.assertLen(score_jobs.lines_of(self.workdir), 5)
    (part,) = self.workdir.glob('.ratings-*')
    self.assertLen(part.read_text().splitlines(), 1)
    output = self.assert_done(self.job)
    self.assertIn('4 of 4 videos are rated', output)
    self.assertEmpty(jobs.leftovers(self.workdir))
    self.assertEmpty(list(self.workdir.glob('.ratings-*')))
    score_jobs.assert_same_scores(self.workdir, self.world.undisturbed)
