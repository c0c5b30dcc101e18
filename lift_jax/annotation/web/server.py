"""Serves an annotation project until it is stopped."""

from collections.abc import Callable
import contextlib
import socket

import uvicorn

from lift_jax.annotation.store import Store
from lift_jax.annotation.web.app import create_app
from lift_jax.errors import UserError

# For answers under way; a clip that is being sent does not hold it up longer.
_SHUTDOWN_SECONDS = 5


def serve(
  store: Store, host: str, port: int, on_ready: Callable[[str], None]
) -> None:
  """Serves a project; returns after Ctrl-C.

  Args:
    store: the project.
    host: name or address to listen on.
    port: 0 for any free one.
    on_ready: is called with the URL once connections are accepted.

  Raises:
    UserError: nothing can listen there.
  """
  with listen(host, port) as listener:
    on_ready(url_of(listener))
    with contextlib.suppress(KeyboardInterrupt):
      make_server(store).run(sockets=[listener])


def listen(host: str, port: int) -> socket.socket:
  """A socket that accepts connections."""
  family = socket.AF_INET6 if ':' in host else socket.AF_INET
  try:
    return socket.create_server((host, port), family=family, backlog=1024)
  except (OSError, OverflowError) as error:
    raise UserError(
      f'--host={host} --port={port}: cannot listen there ({error}); choose '
      'another --port'
    ) from error


def url_of(listener: socket.socket) -> str:
  host, port = listener.getsockname()[:2]
  return f'http://[{host}]:{port}' if ':' in host else f'http://{host}:{port}'


def make_server(store: Store) -> uvicorn.Server:
  """The server of a project; `run(sockets=[...])` starts it."""
  return uvicorn.Server(
    uvicorn.Config(
      create_app(store),
      # Addresses of personal links are not logged.
      access_log=False,
      log_level='warning',
      lifespan='off',
      server_header=False,
      timeout_graceful_shutdown=_SHUTDOWN_SECONDS,
      ws='none',
    )
  )
