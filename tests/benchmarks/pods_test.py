"""The tables of plans: their rows, and what is kept of them."""

import json
import pathlib
import subprocess
import sys
from unittest import mock

from absl.testing import parameterized
import pods
import pytest

from lift_jax.cli import job_flags
from lift_jax.planning import job_programs, topology
from lift_jax.runtime.files import write_json

_FILE = pathlib.Path(pods.__file__)


def _program(name: str, seconds: float, fits: bool = True) -> dict:
  program = {
    'name': name,
    'needed': 10 * 2**30,
    'available': 20 * 2**30,
    'fits': fits,
    'done_flops': 6e12,
    'model_flops': 4e12,
  }
  if fits:
    program['estimate'] = {
      'bound': 'compute',
      'overlapped': {
        'seconds': seconds, 'videos_per_second_per_chip': 0.5, 'mfu': 0.6,
      },
      'in_turn': {
        'seconds': 2 * seconds, 'videos_per_second_per_chip': 0.25, 'mfu': 0.3,
      },
    }  # fmt: skip
  return program


def _plan(*programs: dict) -> dict:
  return {'mesh': '8 TPUs: data 1, fsdp 8', 'programs': list(programs)}


class PodsTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _setting(self, tmp_path, capsys):
    self.workdir, self.capsys = tmp_path / 'pods', capsys

  def main(self, *flags: str, answers=()) -> tuple[int, list[list[str]], str]:
    """Status, the commands that were called, and what is printed."""
    calls, answers = [], list(answers)

    def run(command, **_):
      calls.append(command)
      status, output, errors = answers.pop(0)
      return subprocess.CompletedProcess(command, status, output, errors)

    argv = ['pods.py', f'--workdir={self.workdir}', *flags]
    with (
      mock.patch.object(subprocess, 'run', run),
      mock.patch.object(sys, 'argv', argv),
    ):
      status = pods.main()
    return status, calls, self.capsys.readouterr().out

  def test_rows_can_be_planned(self):
    """Their configs resolve without data or weights, and slices are known."""
    keys = set()
    for row in pods.rows():
      command = row.command
      flags = [flag for flag in command if flag.startswith('--config.')]
      file = str(_FILE.parents[1] / 'configs' / row.config)
      config_class, _ = job_programs.JOBS[row.job]
      config, _ = job_flags.read_config(file, flags, config_class)
      self.assertIsInstance(config, config_class)
      self.assertIn(f'--config={file}', command)
      self.assertGreater(topology.parse(row.topology).num_devices, 0)
      keys.add(row.key)
    self.assertLen(keys, len(list(pods.rows())))

  def test_plans_each_row_once(self):
    answer = 0, json.dumps(_plan(_program('training step', 3))), ''
    only = '--only=^align 2B on v5p:4x4x4$'
    status, calls, output = self.main(only, answers=[answer])
    self.assertEqual(status, 0)
    ((*_, topology_flag, json_flag),) = calls
    self.assertEqual(
      (topology_flag, json_flag), ('--topology=v5p:4x4x4', '--json')
    )
    row = (
      '| v5p:4x4x4 | data 1, fsdp 8 |  | 10.0 of 20.0 | 1.50 | 3–6 | compute '
      '| 0.25–0.5 | 30–60 |'
    )
    self.assertIn(row, output.splitlines())
    self.assertIn('### align 2B', output)
    self.assertNotIn('### align 5B', output)
    _, calls, again = self.main(only)
    self.assertEqual((calls, again), ([], output))
    _, calls, again = self.main('--table')
    self.assertEqual((calls, again), ([], output))
    # Of other settings it is another plan.
    layouts = {('align 2B', 'v5p'): ('--config.train.grad_accum=2',)}
    with mock.patch.object(pods, 'LAYOUTS', layouts):
      _, calls, again = self.main(only, answers=[answer])
    self.assertIn('--config.train.grad_accum=2', calls[0])
    self.assertIn('| `train.grad_accum=2` |', again)

  def test_failure(self):
    """It is named, and the others go on."""
    answers = [
      (2, '', 'noise\nlift plan: error: no libtpu'),
      (0, json.dumps(_plan(_program('training step', 3, fits=False))), ''),
    ]
    with mock.patch('sys.stderr') as stderr:
      status, calls, output = self.main(
        '--only=align 2B on v5p:(2x2x1|4x4x4)', answers=answers
      )
    said = ''.join(call.args[0] for call in stderr.write.call_args_list)
    self.assertIn('align 2B on v5p:2x2x1: lift plan: error: no libtpu', said)
    self.assertEqual(status, 1)
    self.assertLen(calls, 2)
    self.assertIn('10.0 of 20.0: does not fit |', output)
    self.assertNotIn('v5p:2x2x1', output)

  def test_weak_scaling(self):
    """The table in the document follows from the rows above it."""
    document = (_FILE.parents[1] / 'docs' / 'pods.md').read_text('utf-8')
    _, planned = document.split('### align 2B\n')
    rows = {row.topology: row for row in pods.rows() if row.name == 'align 2B'}
    self.workdir.mkdir()
    for line in planned.partition('###')[0].splitlines():
      cells = line[2:-2].split(' | ')
      if row := rows.get(cells[0]):
        seconds, _, rates, _ = cells[-4:]
        program = _program('training step', 0)
        fast, slow = map(float, seconds.split('–'))
        program['estimate']['overlapped']['seconds'] = fast
        program['estimate']['in_turn'] |= {
          'seconds': slow,
          'videos_per_second_per_chip': float(rates.split('–')[0]),
        }
        write_json(
          pods._path(self.workdir, row),
          {'settings': row.settings, 'plan': _plan(program)},
        )
    _, _, output = self.main('--table')
    heading, table = output[output.index('## Weak') :].split('\n\n')
    self.assertLen(table.splitlines(), 6)
    _, scaling = document.split(heading)
    self.assertIn(f'\n\n{table}\n', scaling)

  def test_main_program(self):
    """The slowest, unless one does not fit."""
    slow, fast = _program('slow', 9), _program('fast', 1)
    large = _program('large', 0, fits=False)
    self.assertIs(pods._main_program([fast, slow]), slow)
    self.assertIs(pods._main_program([slow, large, fast]), large)
