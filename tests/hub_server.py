"""A server on loopback that speaks the API of the Hugging Face Hub.

It has what downloads use: the commit and the files of a revision, the tree of a
commit in pages, files with their ETags, redirects of large ones to another
address, tokens, and errors with the hub's codes.
"""

from collections.abc import Iterator
import contextlib
import dataclasses
import hashlib
import http.server
import json
import pathlib
import threading
from unittest import mock
import urllib.parse

import huggingface_hub
from huggingface_hub import constants

from lift_jax.runtime import hub

# Of files that the hub keeps apart from the others, and redirects to.
_LARGE = ('.safetensors', '.mp4')

_PAGE = 5  # files in one answer about a tree

TOKEN = 'hf_abcdefgh'


@dataclasses.dataclass
class Repository:
  """A repository: its files at each commit, and its branches.

  Attributes:
    is_gated: its files are only for those with the token.
    is_private: nothing of it is to be seen without the token.
  """

  commits: dict[str, dict[str, bytes]]
  branches: dict[str, str]
  is_gated: bool = False
  is_private: bool = False


class Hub:
  """The server's repositories, and what it was asked.

  Attributes:
    url: of the hub.
    storage: of the other address.
    repositories: by 'models/ORG/NAME' or 'datasets/ORG/NAME'.
    requests: (method, path, token or '') in their order.
    status: of every answer, if not 0.
    blobs: path and content of each file, by hash.
  """

  def __init__(self):
    self.repositories: dict[str, Repository] = {}
    self.requests: list[tuple[str, str, str]] = []
    self.status = 0
    self.blobs: dict[str, tuple[str, bytes]] = {}
    self.url = self.storage = ''

  def add(self, name: str, files: dict[str, bytes], **options) -> str:
    """Adds a commit to main; returns its SHA."""
    entries = [(path, _sha256(data)) for path, data in sorted(files.items())]
    commit = hashlib.sha1(json.dumps([name, entries]).encode()).hexdigest()
    repository = self.repositories.setdefault(name, Repository({}, {}))
    repository.commits[commit] = files
    repository.branches['main'] = commit
    for key, value in options.items():
      setattr(repository, key, value)
    for path, data in files.items():
      self.blobs[_sha256(data)] = path, data
    return commit

  def add_folder(self, name: str, folder: pathlib.Path, **more: bytes) -> str:
    """Adds a commit with the files of a folder, and `more` of them."""
    files = {
      path.relative_to(folder).as_posix(): path.read_bytes()
      for path in folder.rglob('*')
      if path.is_file()
    }
    return self.add(name, files | more)

  def downloads(self) -> list[str]:
    """Names of the files whose content was asked for, sorted."""
    names = []
    for method, path, _ in self.requests:
      if method == 'GET' and '/resolve/' in path:
        names.append(path.partition('/resolve/')[2].partition('/')[2])
      elif path.startswith('/blobs/'):
        names.append(self.blobs[path.removeprefix('/blobs/')][0])
    return sorted(names)


def _sha256(data: bytes) -> str:
  return hashlib.sha256(data).hexdigest()


def _handler(server: Hub) -> type[http.server.BaseHTTPRequestHandler]:
  class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = 'HTTP/1.1'

    def log_message(self, *_):
      pass

    def do_HEAD(self):
      self.answer()

    def do_GET(self):
      self.answer()

    def answer(self):
      url = urllib.parse.urlsplit(self.path)
      path = urllib.parse.unquote(url.path)
      token = (self.headers['Authorization'] or '').removeprefix('Bearer ')
      server.requests.append((self.command, path, token))
      if server.status:
        self.send(server.status)
      elif path.startswith('/blobs/'):
        self.send(200, server.blobs[path.removeprefix('/blobs/')][1])
      elif token not in ('', TOKEN):
        # The hub says so instead of calling the repository missing.
        message = 'Invalid credentials in Authorization header'
        self.send(401, **{'X-Error-Message': message})
      elif path.startswith(('/api/models/', '/api/datasets/')):
        kind, org, name, *rest = path.removeprefix('/api/').split('/', 4)
        self.api(f'{kind}/{org}/{name}', rest, url.query, token)
      elif '/resolve/' in path:
        name, _, rest = path.strip('/').partition('/resolve/')
        kind = '' if name.startswith('datasets/') else 'models/'
        self.file(kind + name, *rest.split('/', 1), token)
      else:
        self.send(404)  # what the library tells the hub about itself

    def find(self, name: str, revision: str, token: str):
      """(commit, files), or None once the error is sent."""
      repository = server.repositories.get(name)
      if repository is None or (repository.is_private and not token):
        return self.fail(401, 'RepoNotFound')
      commit = repository.branches.get(revision, revision)
      if commit not in repository.commits:
        return self.fail(404, 'RevisionNotFound')
      return commit, repository.commits[commit]

    def api(self, name, rest, query, token):
      what, revision = rest or ('revision', 'main')
      found = self.find(name, revision, token)
      if found is None:
        return
      commit, files = found
      names = sorted(files)
      if what != 'tree':
        siblings = [{'rfilename': path} for path in names]
        card = {'id': name.partition('/')[2], 'sha': commit}
        self.send_json(card | {'siblings': siblings})
        return
      start = int(urllib.parse.parse_qs(query).get('cursor', ['0'])[0])
      headers, end = {}, start + _PAGE
      if end < len(names):
        next_page = f'{server.url}{self.path.partition("?")[0]}?recursive=True'
        headers = {'Link': f'<{next_page}&cursor={end}>; rel="next"'}
      entries = []
      for path in names[start:end]:
        digest, size = _sha256(files[path]), len(files[path])
        entry = {'type': 'file', 'path': path, 'oid': digest, 'size': size}
        if path.endswith(_LARGE):
          entry['lfs'] = {'oid': digest, 'size': size, 'pointerSize': 100}
        entries.append(entry)
      self.send_json(entries, **headers)

    def file(self, name, revision, path, token):
      found = self.find(name, revision, token)
      if found is None:
        return
      commit, files = found
      if server.repositories[name].is_gated and not token:
        self.fail(403, 'GatedRepo')
        return
      if path not in files:
        self.fail(404, 'EntryNotFound', **{'X-Repo-Commit': commit})
        return
      digest, data = _sha256(files[path]), files[path]
      headers = {'X-Repo-Commit': commit, 'ETag': f'"{digest}"'}
      if path.endswith(_LARGE):
        headers['X-Linked-ETag'] = f'"{digest}"'
        headers['X-Linked-Size'] = str(len(data))
        headers['Location'] = f'{server.storage}/blobs/{digest}'
        self.send(302, **headers)
      else:
        self.send(200, data, **headers)

    def fail(self, status: int, code: str, **headers) -> None:
      self.send(status, **headers, **{'X-Error-Code': code})

    def send_json(self, value, **headers):
      self.send(200, json.dumps(value).encode(), **headers)

    def send(self, status: int, data: bytes = b'', **headers):
      self.send_response(status)
      for key, value in headers.items():
        self.send_header(key, value)
      self.send_header('Content-Length', str(len(data)))
      self.end_headers()
      if self.command != 'HEAD':
        self.wfile.write(data)

  return Handler


@contextlib.contextmanager
def serve() -> Iterator[Hub]:
  """A hub without repositories."""
  server = Hub()
  with contextlib.ExitStack() as stack:
    for name in ('url', 'storage'):
      listener = stack.enter_context(
        http.server.ThreadingHTTPServer(('127.0.0.1', 0), _handler(server))
      )
      listener.daemon_threads = True
      thread = threading.Thread(target=listener.serve_forever, args=(0.01,))
      thread.start()
      stack.callback(thread.join)
      stack.callback(listener.shutdown)
      setattr(server, name, f'http://127.0.0.1:{listener.server_port}')
    yield server


@contextlib.contextmanager
def use(url: str, cache: pathlib.Path, **settings) -> Iterator[None]:
  """The library as its environment variables would have set it.

  Args:
    url: HF_ENDPOINT.
    cache: HF_HUB_CACHE.
    **settings: other constants of the library, such as HF_HUB_OFFLINE.
  """
  values = {
    'ENDPOINT': url,
    'HUGGINGFACE_CO_URL_TEMPLATE': f'{url}/{{repo_id}}/resolve/{{revision}}'
    '/{filename}',
    'HF_HUB_CACHE': str(cache),
    'HF_HUB_OFFLINE': False,
    'HF_TOKEN_PATH': str(cache / 'token'),
    **settings,
  }
  hub.find_repository.cache_clear()
  with contextlib.ExitStack() as stack:
    for name, value in values.items():
      stack.enter_context(mock.patch.object(constants, name, value))
    stack.enter_context(mock.patch.dict('os.environ', NO_PROXY='127.0.0.1'))
    huggingface_hub.close_session()
    stack.callback(huggingface_hub.close_session)
    stack.callback(hub.find_repository.cache_clear)
    yield
