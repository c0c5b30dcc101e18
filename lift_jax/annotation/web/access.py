"""Who may see a project over HTTP: personal links, cookies, and headers."""

import collections
from collections.abc import Callable
import hashlib
import hmac
import time

from starlette.concurrency import run_in_threadpool
from starlette.datastructures import MutableHeaders
from starlette.requests import HTTPConnection
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lift_jax.annotation.store import Store
from lift_jax.annotation.web import pages

# Nothing runs or loads but files of this server, and no other site frames it.
_HEADERS = {
  'Content-Security-Policy': (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "media-src 'self'; connect-src 'self'; form-action 'self'; "
    "frame-ancestors 'none'; base-uri 'none'; "
    "require-trusted-types-for 'script'; trusted-types 'none'"
  ),
  'Cross-Origin-Opener-Policy': 'same-origin',
  'Cross-Origin-Resource-Policy': 'same-origin',
  # The address of a personal link is a secret.
  'Referrer-Policy': 'no-referrer',
  'X-Content-Type-Options': 'nosniff',
  'X-Frame-Options': 'DENY',
}
_SAFE_METHODS = ('GET', 'HEAD')

_NO_LINK = (
  'Open the personal link that you were given; ask for it if it is lost.'
)
_OTHER_PERSON = (
  'Another personal link was opened in this browser meanwhile. Open your own '
  'link again; your answer is kept here.'
)
TOO_MANY = 'Too many wrong links from your address. Try again in a minute.'


class Tries:
  """Limits how often one address may try wrong tokens."""

  def __init__(
    self,
    limit: int = 20,
    seconds: float = 60.0,
    clock: Callable[[], float] = time.monotonic,
  ):
    self._limit = limit
    self._seconds = seconds
    self._clock = clock
    self._failures: dict[str, collections.deque[float]] = {}

  def is_blocked(self, address: str) -> bool:
    return len(self._recent(address)) >= self._limit

  def add_failure(self, address: str) -> None:
    failures = self._recent(address)
    failures.append(self._clock())
    self._failures[address] = failures

  def _recent(self, address: str) -> collections.deque[float]:
    """Times of the failures that still count; forgets all others."""
    oldest = self._clock() - self._seconds
    for known, failures in list(self._failures.items()):
      while failures and failures[0] < oldest:
        failures.popleft()
      if not failures:
        del self._failures[known]
    return self._failures.get(address, collections.deque(maxlen=self._limit))


def cookie_name(store: Store) -> str:
  """Name of the cookie; differs between projects on one host.

  Browsers share cookies between the ports of a host.
  """
  return f'lift_{pages.project_id(store)}'


def csrf_token(token: str) -> str:
  """What a page sends back to show that it is of this server.

  Other sites can neither read it nor compute it, as the personal token is
  secret. It also ends the pages of the person before, when another personal
  link is opened in the same browser.
  """
  return hashlib.sha256(f'csrf {token}'.encode()).hexdigest()


def address_of(connection: HTTPConnection) -> str:
  return connection.client.host if connection.client else ''


class Gate:
  """Serves an application to people with a valid cookie only.

  Only paths below `/enter/` are open, which check the token of the link. The
  person of the cookie is `request.state.person`, the token that pages send
  back `request.state.csrf_token`.
  """

  def __init__(self, app: ASGIApp, store: Store, tries: Tries):
    self._app = app
    self._store = store
    self._tries = tries
    self._cookie = cookie_name(store)

  async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
    if scope['type'] != 'http':
      return await self._app(scope, receive, send)

    async def send_with_headers(message: Message) -> None:
      if message['type'] == 'http.response.start':
        headers = MutableHeaders(scope=message)
        for name, value in _HEADERS.items():
          headers[name] = value
        headers.setdefault('Cache-Control', 'no-store')
      await send(message)

    refusal = None
    if not scope['path'].startswith('/enter/'):
      refusal = await self._refusal(HTTPConnection(scope))
    await (refusal or self._app)(scope, receive, send_with_headers)

  async def _refusal(self, connection: HTTPConnection) -> Response | None:
    """Why a request is not served; None if it is."""
    token = connection.cookies.get(self._cookie, '')
    person = token and await run_in_threadpool(
      self._store.person_of_token, token
    )
    if not person:
      address = address_of(connection)
      if token:
        self._tries.add_failure(address)
      if self._tries.is_blocked(address):
        return pages.refusal(connection, 429, TOO_MANY)
      return pages.refusal(connection, 403, _NO_LINK)
    expected = csrf_token(token)
    if connection.scope['method'] not in _SAFE_METHODS:
      given = connection.headers.get('X-CSRF-Token', '')
      if not hmac.compare_digest(given.encode(), expected.encode()):
        return pages.refusal(connection, 403, _OTHER_PERSON)
    connection.state.person = person
    connection.state.csrf_token = expected
    return None
