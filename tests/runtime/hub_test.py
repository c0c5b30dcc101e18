"""Ids of the Hugging Face Hub: what is downloaded, and what goes wrong."""

import errno
import logging
import os
import pathlib
import socket
import subprocess
import sys
from unittest import mock

import pytest

from lift_jax.errors import UserError
from lift_jax.models import adapter_files
from lift_jax.runtime import hub
from tests import doc_tables, hub_server

REPOSITORY = pathlib.Path(__file__).resolve().parents[2]

CARD = b'---\nlicense: other\nlicense_name: some-licence\n---\n# A model\n'

MODEL = {
  'README.md': CARD,
  'index.json': b'{"index": 1}',
  'net/config.json': b'{"config": 1}',
  'net/tokenizer.model': b'a vocabulary',
  'net/model.safetensors': b'weights',
  'net/model.fp16.safetensors': b'half the weights',
  'net/model.bin': b'a pickle',
  'other/config.json': b'{"config": 2}',
  'sample.mp4': b'a film',
}
TEXTS = ['README.md', 'index.json', 'net/config.json', 'net/tokenizer.model']
READ = [*TEXTS[:3], 'net/model.safetensors', 'net/tokenizer.model']

DATA = {
  'README.md': b'---\nlicense: mit\n---\n',
  'records.json': b'[]',
  'videos/a.mp4': b'clip a',
  'videos/b.mp4': b'clip b',
  'videos/c.mp4': b'clip c',
}


@pytest.fixture
def server():
  with hub_server.serve() as server:
    yield server


@pytest.fixture
def library(server, tmp_path):
  """The library, with this server and an empty cache."""
  with hub_server.use(server.url, tmp_path / 'hub'):
    yield


def another_process(server, tmp_path, **settings):
  """The same cache, and nothing in memory."""
  return hub_server.use(
    settings.pop('url', server.url), tmp_path / 'hub', **settings
  )


def model(text, **options):
  folder = hub.model_folder(text, ('index.json',), lambda _: ['net'], **options)
  return pathlib.Path(folder)


def files_of(folder):
  return sorted(
    path.relative_to(folder).as_posix()
    for path in folder.rglob('*')
    if path.is_file()
  )


def refused(text, *words, call=model):
  """The message of the UserError, which has one line and these words."""
  with pytest.raises(UserError) as raised:
    call(text)
  message = str(raised.value)
  assert len(message.splitlines()) == 1
  for word in (text, *words):
    assert word in message, message


@pytest.mark.fast
class TestModels:
  def test_adapters(self, server, library):
    files = {
      'adapter_config.json': b'{}',
      'adapter_model.safetensors': b'adapters',
      'prompts.json': b'[]',
    }
    more = {'non_lora_trainables.bin': b'', 'step-9/prompts.json': b'[1]'}
    server.add('models/org/name', files | more)
    folder = hub.model_folder('org/name', adapter_files.HUB_FILES)
    assert files_of(pathlib.Path(folder)) == sorted(files)

  def test_only_files_that_are_needed(self, server, library):
    commit = server.add('models/org/name', MODEL)
    folder = model('org/name')
    assert folder.name == commit
    assert files_of(folder) == READ
    assert server.downloads() == READ
    for name in READ:
      assert (folder / name).read_bytes() == MODEL[name]

  def test_all_folders(self, server, library):
    """'' is the whole repository, without what is never read."""
    server.add('models/org/name', MODEL)
    folder = hub.model_folder('org/name', ('index.json',), lambda _: [''])
    assert files_of(pathlib.Path(folder)) == sorted(
      [*READ, 'other/config.json']
    )

  def test_without_weights(self, server, library):
    server.add('models/org/name', MODEL)
    assert files_of(model('org/name', weights=False)) == TEXTS

  def test_another_kind_of_model(self, server, library):
    """It is refused before its weights are downloaded."""

    def find_folders(folder):
      raise UserError(f'{folder}: {(folder / "index.json").read_text()}')

    server.add('models/org/name', MODEL)
    with pytest.raises(UserError, match='"index": 1'):
      hub.model_folder('org/name', ('index.json',), find_folders)
    assert server.downloads() == ['README.md', 'index.json']

  def test_revisions(self, server, library):
    first = server.add('models/org/name', MODEL)
    second = server.add('models/org/name', MODEL | {'index.json': b'[2]'})
    server.repositories['models/org/name'].branches |= {
      'v1': first,
      'refs/pr/1': first,
    }
    for revision in (first, 'v1', 'refs/pr/1'):
      folder = model(f'org/name@{revision}')
      assert folder.name == first
      assert (folder / 'index.json').read_bytes() == MODEL['index.json']
    folder = model('org/name')
    assert folder.name == second
    assert (folder / 'index.json').read_bytes() == b'[2]'
    refused('org/name@v3', "no revision 'v3'")

  def test_one_commit_for_a_run(self, server, library, tmp_path):
    """A branch that moves meanwhile does not matter, but to the next run."""
    server.add('models/org/name', MODEL)
    first = model('org/name', weights=False)
    server.add('models/org/name', MODEL | {'index.json': b'[2]'})
    assert model('org/name') == first
    with another_process(server, tmp_path):
      assert model('org/name') != first

  def test_cache(self, server, library, tmp_path):
    """Nothing is downloaded twice; without a network it is all there is."""
    server.add('models/org/name', MODEL)
    folder = model('org/name')
    server.requests.clear()
    with another_process(server, tmp_path):
      assert model('org/name') == folder
    assert not server.downloads()
    server.requests.clear()
    with another_process(server, tmp_path, HF_HUB_OFFLINE=True):
      assert model('org/name') == folder
      assert model(f'org/name@{folder.name}') == folder
    assert not server.requests
    with another_process(server, tmp_path, url='http://127.0.0.1:9'):
      assert model('org/name') == folder

  def test_licence(self, server, library, caplog):
    caplog.set_level(logging.INFO, 'lift')
    commit = server.add('models/org/name', MODEL)
    model('org/name')
    model('org/name')
    assert caplog.messages == [
      f'org/name@{commit}: licence other, some-licence'
    ]

  @pytest.mark.parametrize(
    ('card', 'logged'),
    [
      (None, 'no licence is stated'),
      (b'---\ntags: [a]\n---\n', 'no licence is stated'),
      (b'---\nlicense: [mit, "two\\nlines"]\n---\n', "['mit', 'two\\nlines']"),
      (b'---\na: [\n---\n', 'no licence can be read from README.md'),
    ],
  )
  def test_other_cards(self, server, library, caplog, card, logged):
    caplog.set_level(logging.INFO, 'lift')
    files = MODEL | {'README.md': card}
    if card is None:
      del files['README.md']
    server.add('models/org/name', files)
    model('org/name')
    (line,) = caplog.messages
    assert logged in line
    assert len(line.splitlines()) == 1

  def test_token(self, server, library):
    server.add('models/org/name', MODEL, is_private=True, is_gated=True)
    with mock.patch.dict(os.environ, HF_TOKEN=hub_server.TOKEN):
      model('org/name')
    tokens = {
      path.startswith('/blobs/'): token
      for _, path, token in server.requests
      if path.startswith(('/api/models/', '/org/', '/blobs/'))
    }
    # The storage has links that need none.
    assert tokens == {False: hub_server.TOKEN, True: ''}


@pytest.mark.fast
class TestPaths:
  @pytest.mark.parametrize(
    'text',
    ['', 'name', './org/name', '../name', '~/name', '/org/name', 'org/name/',
     'org/name/more', 'gs://bucket/name', '@name', 'org/'],
  )  # fmt: skip
  def test_never_an_id(self, text):
    assert not hub.is_id(text)
    assert hub.model_folder(text, ()) == text
    assert hub.data_folder(text) == text

  @pytest.mark.parametrize('text', ['org/name', 'org/name@v1'])
  def test_what_exists_wins(self, server, library, tmp_path, monkeypatch, text):
    monkeypatch.chdir(tmp_path)
    server.add('models/org/name', MODEL)
    assert hub.is_id(text)
    pathlib.Path(text).mkdir(parents=True)
    assert not hub.is_id(text)
    assert hub.model_folder(pathlib.Path(text), ()) == text
    assert not server.requests


@pytest.mark.fast
class TestRefusals:
  def test_mistyped_path(self, library):
    refused('modles/cogvideox', 'no such file or folder', 'no such model')
    refused(
      'clips/vidoes',
      'no such file or folder',
      'no such data set',
      call=hub.data_folder,
    )
    refused('org/name.git', 'no such file or folder')

  def test_offline(self, server, tmp_path):
    with another_process(server, tmp_path, HF_HUB_OFFLINE=True):
      for text in ('org/name', 'org/name@v1', f'org/name@{"a" * 40}'):
        refused(text, 'no such file or folder', 'unset HF_HUB_OFFLINE')
    assert not server.requests

  def test_no_network(self, server, tmp_path):
    with another_process(server, tmp_path, url='http://127.0.0.1:9'):
      refused('org/name', 'no such file or folder', 'http://127.0.0.1:9')

  def test_silent_network(self, server, tmp_path):
    """Such as that of a pod without a way out."""
    with socket.create_server(('127.0.0.1', 0)) as silent:
      url = f'http://127.0.0.1:{silent.getsockname()[1]}'
      with another_process(server, tmp_path, url=url, HF_HUB_ETAG_TIMEOUT=0.1):
        refused('org/name', 'no such file or folder', 'timed out')

  @pytest.mark.parametrize('status', [429, 503])
  def test_hub_in_trouble(self, server, library, status):
    server.status = status
    refused('org/name', str(status), 'try again')

  def test_private(self, server, library):
    server.add('models/org/name', MODEL, is_private=True)
    refused('org/name', 'no such model', 'hf auth login')

  def test_gated(self, server, library):
    server.add('models/org/name', MODEL, is_gated=True)
    refused('org/name', 'accept its conditions', 'hf auth login')

  def test_part_of_a_model_in_the_cache(self, server, library, tmp_path):
    server.add('models/org/name', MODEL)
    model('org/name', weights=False)
    with another_process(server, tmp_path, HF_HUB_OFFLINE=True):
      model('org/name', weights=False)
      refused('org/name', 'unset HF_HUB_OFFLINE')

  def test_bad_token(self, server, library):
    server.add('models/org/name', MODEL)
    with mock.patch.dict(os.environ, HF_TOKEN='hf_old'):
      refused('org/name', 'does not accept the token', 'hf auth login')

  def test_not_a_page_of_the_hub(self, server, library):
    """A network that answers with its own page to log in."""
    server.status = 200
    refused('org/name', 'cannot be fetched')

  def test_only_pickles(self, server, library):
    files = dict(MODEL)
    del files['net/model.safetensors'], files['net/model.fp16.safetensors']
    server.add('models/org/name', files)
    refused('org/name', 'only as pickle files', 'net/model.bin')
    assert 'net/model.bin' not in server.downloads()
    assert files_of(model('org/name', weights=False)) == TEXTS

  def test_other_files(self, server, library):
    server.add('models/org/name', {'flowers.safetensors': b'other weights'})
    refused(
      'org/name',
      'none of the files adapter_config.json, ',
      'but flowers.safetensors; ',
      call=lambda text: hub.model_folder(text, adapter_files.HUB_FILES),
    )

  def test_full_disk(self, server, library):
    server.add('models/org/name', MODEL)
    full = OSError(errno.ENOSPC, 'No space left on device')
    with mock.patch('huggingface_hub.snapshot_download', side_effect=full):
      refused('org/name', 'No space left', hub_server.constants.HF_HUB_CACHE)

  def test_read_only_cache(self, server, library, tmp_path):
    server.add('models/org/name', MODEL)
    (tmp_path / 'hub').write_text('a file where the cache should be')
    refused('org/name', 'cannot be written', hub_server.constants.HF_HUB_CACHE)


@pytest.mark.fast
class TestData:
  def test_only_what_is_named(self, server, library, caplog):
    caplog.set_level(logging.INFO, 'lift')
    commit = server.add('datasets/org/data', DATA)
    folder = pathlib.Path(
      hub.data_folder('org/data', ('records.json', '/tmp/more.json'))
    )
    assert files_of(folder) == ['README.md', 'records.json']
    assert caplog.messages == [f'org/data@{commit}: licence mit']
    names = ('videos/a.mp4', 'videos/b.mp4', 'videos/none.mp4', '../c.mp4',
             '/c.mp4')  # fmt: skip
    for _ in range(2):
      hub.fetch(folder, names)
      assert files_of(folder) == [
        'README.md', 'records.json', 'videos/a.mp4', 'videos/b.mp4'
      ]  # fmt: skip
    assert server.downloads() == files_of(folder)

  def test_local_folder(self, server, library, tmp_path):
    """Nothing is downloaded for a folder that the user named."""
    server.add('datasets/org/data', DATA)
    hub.fetch(tmp_path, ['videos/a.mp4'])
    assert not server.requests

  def test_no_such_records(self, server, library):
    server.add('datasets/org/data', DATA)
    refused(
      'org/data',
      "no file 'recrods.json'",
      call=lambda text: hub.data_folder(text, ['recrods.json']),
    )

  def test_clips_in_archives(self, server, library):
    server.add('datasets/org/data', {'a.json': b'[]', 'clips.zip': b'...'})
    folder = hub.data_folder('org/data', ['a.json'])
    server.requests.clear()
    with pytest.raises(UserError, match='none of the 2 clips.*archives'):
      hub.fetch(folder, ['a.mp4', 'b.mp4'])
    assert not server.requests

  def test_offline(self, server, library, tmp_path):
    server.add('datasets/org/data', DATA)
    folder = hub.data_folder('org/data', ['records.json'])
    hub.fetch(folder, ['videos/a.mp4'])
    with another_process(server, tmp_path, HF_HUB_OFFLINE=True):
      assert hub.data_folder('org/data', ['records.json']) == folder
      hub.fetch(folder, ['videos/a.mp4'])
      with pytest.raises(UserError, match='unset HF_HUB_OFFLINE'):
        hub.fetch(folder, ['videos/a.mp4', 'videos/b.mp4'])


def test_environment(server, tmp_path):
  """The library's variables: address, cache and token."""
  server.add('models/org/name', MODEL, is_private=True)
  code = (
    'from lift_jax.runtime import hub\n'
    "print(hub.model_folder('org/name', ('index.json',)))"
  )
  environment = os.environ | {
    'HF_HOME': str(tmp_path / 'home'),
    'HF_ENDPOINT': server.url,
    'HF_TOKEN': hub_server.TOKEN,
    'HF_HUB_OFFLINE': '0',
    'NO_PROXY': '127.0.0.1',
  }
  process = subprocess.run(
    [sys.executable, '-c', code], cwd=REPOSITORY, env=environment,
    text=True, capture_output=True, check=False,
  )  # fmt: skip
  assert process.returncode == 0, process.stderr
  folder = pathlib.Path(process.stdout.strip())
  assert folder.is_relative_to(tmp_path / 'home')
  assert files_of(folder) == TEXTS[:2]


# The test of each row of the table.
ROWS = {
  '`ORG/NAME` of a model': TestModels.test_only_files_that_are_needed,
  '`ORG/NAME` of adapters': TestModels.test_adapters,
  '`ORG/NAME` of a data set': TestData.test_only_what_is_named,
  '`ORG/NAME@REVISION`': TestModels.test_revisions,
  'a path that exists': TestPaths.test_what_exists_wins,
  'no network, or `HF_HUB_OFFLINE=1`': TestModels.test_cache,
  'a private repository, with a token': TestModels.test_token,
  'no file or folder of that name, and no such repository': (
    TestRefusals.test_mistyped_path
  ),
  'a repository without this revision': TestModels.test_revisions,
  'neither a network nor a copy in the cache': (
    TestRefusals.test_silent_network
  ),
  'a part of a model in the cache, and no network': (
    TestRefusals.test_part_of_a_model_in_the_cache
  ),
  'a gated repository without access': TestRefusals.test_gated,
  'a token that is not valid': TestRefusals.test_bad_token,
  'weights only as pickles (`.bin`, `.pt`, `.ckpt`)': (
    TestRefusals.test_only_pickles
  ),
  'none of the files that are read, such as an adapter of another file name': (
    TestRefusals.test_other_files
  ),
  'clips in archives': TestData.test_clips_in_archives,
  'a list of records that the data set lacks': TestData.test_no_such_records,
  'a full disk, or a cache that is not writable': (
    TestRefusals.test_read_only_cache
  ),
}


@pytest.mark.fast
def test_documented():
  rows = doc_tables.rows(
    'inputs.md', 'Models and data from the Hugging Face Hub'
  )
  assert rows.keys() == ROWS.keys()
  for row, result in rows.items():
    assert result.startswith(('read', 'refused')), row
