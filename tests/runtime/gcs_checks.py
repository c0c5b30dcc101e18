"""Paths in a bucket, against the emulator that `storage_test` has started.

Its own process, as libraries read the emulator's address once: pytest does not
collect this file by itself.
"""

import subprocess
import sys
import uuid

import jax.numpy as jnp
import numpy as np
import pytest

from lift_jax.cli import job_flags
from lift_jax.data import cache, records
from lift_jax.errors import UserError
from lift_jax.jobs.align_config import AlignConfig
from lift_jax.models import generators
from lift_jax.runtime import storage
from lift_jax.runtime.files import (
  atomic_folder,
  file_sha256,
  folder_sha256,
  is_complete,
  read_json,
  write_json,
  write_text,
)
from lift_jax.runtime.journal import Journal
from lift_jax.weights import checkpoints, safetensors_files
from tests import gcs
from tests.doc_tables import rows
from tests.jobs import jobs


@pytest.fixture
def folder():
  """A folder of its own, which as yet is only a name."""
  return storage.to_path(f'{gcs.URL}/{uuid.uuid4().hex}')


def names_of(folder) -> list[str]:
  return sorted(path.name for path in storage.children(folder))


class TestPath:
  def test_names(self, folder):
    assert str(folder).startswith('gs://bucket/')
    assert storage.to_path(folder) == folder == storage.resolved(folder)
    assert str(storage.join(folder, 'a/b')) == f'{folder}/a/b'
    assert str(storage.join(folder, '/a/b')) == '/a/b'
    assert storage.join(folder, f'{folder}/c') == folder / 'c'
    assert not folder.exists()
    assert storage.children(folder) == []


class TestFiles:
  def test_json_and_text(self, folder):
    write_json(folder / 'x.json', {'a': 'ü'})
    assert read_json(folder / 'x.json') == {'a': 'ü'}
    write_text(folder / 'x.txt', 'é\n')
    assert storage.read_text(folder / 'x.txt') == 'é\n'
    with pytest.raises(UserError, match='no such file'):
      read_json(folder / 'y.json')

  # aiohttp advises gcsfs to send a file object.
  @pytest.mark.filterwarnings('ignore:Sending a large body')
  def test_large_upload(self, folder, tmp_path):
    """In several requests."""
    data = np.random.default_rng(0).bytes(6 * 2**20)
    (tmp_path / 'x').write_bytes(data)
    storage.copy_file(tmp_path / 'x', folder / 'x')
    storage.copy_file(folder / 'x', tmp_path / 'y')
    assert (tmp_path / 'y').read_bytes() == data

  def test_hashes(self, folder, tmp_path):
    (tmp_path / 'x').write_bytes(b'text')
    storage.upload(tmp_path / 'x', folder / 'x')
    (folder / 'y').write_bytes(b'text')  # without its hash
    wanted = file_sha256(tmp_path / 'x')
    assert storage.uploaded_sha256(folder / 'x') == wanted
    assert storage.uploaded_sha256(folder / 'y') is None
    assert file_sha256(folder / 'x') == file_sha256(folder / 'y') == wanted
    (folder / 'x').write_bytes(b'other')
    assert file_sha256(folder / 'x') != wanted
    storage.copy_folder(folder, tmp_path / 'copy')
    assert folder_sha256(folder) == folder_sha256(tmp_path / 'copy')

  def test_signature(self, folder, tmp_path):
    (tmp_path / 'x').write_bytes(b'text')
    storage.upload(tmp_path / 'x', folder / 'x')
    first = storage.file_signature(folder / 'x')
    assert first[0] == 4
    assert storage.file_signature(folder / 'y') is None
    storage.upload(tmp_path / 'x', folder / 'x')
    second = storage.file_signature(folder / 'x')
    assert second[0] == 4 and second != first

  def test_local_copies(self, folder, tmp_path):
    path = folder / 'x.mp4'
    path.write_bytes(b'text')
    with storage.local_file(path) as local:
      assert (local.suffix, local.read_bytes()) == ('.mp4', b'text')
    assert not local.exists()
    with pytest.raises(UserError, match=f'^{path} is bad$'):
      with storage.local_file(path) as local:
        raise UserError(f'{local} is bad')
    with storage.local_file(folder / 'y') as local:
      assert not local.exists()
    kept = storage.local_copy(path)
    assert kept.read_bytes() == b'text'
    assert storage.local_copy(path) == kept


class TestFolder:
  def test_replaced(self, folder):
    """Readers see that it is incomplete until it is whole."""
    write_text(folder / 'old' / 'x', 'old')
    with atomic_folder(folder) as partial:
      write_text(partial / 'new' / 'x', 'new')
      assert not is_complete(folder)
    assert is_complete(folder)
    assert names_of(folder) == ['new']

  def test_error(self, folder):
    with pytest.raises(KeyError), atomic_folder(folder) as partial:
      write_text(partial / 'x', 'x')
      raise KeyError
    assert not is_complete(folder)


_ADD_AND_DIE = """
import os, signal, sys, time
from lift_jax.runtime import storage
from lift_jax.runtime.journal import Journal
path = storage.to_path(sys.argv[1])
with Journal(path, lambda line: line['key'], 1) as journal:
  journal.add({'key': 'killed'})
  time.sleep(3)
  os.kill(os.getpid(), signal.SIGKILL)
"""


class TestJournal:
  def test_lines(self, folder):
    journal = Journal(folder / 'done.jsonl', lambda line: line['key'])
    assert journal.read() == {}
    for numbers in range(50), range(50, 100):
      with journal:
        for number in numbers:
          journal.add({'key': str(number)})
    # Lines that are added while an object is written share the next one.
    assert 2 <= len(names_of(folder)) < 10
    journal.gather(['7', '3'])
    assert names_of(folder) == ['done.jsonl']
    assert list(journal.read())[:2] == ['7', '3']
    assert len(journal.read()) == 100

  def test_killed_on_another_host(self, folder):
    journal = Journal(folder / 'done.jsonl', lambda line: line['key'])
    killed = subprocess.run(
      [sys.executable, '-c', _ADD_AND_DIE, str(journal.path)], timeout=60
    )
    assert killed.returncode == -9
    journal.gather([])
    assert list(journal.read()) == ['killed']

  def test_not_written(self, folder, monkeypatch):
    """Lines that are lost are an error, at the end at the latest."""

    def fail(*_):
      raise ConnectionError('gone')

    journal = Journal(folder / 'done.jsonl', lambda line: line['key'])
    with pytest.raises(ConnectionError, match='gone'), journal:
      monkeypatch.setattr(type(folder), 'write_bytes', fail)
      journal.add({'key': 'lost'})


class TestMirror:
  def test_sync(self, folder):
    mirror = storage.Mirror(folder)
    (mirror.local / 'a').mkdir()
    with open(mirror.local / 'a' / 'x', 'a') as file:
      for text in ('1', '12'):
        file.write(text[-1])
        file.flush()
        mirror.sync()
        assert (folder / 'a' / 'x').read_bytes().decode() == text
    mirror.close()
    assert not mirror.local.exists()


def test_checkpoint(folder):
  params = {'x': jnp.arange(6.0).reshape(2, 3)}
  checkpoints.save_params(folder / 'params', params)
  found = checkpoints.load_params(folder / 'params', params, None)
  np.testing.assert_array_equal(found['x'], params['x'])


def refusal(call, *args) -> str:
  """The message of a UserError, which is one line."""
  with pytest.raises(UserError) as caught:
    call(*args)
  assert '\n' not in str(caught.value)
  return str(caught.value)


def read_clip(folder, require_files=True):
  (found,) = records.read_alignment(
    folder, ['alignment.json'], require_files=require_files
  ).records
  return found


def write_clip(folder):
  """A data root with one record, whose clip need only exist."""
  write_json(
    folder / 'alignment.json',
    [{'video': 'videos/a.mp4', 'caption': 'A.', 'score': 1}],
  )
  write_text(folder / 'videos' / 'a.mp4', 'a clip')


def check_workdir(folder):
  argv = [f'--config={jobs.CONFIG}', f'--workdir={folder}']
  call = job_flags.parse(argv, AlignConfig, 'align')
  assert call.workdir == folder
  assert names_of(folder) == []
  job_flags.write_config(call, 'align')
  assert names_of(folder) == ['align_config.json']


def check_data(folder):
  write_clip(folder)
  assert read_clip(str(folder)).path == folder / 'videos' / 'a.mp4'


def check_weights(folder):
  values = np.arange(6, dtype=np.float32).reshape(2, 3)
  spec = 'x', values.shape, values.dtype, values.copy
  safetensors_files.write_sharded(folder, 'model', [spec])
  tensor = safetensors_files.open_tensors(str(folder), 'model')['x']
  np.testing.assert_array_equal(tensor[1:, :2], values[1:, :2])
  assert tensor.edges() == values.tobytes() * 2


def check_missing_clip(folder):
  write_clip(folder)
  (folder / 'videos' / 'a.mp4').unlink()
  assert "no video file 'videos/a.mp4'" in refusal(read_clip, folder)
  assert read_clip(folder, require_files=False)


def check_changed_clip(folder):
  write_clip(folder)
  clip = read_clip(folder)
  made = cache.LatentCache(folder / 'cache', {})
  entry = cache.CacheEntry(
    'key',
    clip.video,
    (1, 1, 1),
    'shard',
    0,
    0,
    storage.file_signature(clip.path),
    file_sha256(clip.path),
    (1, 1, 1),
    (),
    0.5,
  )
  write_text(clip.path, 'a clip')  # the same once more
  cache.check_unchanged(made, clip, entry)
  write_text(clip.path, 'b clip')
  message = refusal(cache.check_unchanged, made, clip, entry)
  assert 'the video has changed since it was encoded' in message


def check_incomplete(folder):
  with pytest.raises(KeyError), atomic_folder(folder) as partial:
    write_json(partial / generators.INDEX, {})
    raise KeyError
  message = refusal(generators.open_model, str(folder))
  assert message.startswith(f'{folder} is incomplete')


def check_scheme(folder):
  message = refusal(storage.to_path, 's3://bucket/x')
  assert message.startswith('s3://bucket/x: s3:// is not supported')


def check_no_name(folder):
  assert 'names no bucket' in refusal(storage.to_path, 'gs:///x')


def check_no_bucket(folder):
  message = refusal(storage.to_path, 'gs://another/x')
  assert message.startswith('gs://another cannot be accessed; check the name')


def check_extra(folder):
  with pytest.MonkeyPatch.context() as patch:
    patch.setitem(sys.modules, 'gcsfs', None)
    storage._objects.cache_clear()
    outcome = jobs.lift(
      'align', f'--config={jobs.CONFIG}', '--workdir=gs://another/x'
    )
  assert (outcome.status, outcome.stderr) == (
    2,
    'lift align: error: paths that begin with gs:// need gcsfs; install it as '
    "pip install -e '.[gcs]'\n",
  )


CASES = {
  'workdir `gs://BUCKET/NAME`': check_workdir,
  'data root, and files of records or prompts, on `gs://`': check_data,
  'weights in safetensors on `gs://`': check_weights,
  'a clip that is not in the bucket': check_missing_clip,
  'a clip that was replaced since it was encoded': check_changed_clip,
  'a folder that a killed job was writing': check_incomplete,
  'another scheme, such as `s3://`': check_scheme,
  '`gs://` without the name of a bucket': check_no_name,
  'a bucket that does not exist, or that this account may not list': (
    check_no_bucket
  ),
  '`gs://` where the extra `gcs` is not installed': check_extra,
}


def test_table():
  assert rows('inputs.md', 'Cloud storage').keys() == CASES.keys()


@pytest.mark.parametrize('case', CASES)
def test_case(case, folder):
  CASES[case](folder)
