"""The interpreter that `make` takes."""

import os
import pathlib
import shutil
import subprocess
import sys

import pytest

REPOSITORY = pathlib.Path(__file__).resolve().parent.parent

pytestmark = [
  pytest.mark.fast,
  pytest.mark.skipif(shutil.which('make') is None, reason='needs make'),
]

# This Python, which says that it is another version.
_PYTHON = """#!/bin/sh
exec {python} -c '
import collections, sys
sys.version_info = collections.namedtuple("Version", "major minor")(3, {minor})
exec(sys.argv[2])' "$@"
"""
_SHIM = '#!/bin/sh\necho no such version >&2\nexit 127\n'


def first_command(folder, found, *arguments):
  """What `make -n` would run first.

  Args:
    folder: an empty one, for a copy of the Makefile.
    found: minor version of each interpreter on the PATH; None does not start.
    arguments: of make.
  """
  shutil.copy(REPOSITORY / 'Makefile', folder)
  for name in ('setup.py', 'pyproject.toml', 'constraints.txt',
               'constraints-py312.txt'):  # fmt: skip
    (folder / name).touch()
  for name, minor in found.items():
    path = folder / name
    path.write_text(
      _SHIM if minor is None
      else _PYTHON.format(python=sys.executable, minor=minor)
    )  # fmt: skip
    path.chmod(0o755)
  # `make test` hands its own to what it runs.
  of_make = {'MAKEFLAGS', 'MAKELEVEL', 'MFLAGS', 'MAKEOVERRIDES', 'PYTHON'}
  environment = {
    name: value for name, value in os.environ.items() if name not in of_make
  }
  process = subprocess.run(
    ['make', '--dry-run', *arguments], cwd=folder, text=True,
    capture_output=True, check=True,
    env=environment | {'PATH': f'{folder}:{os.environ["PATH"]}'},
  )  # fmt: skip
  return process.stdout.splitlines()[0]


@pytest.mark.parametrize(
  ('found', 'expected'),
  [
    ((11, None, 12), 'python3.12'),
    ((12, 13, None), 'python3.13'),
    ((14, 13, 12), 'python3'),
    ((11, None, None), 'python3'),
    ((10, None, 12), 'python3.12'),
  ],
)
def test_newest_that_runs(found, expected, tmp_path):
  names = ('python3', 'python3.13', 'python3.12')
  found = dict(zip(names, found, strict=True))
  command = first_command(tmp_path, found, 'demo')
  assert command == f'{expected} -m venv --clear .venv'


def test_others_take_python3(tmp_path):
  found = {'python3': 11, 'python3.12': 12, 'python3.13': 13}
  command = first_command(tmp_path, found, 'test')
  assert command == 'python3 -m venv --clear .venv'


def test_named(tmp_path):
  found = {'python3': 11, 'python3.12': 12, 'python3.13': 13}
  command = first_command(tmp_path, found, 'PYTHON=python3.12', 'demo')
  assert command == 'python3.12 -m venv --clear .venv'
