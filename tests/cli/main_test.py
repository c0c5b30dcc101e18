"""The `lift` command: its help, its flags, and its errors."""

import errno
import importlib
import io
import logging
import os
import pathlib
import subprocess
import sys
import tempfile
import types
from unittest import mock

from absl.testing import parameterized
import jax
import pytest

from lift_jax import __version__
from lift_jax.cli import main
from lift_jax.errors import UserError
import lift_jax.jobs
from lift_jax.jobs import align
from tests.jobs import jobs

pytestmark = pytest.mark.fast

_HELP = """
import sys
from lift_jax.cli import main

assert main.main(['--help']) == 0
heavy = {'jax', 'numpy', 'flax', 'absl', 'av', 'torch', 'huggingface_hub'}
heavy &= set(sys.modules)
assert not heavy, heavy
import lift_jax.annotation.store
assert 'jax' not in sys.modules
"""


# Of what `lift align`, which reads a tokenizer, imports.
_IMPORTS = """
import importlib.util, sys
from lift_jax.cli import main

sys.argv = ['lift', '--version']
assert main.main() == 0
import transformers
import lift_jax.jobs.align
assert importlib.util.find_spec('torch') is None
"""


class HelpTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _setting(self, capsys):
    self.capsys = capsys

  def test_jobs(self):
    """One line per job; without heavy imports."""
    process = subprocess.run(
      [sys.executable, '-c', _HELP], cwd=jobs.REPOSITORY, text=True,
      capture_output=True, check=False,
    )  # fmt: skip
    self.assertEqual(process.returncode, 0, process.stderr)
    words = [line.split() for line in process.stdout.splitlines()]
    for job in main.JOBS:
      self.assertIn(job, [line[0] for line in words if line])

  def test_torch(self):
    """The command runs without it, and so do the libraries it imports."""
    subprocess.run(
      [sys.executable, '-c', _IMPORTS],
      cwd=jobs.REPOSITORY, check=True,
    )  # fmt: skip

  @parameterized.parameters(*main.JOBS)
  def test_job(self, job):
    """Ends with an example of that job."""
    self.assertEqual(main.main([job, '--help']), 0)
    text = self.capsys.readouterr().out
    self.assertIn(f'usage: lift {job} ', text)
    example = text[text.index('example') :]
    self.assertIn(f'lift {job} --', example)
    self.assertLess(len(example.splitlines()), 4)

  def test_every_job_has_a_module(self):
    folder = pathlib.Path(lift_jax.jobs.__file__).parent
    for job in main.JOBS:
      self.assertTrue((folder / f'{job}.py').is_file(), job)

  def test_no_job(self):
    self.assertEqual(main.main([]), 2)
    self.assertIn('jobs:', self.capsys.readouterr().out)

  def test_unknown_job(self):
    self.assertEqual(main.main(['aling']), 2)
    self.assertEqual(
      self.capsys.readouterr().err, "lift: no job 'aling'; see lift --help\n"
    )

  def test_version(self):
    self.assertEqual(main.main(['--version']), 0)
    self.assertRegex(self.capsys.readouterr().out, r'^\d+\.\d+')


_CONFIG = """
from ml_collections import config_dict

def get_config(arg=None):
  config = config_dict.ConfigDict()
  {}
  return config
"""

# A complete config file, and the error message.
_BAD_CONFIGS = {
  'syntax': ('def get_config(arg):\n  return (\n', 'line 2', 'SyntaxError'),
  'name': (_CONFIG.format('config.x = y'), 'line 6', "NameError: name 'y'"),
  'import': ('\nimport nothing_of_the_kind\n', 'line 2', 'ModuleNotFoundError'),
  'attribute': (_CONFIG.format('config.x.y = 1'), 'line 6', 'x'),
  'no function': ('config = 3\n', 'get_config', 'AttributeError'),
  'no config': ('def get_config():\n  pass\n', 'returns NoneType'),
  'no section': (_CONFIG.format('pass'), 'config: missing model, data'),
}


class FlagsTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _setting(self, tmp_path):
    self.folder = tmp_path
    self.workdir = tmp_path / 'run'

  def refused(self, *argv: str) -> str:
    with mock.patch.object(align, 'run', side_effect=AssertionError('it runs')):
      outcome = jobs.lift('align', *argv)
    self.assertEqual(outcome.status, 2)
    self.assertLen(outcome.stderr.splitlines(), 1)
    self.assertStartsWith(outcome.stderr, 'lift align: error: ')
    self.assertFalse(self.workdir.exists())
    return outcome.stderr

  def assert_refused(self, overrides: list[str], *words: str):
    message = self.refused(
      f'--config={jobs.CONFIG}:smoke', f'--workdir={self.workdir}', *overrides
    )
    for word in words:
      self.assertIn(word, message)

  @parameterized.parameters(
    ('train.stepps=3', '--config.train.stepps', 'did you mean steps?'),
    ('trian.steps=3', '--config.trian.steps', 'did you mean train?'),
    ('train.qqqqqq=3', "'qqqqqq'", 'it has ['),
    ('train.steps.more=3', 'config.train.steps is a value'),
    ('train.steps', 'no value', '--config.train.steps=VALUE'),
    ('train.steps=three', '--config.train.steps=three', 'three'),
    ('train.steps=2.5', '--config.train.steps=2.5'),
    ('train.steps=0', 'train.steps is 0', 'above 0'),
    ('train.steps=None', 'train.steps', 'train.epochs'),
    ('train.seed=None', 'config.train.seed is None', 'type int'),
    ('train.export=maybe', '--config.train.export=maybe'),
    ('train=3', '--config.train=3'),
    ('train.trainable=nothing', 'train.trainable', "'blocks', 'all', 'lora'"),
    ('train.ema_decay=1', 'train.ema_decay', '[0, 1)'),
    ('train.profile=3', "train.profile is '3'", 'START:COUNT'),
    ('train.profile=0:2', "train.profile is '0:2'", 'START:COUNT'),
    ('objective.name=ppo', "objective.name is 'ppo'", 'reward_weighted'),
    (
      'objective.reward_weighted=None',
      'objective.reward_weighted is missing',
      'add this section',
    ),
    (
      'objective.reward_weighted.real_weight=-1',
      'objective.reward_weighted.real_weight',
    ),
    ('optimizer.learning_rate=0', 'optimizer.learning_rate', 'above 0'),
    ('checkpoint.keep=0', 'checkpoint', 'above 0'),
    ('model.attention=magic', 'model.attention', "'magic'"),
    ('data.sizes=(16,32)', 'config.data.sizes[0] is 16'),
    ('data.sizes=((16,32,3),)', 'config.data.sizes[0]', '2 items'),
    ('data.sizes=((16,', '--config.data.sizes'),
    ('lora.targets=()', 'lora.targets'),
  )
  def test_override(self, override, *words):
    self.assert_refused([f'--config.{override}'], *words)

  @parameterized.parameters(
    (['--wrokdir=x'], 'wrokdir'),
    (['run'], "'run' is not a flag", 'lift align --help'),
  )
  def test_unknown_flag(self, argv, *words):
    self.assert_refused(argv, *words)

  def test_missing_flag(self):
    self.assertIn(
      '--workdir=DIR is missing', self.refused(f'--config={jobs.CONFIG}')
    )
    self.assertIn(
      '--config=FILE.py is missing', self.refused(f'--workdir={self.workdir}')
    )

  def test_unknown_variant(self):
    message = self.refused(
      f'--config={jobs.CONFIG}:smok', f'--workdir={self.workdir}'
    )
    self.assertIn(
      "variant 'smok' is unknown; this file has ['smoke', 'steps']", message
    )

  @parameterized.parameters('none.py', '', 'data.json')
  def test_no_config_file(self, name):
    (self.folder / 'data.json').write_text('{}')
    message = self.refused(
      f'--config={self.folder / name}', f'--workdir={self.workdir}'
    )
    self.assertIn(f'{self.folder / name} is not a config file', message)

  @parameterized.parameters(*_BAD_CONFIGS)
  def test_bad_config_file(self, name):
    text, *words = _BAD_CONFIGS[name]
    path = self.folder / 'config.py'
    path.write_text(text)
    message = self.refused(f'--config={path}', f'--workdir={self.workdir}')
    for word in words:
      self.assertIn(word, message)

  def test_misspelt_in_the_file(self):
    path = self.folder / 'config.py'
    text = jobs.CONFIG.read_text()
    path.write_text(text.replace("'warmup_steps'", "'warm_up_steps'"))
    message = self.refused(f'--config={path}', f'--workdir={self.workdir}')
    self.assertIn('config.optimizer.warm_up_steps is not a setting', message)
    self.assertIn('did you mean warmup_steps?', message)

  def test_workdir_is_a_file(self):
    path = self.folder / 'file'
    path.write_text('')
    for workdir in (path, path / 'run'):
      message = self.refused(f'--config={jobs.CONFIG}', f'--workdir={workdir}')
      self.assertIn(f'--workdir={workdir}', message)

  def test_workdir_is_a_bucket_of_another_kind(self):
    message = self.refused(f'--config={jobs.CONFIG}', '--workdir=s3://b/run')
    self.assertIn('s3://b/run: s3:// is not supported', message)
    self.assertFalse(pathlib.Path('s3:').exists())

  def test_workdir_not_writable(self):
    self.workdir.mkdir()
    with mock.patch('os.access', return_value=False):
      outcome = jobs.lift(
        'align', f'--config={jobs.CONFIG}', f'--workdir={self.workdir}'
      )
    self.assertEqual(outcome.status, 2)
    self.assertIn('not writable', outcome.stderr)

  def test_accepted(self):
    """Overrides of every kind reach the job."""
    overrides = {
      'train.steps': 'None', 'train.epochs': '1', 'train.batch_size': 'None',
      'train.batch_per_device': '2', 'data.sizes': '((16, 32), (32, 16))',
      'data.real': 'real.json', 'data.fps': '4', 'train.export': 'false',
      'optimizer.learning_rate': '1', 'data.root': 'somewhere',
      'model.random': 'None',
    }  # fmt: skip
    with mock.patch.object(align, 'run') as run:
      outcome = jobs.lift(
        'align', f'--config={jobs.CONFIG}', '--workdir', str(self.workdir),
        *(f'--config.{name}={value}' for name, value in overrides.items()),
      )  # fmt: skip
    self.assertEqual(outcome.stderr, '')
    call, _ = run.call_args[0]
    config = call.config
    self.assertEqual((config.train.steps, config.train.epochs), (None, 1.0))
    self.assertEqual(config.train.batch_size, None)
    self.assertEqual(config.train.batch_per_device, 2)
    self.assertEqual(config.data.sizes, ((16, 32), (32, 16)))
    self.assertEqual(config.data.real, ('real.json',))
    self.assertEqual((config.data.fps, config.data.root), (4.0, 'somewhere'))
    self.assertIs(config.train.export, False)
    self.assertEqual(config.optimizer.learning_rate, 1.0)
    self.assertIsNone(config.model.random)
    self.assertEqual(call.workdir, self.workdir)

  @parameterized.parameters(
    ({'JAX_NUM_PROCESSES': 'two'}, "JAX_NUM_PROCESSES is 'two'"),
    ({}, 'the hosts could not connect', 'JAX_COORDINATOR_ADDRESS'),
  )
  def test_multihost(self, environment, *words):
    with mock.patch.dict('os.environ', environment):
      outcome = jobs.lift(
        'align', f'--config={jobs.CONFIG}', f'--workdir={self.workdir}',
        '--multihost',
      )  # fmt: skip
    self.assertEqual(outcome.status, 2)
    for word in ('--multihost', *words):
      self.assertIn(word, outcome.stderr)


class ErrorTest(parameterized.TestCase):
  def run_raising(self, error: BaseException) -> tuple[int, str]:
    with (
      mock.patch.object(align, 'main', side_effect=error),
      mock.patch('sys.stderr', io.StringIO()) as stderr,
    ):
      return main.main(['align']), stderr.getvalue()

  def test_one_line(self):
    self.assertEqual(
      self.run_raising(UserError('two\n  lines')),
      (2, 'lift align: error: two lines\n'),
    )

  @parameterized.parameters(
    (errno.ENOSPC, 'No space left on device; make room'),
    (errno.EROFS, 'Read-only file system; check who may write there'),
    (errno.EIO, 'Input/output error; check this disk'),
    (errno.ENOTDIR, 'Not a directory; move it away'),
    (errno.EMFILE, 'Too many open files; raise the limit'),
  )
  def test_file(self, number, words):
    error = OSError(number, os.strerror(number), 'a/file')
    status, text = self.run_raising(error)
    self.assertEqual(status, 2)
    self.assertStartsWith(text, f'lift align: error: a/file: {words}')
    self.assertLen(text.splitlines(), 1)

  @parameterized.parameters(
    (MemoryError(), 'too little memory'),
    (
      jax.errors.JaxRuntimeError('RESOURCE_EXHAUSTED: 9 GB\nmore'),
      '9 GB); low',
    ),
    (ModuleNotFoundError("No module named 'wandb'", name='wandb'), 'with pip'),
  )
  def test_machine(self, error, words):
    status, text = self.run_raising(error)
    self.assertEqual(status, 2)
    self.assertIn(words, text)
    self.assertLen(text.splitlines(), 1)

  def test_libraries_are_silent(self):
    reported = []
    with (
      mock.patch.object(sys, 'unraisablehook', reported.append),
      self.assertNoLogs('absl', 'ERROR'),
      self.assertNoLogs('asyncio', 'ERROR'),
    ):
      main.silence_libraries.__wrapped__()
      for name in ('absl', 'asyncio'):
        logging.getLogger(name).error('a traceback')
      for message in ('Event loop is closed', 'another'):
        error = RuntimeError(message)
        sys.unraisablehook(types.SimpleNamespace(exc_value=error))
    self.assertEqual([str(one.exc_value) for one in reported], ['another'])

  def test_interrupted(self):
    self.assertEqual(
      self.run_raising(KeyboardInterrupt()), (130, 'lift align: interrupted\n')
    )


class InternalErrorTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _setting(self, tmp_path, monkeypatch):
    self.workdir, self.temporary = tmp_path / 'run', tmp_path / 'tmp'
    self.temporary.mkdir()
    monkeypatch.setattr(tempfile, 'tempdir', str(self.temporary))

  def report(self, *argv: str, error: Exception | None = None) -> str:
    error = error or ValueError('ours\nand more')
    with mock.patch.object(align, 'main', side_effect=error):
      outcome = jobs.lift('align', *argv)
    self.assertEqual((outcome.status, outcome.stdout), (70, ''))
    start = f'lift align: internal error of lift_jax {__version__}: '
    self.assertStartsWith(outcome.stderr, start)
    return outcome.stderr.removeprefix(start)

  def assert_log(self, report: str, folder: pathlib.Path) -> str:
    (log,) = folder.glob('align_error_*.log')
    self.assertEndsWith(report, f'\nPlease report it with its log: {log}\n')
    self.assertLen(report.splitlines(), 2)
    text = log.read_text()
    for words in ('Traceback', 'lift align', 'Python 3.', 'jax 0.'):
      self.assertIn(words, text)
    return text

  @parameterized.parameters('--workdir=', '-workdir=', '')
  def test_in_the_workdir(self, flag):
    self.workdir.mkdir()
    path = str(self.workdir)
    argv = [flag + path] if flag else ['--workdir', path]
    report = self.report(*argv)
    self.assertStartsWith(report, 'ValueError: ours\n')
    self.assertIn('\nand more\n', self.assert_log(report, self.workdir))
    self.assertEmpty(list(self.temporary.iterdir()))

  @parameterized.parameters('none', 'gs://b/run', '')
  def test_elsewhere(self, workdir):
    """There is no workdir yet, or it is none for files."""
    report = self.report(f'--workdir={workdir}', '--multihost')
    self.assert_log(report, self.temporary)

  def test_nowhere(self):
    """A read-only machine: then the traceback is all there is."""
    with mock.patch.object(
      tempfile, 'mkstemp', side_effect=OSError(errno.EROFS, 'read-only')
    ):
      report = self.report(f'--workdir={self.temporary}')
    self.assertIn('Traceback', report)

  def test_no_temporary_folder(self):
    with mock.patch.object(
      tempfile, 'gettempdir', side_effect=FileNotFoundError
    ):
      self.assertIn('Traceback', self.report())

  @parameterized.parameters(
    FileNotFoundError(errno.ENOENT, 'gone', 'a'),
    ModuleNotFoundError('lift_jax.nothing', name='lift_jax.nothing'),
    KeyError('x'),
  )
  def test_kinds(self, error):
    self.assert_log(self.report(error=error), self.temporary)

  def test_import(self):
    """JAX reads variables of the environment when it is imported."""
    error = ValueError("invalid truth value 'maybe' for JAX_ENABLE_X64")
    with mock.patch.object(importlib, 'import_module', side_effect=error):
      outcome = jobs.lift('align')
    self.assertEqual(outcome.status, 70)
    self.assertIn("'maybe' for JAX_ENABLE_X64", outcome.stderr)
