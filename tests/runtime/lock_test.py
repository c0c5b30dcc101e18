"""One job at a time: locks that are held, stale, or of other hosts."""

import json
import os
import pathlib
import subprocess
import threading
import time

from etils import epath
import pytest

from lift_jax.errors import UserError
from lift_jax.runtime import lock

pytestmark = pytest.mark.fast


@pytest.fixture
def path(tmp_path):
  return tmp_path / 'run' / lock.NAME


@pytest.fixture(autouse=True)
def _hasty(monkeypatch):
  monkeypatch.setattr(lock, '_SECONDS_TO_WATCH', 0.3)
  monkeypatch.setattr(lock, '_SECONDS_BETWEEN_RENEWALS', 0.02)


def leave(path: pathlib.Path, **changes) -> None:
  """The lock of this process, or of one that differs from it."""
  path.parent.mkdir()
  path.write_text(json.dumps(lock._this_process() | changes))


def assert_taken_over(path: pathlib.Path) -> None:
  with lock.hold(path):
    assert json.loads(path.read_text())['process'] == os.getpid()
  assert list(path.parent.iterdir()) == []


def assert_refused(path: pathlib.Path, *words: str) -> None:
  before = path.read_text()
  with pytest.raises(UserError) as raised, lock.hold(path):
    pass
  for word in (str(path.parent), f'if that job is gone, delete {path}', *words):
    assert word in str(raised.value)
  assert path.read_text() == before


def test_held(path):
  with lock.hold(path):
    owner = json.loads(path.read_text())
    assert owner['process'] == os.getpid()
    assert owner['started'] == lock._start_time(os.getpid())
    assert_refused(path, 'another job is at work', f'process {os.getpid()} on')
  assert_taken_over(path)


def test_released_after_an_error(path):
  with pytest.raises(KeyError), lock.hold(path):
    raise KeyError
  assert not path.exists()


def test_renewed(path):
  with lock.hold(path):
    first = path.stat().st_mtime_ns
    end = time.monotonic() + 5
    while path.stat().st_mtime_ns == first:
      assert time.monotonic() < end
      time.sleep(0.01)


def test_deleted_by_a_user_and_held_by_another(path):
  with lock.hold(path):
    path.write_text('{"process": 1}')
  assert path.exists()


@pytest.mark.parametrize('is_reaped', [True, False])
def test_killed(path, is_reaped):
  """The process is gone, or only its parent has not noticed."""
  with subprocess.Popen(['sleep', '60']) as process:
    leave(path, process=process.pid, started=lock._start_time(process.pid))
    assert_refused(path, f'process {process.pid} on')
    process.kill()
    if is_reaped:
      process.wait()
    while lock._start_time(process.pid):
      time.sleep(0.01)
    assert_taken_over(path)


def test_process_id_of_another_process(path):
  leave(path, started='1')
  assert_taken_over(path)


def test_other_host(path):
  """It is alive if it renews its lock, whatever its clock says."""
  leave(path, host='far')
  os.utime(path, (1, 1))
  done = threading.Event()
  renewing = threading.Thread(target=lock._renew, args=(path, done))
  renewing.start()
  assert_refused(path, 'on far')
  done.set()
  renewing.join()
  assert_taken_over(path)


@pytest.mark.parametrize('text', ['', '[]', '{}', '{"host": 3}'])
def test_illegible(path, text):
  path.parent.mkdir()
  path.write_text(text)
  assert_taken_over(path)


def test_released_while_it_is_watched(path, monkeypatch):
  leave(path, host='far')
  monkeypatch.setattr(lock, '_is_renewed', lambda path: path.unlink())
  assert_taken_over(path)


def test_taken_over_by_another_in_the_meantime(path, monkeypatch):
  leave(path, host='far')

  def watch(path):
    monkeypatch.undo()
    path.write_text(json.dumps(lock._this_process()))
    return False

  monkeypatch.setattr(lock, '_is_renewed', watch)
  assert_refused_by_new = pytest.raises(UserError, match='another job')
  with assert_refused_by_new, lock.hold(path):
    pass
  assert json.loads(path.read_text())['process'] == os.getpid()


def test_bucket():
  with lock.locked(epath.Path('gs://bucket/run/.lock')):
    pass
  assert not pathlib.Path('gs:').exists()
