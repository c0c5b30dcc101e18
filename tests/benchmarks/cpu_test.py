"""The benchmark of the CPU, at a size that says nothing about speed."""

import json
import os
import pathlib
import subprocess
import sys

from absl.testing import parameterized
import jax
import pytest

BENCHMARKS = pathlib.Path(__file__).resolve().parents[2] / 'benchmarks'
sys.path.insert(0, str(BENCHMARKS))  # as Python does for a script there

import cpu  # noqa: E402

SCRIPT = BENCHMARKS / 'cpu.py'

# The learning rate of torch alone is a hundred times too large.
_OTHER_RATE = """
import dataclasses, runpy, sys
import cpu_steps

class Torch(cpu_steps.Torch):
  def __init__(self, *args):
    super().__init__(*args)
    self._rate = lambda step: 1e-3

cpu_steps.Torch = Torch
runpy.run_path(sys.argv.pop(1), run_name='__main__')
"""


class CPUTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.workdir = tmp_path / 'run'

  def run_benchmark(
    self, *flags: str, code: str = ''
  ) -> subprocess.CompletedProcess:
    """Runs it, or `code`, which runs it in its own way."""
    folder = jax.config.jax_compilation_cache_dir
    return subprocess.run(
      [
        sys.executable,
        *(['-c', code] if code else []),
        str(SCRIPT),
        f'--workdir={self.workdir}',
        '--tiny',
        '--threads=1',
        *flags,
      ],
      env=os.environ
      | {
        'PYTHONPATH': os.pathsep.join(
          map(str, (BENCHMARKS, BENCHMARKS.parent))
        ),
        'JAX_COMPILATION_CACHE_DIR': folder,
        'JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS': '0.3',
      },
      capture_output=True,
      text=True,
      check=False,
    )

  def assert_refused(self, process, status: int, pattern: str):
    """One line says why, and nothing is kept."""
    self.assertEqual(process.returncode, status, process.stderr)
    self.assertRegex(process.stderr.splitlines()[-1], pattern)
    self.assertNotIn('Traceback', process.stderr)
    self.assertFalse((self.workdir / 'cpu.json').exists())

  def test_results(self):
    process = self.run_benchmark('--rounds=3', '--profile')
    self.assertEqual(process.returncode, 0, process.stderr)
    found = json.loads((self.workdir / 'cpu.json').read_text())
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
    videos = found['videos_per_second']
    self.assertGreater(videos['read'], 0)
    self.assertAlmostEqual(
      videos['consumed'],
      2 / sorted(entry['ours']['seconds'] for entry in found['rounds'])[1],
    )
    self.assertIn('| 3 | ', process.stdout)
    self.assertIn(
      f'median of 3: {found["ratio"]["median"]:.3f}', process.stdout
    )
    for side, product in (('ours', 'dot'), ('torch', 'aten::addmm')):
      profile = found['profiles'][side]
      self.assertTrue(any(name.startswith(product) for name in profile))
      # Of the step alone, and nothing twice.
      self.assertBetween(
        sum(profile.values()), 1e-5, 10 * found['first_round'][side]['seconds']
      )
      self.assertIn(f'| {side} | s | % |', process.stdout)
    # The cache and the weights are gone.
    self.assertEqual(os.listdir(self.workdir), ['cpu.json'])

  def test_other_computation(self):
    """The first step is the same, and what it leaves behind is not."""
    process = self.run_benchmark('--rounds=2', code=_OTHER_RATE)
    self.assert_refused(process, 1, r'round [12]: .* here and .* in torch')


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

  def test_too_many_threads(self):
    self.assertEqual(self.refused('--threads=999999'), 2)
    self.assertIn('--threads must be from 1 to', self.capsys.readouterr().err)
