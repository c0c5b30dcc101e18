"""Kills a process 20 times while it saves answers: none is lost or doubled.

python benchmarks/annotation_kills.py
"""

import pathlib
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.annotation.crash_test import check_kills  # noqa: E402

KILLS = 20


def main() -> None:
  with tempfile.TemporaryDirectory() as folder:
    number = check_kills(pathlib.Path(folder), KILLS, seed=1)
  print(f'{KILLS} kills, {number} answers: none lost, none doubled')


if __name__ == '__main__':
  main()
