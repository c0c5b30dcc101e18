"""The benchmark of the CPU, at a size that says nothing about speed."""

import contextlib
import importlib
import json
import os
import pathlib
import subprocess
import sys

from absl.testing import parameterized
import cpu
from cpu_parts import processes, rounds, rows, table
import jax
import numpy as np
import pytest

for package in ('torch', 'diffusers', 'transformers', 'peft'):
  pytest.importorskip(package)

BENCHMARKS = pathlib.Path(__file__).resolve().parents[2] / 'benchmarks'
SCRIPT = BENCHMARKS / 'cpu.py'


class CommandTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.workdir = tmp_path / 'run'

  def test_results(self):
    """In processes of their own, as a person calls it."""
    process = subprocess.run(
      [
        sys.executable,
        str(SCRIPT),
        f'--workdir={self.workdir}',
        '--tiny',
        '--only=train',
        '--rounds=3',
        '--profile',
      ],
      env=os.environ | {'PYTHONPATH': str(BENCHMARKS.parent)},
      capture_output=True,
      text=True,
      check=False,
    )
    self.assertEqual(process.returncode, 0, process.stderr)
    result = json.loads((self.workdir / 'cpu.json').read_text())
    found = result['rows']['train']
    self.assertLen(found['rounds'], 3)
    ratios = []
    for entry in (found['first_round'], *found['rounds']):
      ours, torch = entry['ours'], entry['torch']
      for key in ('loss', 'grad_norm'):
        self.assertGreater(ours[key], 0)
        self.assertLess(abs(ours[key] / torch[key] - 1), 1e-5)
      ratios.append(ours['seconds'] / torch['seconds'])
    # No two batches, timesteps and noises are the same.
    losses = [entry['ours']['loss'] for entry in found['rounds']]
    self.assertLen(set(losses), 3)
    self.assertEqual(found['ratio']['median'], sorted(ratios[1:])[1])
    self.assertEqual(found['ratio']['low'], min(ratios[1:]))
    self.assertGreater(found['videos_read_per_second'], 0)
    self.assertAlmostEqual(
      table.read_per_consumed(found),
      found['videos_read_per_second']
      * sorted(entry['ours']['seconds'] for entry in found['rounds'])[1]
      / 2,
    )
    self.assertIn(
      f'| {found["ratio"]["median"]:.2f} ({found["ratio"]["low"]:.2f} to ',
      process.stdout,
    )
    for side, product in (('ours', 'dot'), ('torch', 'aten::addmm')):
      profile = found['profiles'][side]
      self.assertTrue(any(name.startswith(product) for name in profile))
      # Of the step alone, and nothing twice.
      self.assertBetween(
        sum(profile.values()), 1e-5, 10 * found['first_round'][side]['seconds']
      )
      self.assertIn(f'| {side} | s | % |', process.stdout)
      # A process that has imported as much as that.
      self.assertBetween(found['peak_bytes'][side], 2e8, 4e9)
    # Neither side's process has the packages of the other.
    self.assertNotIn('torch', result['versions']['ours'])
    self.assertNotIn('jax', result['versions']['torch'])
    self.assertEqual(result['versions']['ours']['jax'], jax.__version__)
    self.assertIn(f', jax {jax.__version__}, ', process.stdout)
    # The cache and the weights are gone.
    self.assertEqual(os.listdir(self.workdir), ['cpu.json'])


@contextlib.contextmanager
def _open_here(row, name, folder):
  """A side in this process."""
  side = row.open_side(name, folder, 1)
  yield lambda number, with_profile: rounds.take_turn(
    side, name, number, with_profile
  )


# PEFT's, with the transformers that is installed.
@pytest.mark.filterwarnings('ignore:.*is_gradient_checkpointing:FutureWarning')
class RowsTest(parameterized.TestCase):
  """Each side computes the same, and a difference ends the benchmark."""

  @pytest.fixture(autouse=True)
  def _setting(self, tmp_path, monkeypatch):
    self.folder, self.monkeypatch = tmp_path, monkeypatch

  def assert_differs(self, name: str, message: str):
    """In the second round, so that the first one agreed."""
    (row,) = rows.choose(name)
    with self.assertRaisesRegex(SystemExit, f'{name}: round 1: {message}'):
      rounds.measure(
        row,
        self.folder,
        tiny=True,
        rounds=1,
        with_profile=False,
        open_side=_open_here,
      )

  def test_other_learning_rate(self):
    """The first step is the same, and what it leaves behind is not."""
    torch_side = importlib.import_module('cpu_parts.train_torch').Torch
    make = torch_side.__init__

    def make_another(side, folder):
      make(side, folder)
      side._settings['rates'] = [1e-2] * 2

    self.monkeypatch.setattr(torch_side, '__init__', make_another)
    self.assert_differs('train', '.* here and .* in torch')

  @parameterized.parameters(
    ('train-bf16', 'grad_norm'),
    ('sample', 'frames'),
    ('encode', 'logvar'),
    ('score', 'probabilities'),
    ('train-critic', 'grad_norm'),
  )
  def test_other_result(self, name, key):
    """One number of many, by a few times the tolerance."""
    (row,) = rows.choose(name)
    module = importlib.import_module(f'cpu_parts.{row.module}_torch')
    prepare = module.Torch.__call__

    def prepare_another(side, number):
      run = prepare(side, number)
      return lambda: _changed(run(), key, number * 3 * row.tolerances[key])

    self.monkeypatch.setattr(module.Torch, '__call__', prepare_another)
    self.assert_differs(name, f'{key} is ')


def _changed(results: rows.Results, key: str, share: float) -> rows.Results:
  """Adds to the last number of a result a share of the largest one."""
  array = np.array(results[key])
  array.flat[-1] += share * np.abs(array).max()
  return results | {key: array}


@pytest.mark.fast
class RoundsTest(parameterized.TestCase):
  @parameterized.parameters(
    (2.0, 2.0 + 1e-4, None),
    (2.0, 2.001, 'loss is 2 here and 2.001 in torch'),
    (float('nan'), 2.0, 'loss is nan here'),
    (np.ones(3), np.array([1, 1, 1.1]), 'loss is 0.091 off that in torch'),
    (np.ones(3), np.ones(2), r'loss is \(3,\) here and \(2,\) in torch'),
  )
  def test_check_equal(self, ours, torch, message):
    row = rows.Row('x', 'X', 'x', goal=1.0, tolerances={'loss': 1e-4})
    results = {'loss': ours}, {'loss': torch}
    if message is None:
      rounds.check_equal(row, 3, *results)
    else:
      with self.assertRaisesRegex(SystemExit, f'x: round 3: {message}'):
        rounds.check_equal(row, 3, *results)

  def test_a_process_that_dies(self):
    opened = processes.open_side(
      rows.ROWS[0],
      'ours',
      pathlib.Path('/nowhere'),
      threads=1,
      python='/bin/false',
      versions={},
    )
    with (
      self.assertRaisesRegex(SystemExit, 'process of ours ended with status 1'),
      opened as take_turn,
    ):
      take_turn(0, False)


@pytest.mark.fast
class RefuseTest(parameterized.TestCase):
  """Before it binds its process to some cores, so in this one."""

  @pytest.fixture(autouse=True)
  def _setting(self, tmp_path, monkeypatch, capsys):
    self.workdir, self.monkeypatch = tmp_path / 'run', monkeypatch
    self.capsys = capsys

  def refused(self, *flags: str) -> str | int | None:
    """Runs it; returns the status, or the line that is printed before 1."""
    self.monkeypatch.setattr(
      sys, 'argv', [str(SCRIPT), f'--workdir={self.workdir}', *flags]
    )
    with self.assertRaises(SystemExit) as context:
      cpu.main()
    self.assertFalse(self.workdir.exists())
    return context.exception.code

  def test_without_torch(self):
    self.monkeypatch.setitem(sys.modules, 'torch', None)  # no import succeeds
    self.assertRegex(self.refused(), r'torch is missing; run .*\[test\]')

  @parameterized.parameters(
    ('--threads=999999', '--threads must be from 1 to'),
    ('--only=train,speed', "'speed' is none of train, train-bf16, "),
  )
  def test_bad_flags(self, flag, text):
    self.assertEqual(self.refused(flag), 2)
    self.assertIn(text, self.capsys.readouterr().err)
