"""Paths, disks and environments as they are found: the table of the docs."""

import os
import pwd
import tempfile
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lift_jax.cli import job_flags
from lift_jax.data.contact_sheet import write_contact_sheet
from lift_jax.data.video_write import write_mp4
from lift_jax.errors import UserError
from lift_jax.jobs import align
from lift_jax.runtime import files, lock
from lift_jax.training import main as training_main
from lift_jax.training import metrics
from lift_jax.training.state import TrainState
from lift_jax.weights import checkpoints, safetensors_files
from tests import doc_tables
from tests.jobs import jobs

pytestmark = pytest.mark.fast


_RUNS = AssertionError('it runs')


def lift(*argv: str, job: str = 'align', error=_RUNS) -> jobs.Outcome:
  """A job that stops where it would run."""
  with mock.patch.object(align, 'run', side_effect=error):
    return jobs.lift(job, *argv)


def refused(*argv: str, **kwargs) -> str:
  outcome = lift(*argv, **kwargs)
  assert (outcome.status, outcome.stdout) == (2, ''), outcome
  assert len(outcome.stderr.splitlines()) == 1, outcome.stderr
  return outcome.stderr


def config(*changes: str) -> list[str]:
  return [
    f'--config={jobs.CONFIG}:smoke',
    *(f'--config.{change}' for change in changes),
  ]


def check_home(folder, monkeypatch):
  assert '~nosuchuser/x: Could not' in refused(
    *config(), '--workdir=~nosuchuser/x'
  )
  monkeypatch.delenv('HOME')
  monkeypatch.setattr(pwd, 'getpwuid', mock.Mock(side_effect=KeyError))
  message = refused(*config(), '--workdir=~/run')
  assert '~/run: Could not determine home' in message
  assert 'write the full path' in message
  message = refused('--from=~/x', f'--to={folder}/to', job='convert')
  assert '~/x: Could not determine home' in message


def check_nul(folder, monkeypatch):
  path = folder / 'config.py'
  path.write_text(
    jobs.CONFIG.read_text().replace("'root': ''", "'root': 'a\\0b'")
  )
  message = refused(f'--config={path}:smoke', f'--workdir={folder}/run')
  assert "config.data.root is 'a\\x00b'; it must not contain NUL" in message


def check_file_for_folder(folder, monkeypatch):
  for name in ('checkpoints', 'tensorboard', 'export'):
    workdir = folder / f'with_{name}'
    workdir.mkdir()
    (workdir / name).write_text('')
    train = mock.Mock(side_effect=AssertionError('it makes a mesh'))
    with pytest.raises(UserError, match=f'{workdir / name} is a file'):
      training_main.run('align', train, mock.Mock(), workdir, mock.Mock())
  (folder / 'run' / 'align_config.json').mkdir(parents=True)

  def write(call, logger):
    job_flags.write_config(call, 'align')

  message = refused(*config(), f'--workdir={folder}/run', error=write)
  assert f'{folder}/run/align_config.json: Is a directory; move' in message
  assert not jobs.leftovers(folder)


def check_no_checkpoint_folder(folder, monkeypatch):
  """`checkpoints_test` looks for threads that would wait."""
  config = checkpoints.CheckpointConfig(1, 1)
  with pytest.raises(UserError, match='no folder for checkpoints'):
    (folder / 'file').write_text('')
    checkpoints.TrainCheckpoints(folder / 'file' / 'checkpoints', config, {})


def check_checkpoint(folder, monkeypatch):
  """`checkpoints_test` has every item."""
  config = checkpoints.CheckpointConfig(1, 1)
  with checkpoints.TrainCheckpoints(folder, config, {}) as saved:
    saved.save(1, TrainState(np.zeros((), int), {}, (), None), {})
    saved.wait()
    (folder / '1' / 'belongs_to' / 'metadata').write_text('[]')
    with pytest.raises(
      UserError, match='is \\[\\], not.*; delete it to resume'
    ):
      saved.check(1)


def check_no_metadata(folder, monkeypatch):
  checkpoints.save_params(folder / 'params', params := {'w': jnp.ones(3)})
  (folder / 'params' / '_METADATA').unlink()
  abstract = jax.eval_shape(lambda: params)
  with pytest.raises(UserError, match='convert the model again'):
    checkpoints.load_params(folder / 'params', abstract, None)


def check_full_disk(folder, monkeypatch):
  """Each kind of file: text, image, clip, tensors, metrics and the lock."""
  noise = np.random.default_rng(0).integers(0, 255, (9, 64, 64, 3), np.uint8)
  tensors = [('w', (9000,), np.float32, lambda: np.zeros(9000, np.float32))]

  def write_metrics(path):
    writer = metrics.MetricWriter(
      folder, enabled=True, wandb_project='', resume_step=0
    )
    with writer:
      for step in range(99):
        writer.write(step, {'loss': 1.0})

  kinds = {
    'a.json': lambda path: files.write_json(path, ['x'] * 9000),
    'a.png': lambda path: write_contact_sheet(path, []),
    'a.mp4': lambda path: write_mp4(path, noise),
    'a.safetensors': lambda path: safetensors_files.write(path, tensors),
    'tensorboard': write_metrics,
  }
  for name, write in kinds.items():
    with jobs.full_disk() as fill, monkeypatch.context() as patch:
      fill(200)
      patch.setattr(align, 'main', lambda argv, n=name, w=write: w(folder / n))
      outcome = jobs.lift('align')
    assert outcome.status == 2
    message = f'lift align: error: {folder / name}: File too large; make room'
    assert outcome.stderr.startswith(message)
    assert len(outcome.stderr.splitlines()) == 1
    assert (folder / name).exists() == (name == 'tensorboard')
  with jobs.full_disk() as fill:
    fill(10)
    outcome = jobs.lift('align', *config(), f'--workdir={folder}/run')
  assert f'{folder}/run/.lock: File too large' in outcome.stderr
  assert not list((folder / 'run').iterdir())
  assert not jobs.leftovers(folder)


def check_no_cache(folder, monkeypatch):
  # pyrefly: ignore[missing-attribute]
  before = jax.config.jax_compilation_cache_dir
  jax.config.update('jax_compilation_cache_dir', None)
  try:
    (folder / 'file').write_text('')
    monkeypatch.setenv('HOME', str(folder / 'file'))
    job_flags.use_compilation_cache()
    monkeypatch.delenv('HOME')
    monkeypatch.setattr(pwd, 'getpwuid', mock.Mock(side_effect=KeyError))
    job_flags.use_compilation_cache()
    assert jax.config.jax_compilation_cache_dir is None
    monkeypatch.setenv('HOME', str(folder / 'home'))
    with mock.patch('os.access', return_value=False):
      job_flags.use_compilation_cache()
    assert jax.config.jax_compilation_cache_dir is None
    job_flags.use_compilation_cache()
    cache = folder / 'home' / '.cache' / 'lift_jax' / 'compiled'
    assert jax.config.jax_compilation_cache_dir == str(cache)
  finally:
    jax.config.update('jax_compilation_cache_dir', before)


def check_full_tmp(folder, monkeypatch):
  nowhere = mock.Mock(side_effect=FileNotFoundError('no usable folder'))
  monkeypatch.setattr(tempfile, 'gettempdir', nowhere)
  outcome = lift(*config(), f'--workdir={folder}', error=None)
  assert (outcome.status, outcome.stderr) == (0, '')
  monkeypatch.setattr(tempfile, 'mkstemp', nowhere)
  outcome = lift(*config(), f'--workdir={folder}', error=KeyError('ours'))
  assert outcome.status == 70 and 'Traceback' in outcome.stderr


def check_tmpdir(folder, monkeypatch):
  monkeypatch.setenv('TMPDIR', str(folder))
  monkeypatch.setattr(tempfile, 'tempdir', None)
  with mock.patch.object(align, 'main', side_effect=KeyError('ours')):
    outcome = jobs.lift('align')
  (log,) = folder.iterdir()
  assert str(log) in outcome.stderr


def with_environment(monkeypatch, flags, **variables):
  with monkeypatch.context() as patch:
    for name, text in variables.items():
      patch.setenv(name, text)
    return refused(*config(), *flags)


def check_coordinator(folder, monkeypatch):
  """`distributed_test` has the other variables."""
  for address in ('first-host', 'first-host:http'):
    message = with_environment(
      monkeypatch,
      ['--multihost', f'--workdir={folder}'],
      JAX_COORDINATOR_ADDRESS=address,
    )
    assert f'JAX_COORDINATOR_ADDRESS is {address!r}; set it to HOST' in message


def check_open_mpi(folder, monkeypatch):
  missing = mock.Mock(side_effect=KeyError('OMPI_COMM_WORLD_SIZE'))
  monkeypatch.setattr(jax.distributed, 'initialize', missing)
  message = refused(*config(), '--multihost', f'--workdir={folder}')
  assert "the environment lacks 'OMPI_COMM_WORLD_SIZE'" in message


def check_forgotten(folder, monkeypatch):
  message = with_environment(
    monkeypatch,
    [f'--workdir={folder}'],
    SLURM_NTASKS='2',
    SLURM_STEP_NODELIST='node[1-2]',
  )
  assert '--multihost is missing: this is one of 2 processes' in message


def check_locked(folder, monkeypatch):
  """Every job that writes to a workdir says so before it reads its inputs."""
  words = f'another job is at work there (process {os.getpid()} on '
  root = jobs.REPOSITORY / 'configs'
  with lock.hold(folder / lock.NAME):
    for job, name in {
      'align': 'align_sample',
      'prepare': 'align_sample',
      'sample': 'sample',
      'score': 'score',
      'train_critic': 'critic_tiny',
      'evaluate': 'eval_critic',
    }.items():
      flags = [f'--config={root / name}.py:smoke', f'--workdir={folder}']
      assert words in refused(*flags, job=job)
    assert words in refused(f'--workdir={folder}', job='demo')
    assert [path.name for path in folder.iterdir()] == [lock.NAME]
  with lock.hold(folder / f'.new{lock.NAME}'):
    flags = [f'--from={folder}', f'--to={folder / "new"}']
    assert words in refused(*flags, job='convert')


def check_stale(folder, monkeypatch):
  """`lock_test` has every way in which a lock becomes stale."""
  owner = lock._this_process() | {'started': '1'}
  files.write_json(folder / lock.NAME, owner)
  outcome = lift(*config(), f'--workdir={folder}', error=None)
  assert (outcome.status, outcome.stderr) == (0, '')
  assert not list(folder.iterdir())


def check_memory(folder, monkeypatch):
  for error in (
    MemoryError(),
    jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: Out of memory'),
  ):
    message = refused(*config(), f'--workdir={folder}', error=error)
    assert 'lower the batch size' in message


def check_package(folder, monkeypatch):
  error = ModuleNotFoundError("No module named 'wandb'", name='wandb')
  message = refused(*config(), f'--workdir={folder}', error=error)
  assert "No module named 'wandb'; install it" in message


def check_ours(folder, monkeypatch):
  """`main_test` looks into the log."""
  outcome = lift(*config(), f'--workdir={folder}', error=KeyError('ours'))
  assert outcome.status == 70
  (log,) = folder.iterdir()
  assert outcome.stderr.endswith(f'its log: {log}\n')


CASES = {
  'a path below `~nosuchuser`, or below `~` without a home folder': check_home,
  'NUL in a setting': check_nul,
  'a file where a job writes a folder (`checkpoints`, `tensorboard`, '
  '`export`), or the other way round': check_file_for_folder,
  'a folder for checkpoints that cannot be created': check_no_checkpoint_folder,
  'a checkpoint that lacks an item, or holds something else': check_checkpoint,
  'a model in our checkpoint format without `_METADATA`': check_no_metadata,
  'a full disk': check_full_disk,
  'a home folder that is read-only or missing, a user without a name': (
    check_no_cache
  ),
  '`/tmp` that is full or read-only': check_full_tmp,
  '`TMPDIR`': check_tmpdir,
  '`JAX_COORDINATOR_ADDRESS` without a port, or with text for it': (
    check_coordinator
  ),
  'half of an Open MPI environment': check_open_mpi,
  'one of several processes of SLURM, Open MPI, a TPU pod or '
  '`JAX_NUM_PROCESSES`, without `--multihost`': check_forgotten,
  'a workdir, a cache or the target of `lift convert` in which another job is '
  'at work': check_locked,
  'the lock of a job that was killed': check_stale,
  'more memory than the machine or its devices have': check_memory,
  'a package that is not installed': check_package,
  'anything else that fails': check_ours,
}


@pytest.mark.parametrize('case', CASES)
def test_table(case, tmp_path, monkeypatch):
  CASES[case](tmp_path, monkeypatch)


def test_every_row():
  rows = doc_tables.rows('inputs.md', 'Machines and errors')
  assert list(rows) == list(CASES)
  for result in rows.values():
    assert result.split()[0].strip(',:;') in ('read', 'flagged', 'refused')
