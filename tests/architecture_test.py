"""docs/architecture.md lists the rooms that there are."""

import pathlib
import re

import pytest

pytestmark = pytest.mark.fast

REPOSITORY = pathlib.Path(__file__).resolve().parents[1]


def test_rooms():
  page = (REPOSITORY / 'docs' / 'architecture.md').read_text(encoding='utf-8')
  listed = re.findall(r'^\| `(\w+)/` \|', page, re.MULTILINE)
  folders = [
    path.parent.name for path in (REPOSITORY / 'lift_jax').glob('*/__init__.py')
  ]
  assert sorted(listed) == sorted(folders)
