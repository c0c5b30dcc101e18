"""The benchmark of checkpoints, at a size that says nothing about speed."""

import os
import pathlib
import re
import subprocess
import sys

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]


def test_output(tmp_path):
  """As many saves and steps as were asked for, and nothing is left behind."""
  result = subprocess.run(
    [
      sys.executable, 'benchmarks/checkpoints.py',
      '--mebibytes=2', '--saves=2', '--steps=3', f'--folder={tmp_path}',
    ],
    cwd=REPOSITORY,
    env=os.environ | {'PYTHONPATH': str(REPOSITORY)},
    capture_output=True,
    text=True,
    timeout=120,
  )  # fmt: skip
  assert result.returncode == 0, result.stderr
  assert 'a state of 2 MiB, 2 saves\n' in result.stdout
  rows = re.findall(r'\| ([\w ]+) \| [^|]+ \| [^|]+ \| (\d+) \|', result.stdout)
  counts = {name: int(count) for name, count in rows}
  assert counts.pop('a step during a save') >= 2
  assert counts == {
    'a step without a save': 6,
    'the call of save': 2,
    'until the checkpoint is whole': 2,
  }
  assert list(tmp_path.iterdir()) == []
