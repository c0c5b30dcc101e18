"""Jobs whose workdir, data, models and caches are in a bucket.

Each runs in a process of its own, against an emulator on loopback.
"""

import json

import jax
import numpy as np
import pytest

from tests import gcs
from tests.jobs import jobs, sample_jobs, score_jobs

_MAIN = """
import sys
from lift_jax.cli.main import main
sys.exit(main(sys.argv[1:]))
"""
# Dies while the checkpoint of step 4 is being written.
_KILLED = """
import os, signal, sys
from lift_jax.cli.main import main
from lift_jax.weights.checkpoints import TrainCheckpoints
save = TrainCheckpoints.save
def save_and_die(self, step, *args):
  save(self, step, *args)
  if step == 4:
    os.kill(os.getpid(), signal.SIGKILL)
TrainCheckpoints.save = save_and_die
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture(scope='module')
def bucket():
  with gcs.bucket() as bucket:
    yield bucket


def lift(
  bucket: gcs.Bucket, argv: list[str], code: str = _MAIN, **environment: str
) -> int:
  """The exit status of `lift ARGV`."""
  process = jobs.start(code, argv, **bucket.environment, **environment)
  ((status, output, errors),) = jobs.finish(process)
  print(output, errors)
  return status


@pytest.fixture(scope='module')
def prepared(bucket, world) -> gcs.Bucket:
  """The bucket with clips, a model and the cache that `lift prepare` wrote."""
  bucket.upload(world.root, 'clips')
  bucket.upload(world.workdir / 'model', 'model')
  argv = jobs.flags(
    f'{gcs.URL}/prepared',
    model__path=f'{gcs.URL}/model',
    data__root=f'{gcs.URL}/clips',
    data__synthetic=f'{gcs.URL}/clips/all.json',
    data__cache=f'{gcs.URL}/cache',
  )
  assert lift(bucket, ['prepare', *argv]) == 0
  return bucket


def test_prepare(prepared, world, tmp_path):
  cache = prepared.download('cache', tmp_path / 'cache')
  found = jobs.records_of(cache)
  assert found == jobs.records_of(world.workdir / 'cache')


def test_align_killed_and_resumed(prepared, world, whole, tmp_path):
  """Equal bit for bit to a run on a disk that nothing disturbed."""
  argv = world.align(
    f'{gcs.URL}/run',
    model__path=f'{gcs.URL}/model',
    data__root=f'{gcs.URL}/clips',
    data__cache=f'{gcs.URL}/cache',
    train__export=True,
  )
  # A killed process leaves its copies of the weights there.
  assert lift(prepared, argv, _KILLED, TMPDIR=str(tmp_path)) == -9
  assert 'run/checkpoints/2/commit_success.txt' in prepared.names()
  assert 'run/checkpoints/4/commit_success.txt' not in prepared.names()
  assert lift(prepared, argv) == 0
  run = prepared.download('run', tmp_path / 'run')
  assert jobs.checkpoints_of(run) == ['4', '6']
  jax.tree.map(
    np.testing.assert_array_equal,
    jobs.state_of(run, 6),
    jobs.state_of(whole, 6),
  )
  assert jobs.steps_of(run) == [1, 2, 3, 4, 5, 6]
  # One of each process; the first one's goes to its last checkpoint at least.
  assert len(list((run / 'tensorboard').iterdir())) == 2
  exported = {path.name for path in (run / 'export').iterdir()}
  assert exported == {path.name for path in (world.workdir / 'model').iterdir()}


def test_sample(bucket, world, tmp_path):
  local = tmp_path / 'local'
  model = world.workdir / 'model'
  argv = sample_jobs.arguments(local, model, tmp_path)
  assert jobs.lift(*argv).status == 0
  bucket.upload(model, 'model')
  bucket.write('prompts.txt', (tmp_path / 'prompts.txt').read_bytes())
  argv = sample_jobs.arguments(
    f'{gcs.URL}/samples',
    f'{gcs.URL}/model',
    tmp_path,
    prompts__file=f'{gcs.URL}/prompts.txt',
  )
  assert lift(bucket, argv) == 0
  samples = bucket.download('samples', tmp_path / 'samples')
  assert sample_jobs.files_of(samples) == sample_jobs.files_of(local)


def test_score(bucket, tmp_path):
  world = score_jobs.World(tmp_path)
  bucket.upload(world.critic, 'critic')
  bucket.upload(world.root, 'rated')
  argv = world.arguments(
    f'{gcs.URL}/scores',
    model__path=f'{gcs.URL}/critic',
    videos__root=f'{gcs.URL}/rated',
  )
  assert lift(bucket, argv) == 0
  assert bucket.read('scores/scores.json') == (
    (world.undisturbed / 'scores.json').read_bytes()
  )
  ratings = bucket.read('scores/ratings.jsonl').decode().splitlines()
  assert len(ratings) == len(score_jobs.CLIPS)
  assert json.loads(ratings[0])['stamp'][0] == len(
    (world.root / 'videos' / 'a.mp4').read_bytes()
  )
  assert not [name for name in bucket.names('scores/') if '/.' in name]
