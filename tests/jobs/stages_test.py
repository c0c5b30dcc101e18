"""Stages of jobs that run other jobs."""

import json
import logging

import ml_collections
import pytest

from lift_jax.cli import job_flags
from lift_jax.errors import UserError
from lift_jax.jobs.stages import StagedJob
from tests import threaded_hosts

pytestmark = pytest.mark.fast


def _job(workdir) -> StagedJob:
  source = ml_collections.ConfigDict({'sizes': {'steps': 3}, 'seed': 1})
  call = job_flags.Invocation(None, source, workdir)
  names = ('round_1/sample', 'round_1/align')
  return StagedJob(call, 'rounds', names, logging.getLogger('test'))


def test_once(tmp_path):
  done = []
  for _ in range(2):
    job = _job(tmp_path)
    job.stage('round_1/sample', {'steps': (1, 2)}, lambda: done.append('one'))
    job.stage('round_1/align', {}, lambda: done.append('two'))
  assert done == ['one', 'two']
  assert list(job.seconds()) == ['round_1/sample', 'round_1/align']


def test_interrupted(tmp_path):
  """A stage that raises has no marker, and runs again."""

  def fail():
    raise KeyboardInterrupt

  job, done = _job(tmp_path), []
  with pytest.raises(KeyboardInterrupt):
    job.stage('round_1/align', {}, fail)
  job.stage('round_1/align', {}, lambda: done.append(1))
  assert done == [1]


def test_other_settings(tmp_path):
  job = _job(tmp_path)
  job.stage('round_1/sample', {'train': {'steps': 1}}, lambda: None)
  with pytest.raises(
    UserError, match=r"'round_1/sample' was made with train.steps = 1, .* now 2"
  ):
    job.stage('round_1/sample', {'train': {'steps': 2}}, lambda: None)


def test_hosts(tmp_path):
  """All hosts run a stage; the primary one writes that it is finished."""
  done = []

  def host(number):
    job = _job(tmp_path)
    for _ in range(2):
      job.stage('round_1/align', {'seed': 1}, lambda: done.append(number))

  threaded_hosts.run(2, host)
  assert sorted(done) == [0, 1]
  marker = tmp_path / 'stages' / 'round_1' / 'align.json'
  assert json.loads(marker.read_text())['made_of'] == {'seed': 1}
