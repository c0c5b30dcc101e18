"""Paths on disk; those in a bucket in a process of its own, `gcs_checks`."""

import os
import pathlib
import subprocess
import sys

import pytest

from lift_jax.errors import UserError
from lift_jax.runtime import storage
from tests import gcs

_CHECKS = pathlib.Path(__file__).with_name('gcs_checks.py')


def test_bucket():
  with gcs.bucket() as bucket:
    outcome = subprocess.run(
      [sys.executable, '-m', 'pytest', '-q', '-p', 'no:cacheprovider', _CHECKS],
      env=os.environ | bucket.environment,
      timeout=200,
      capture_output=True,
      text=True,
    )
  print(outcome.stdout)
  assert outcome.returncode == 0, outcome.stderr


@pytest.mark.fast
def test_local(tmp_path, monkeypatch):
  monkeypatch.setenv('HOME', str(tmp_path))
  assert storage.to_path('~/x') == tmp_path / 'x'
  assert storage.to_path('a/b') == pathlib.Path('a/b')
  assert storage.resolved(pathlib.Path('a')) == pathlib.Path('a').resolve()
  assert storage.join(tmp_path, 'a') == tmp_path / 'a'
  path = tmp_path / 'x'
  path.write_bytes(b'\xef\xbb\xbfa\r\nb')
  assert storage.read_text(path, 'utf-8-sig') == 'a\nb'
  with storage.local_file(path) as local:
    assert local is path
  assert storage.local_copy(path) is path
  mirror = storage.Mirror(tmp_path)
  assert mirror.local is tmp_path
  mirror.close()
  assert path.exists()


@pytest.mark.fast
def test_unknown_user():
  with pytest.raises(UserError, match='^~nosuchuser/x: .*; write the full'):
    storage.to_path('~nosuchuser/x')


@pytest.mark.fast
def test_other_scheme():
  with pytest.raises(UserError, match='s3:// is not supported'):
    storage.to_path('s3://bucket/x')
