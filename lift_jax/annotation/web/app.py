"""The web application of an annotation project."""

import logging
import pathlib

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import FileResponse, RedirectResponse, Response
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp

from lift_jax.annotation.database import StorageError
from lift_jax.annotation.entities import LEAD
from lift_jax.annotation.store import Store
from lift_jax.annotation.tables import ConflictError, NotFoundError
from lift_jax.annotation.web import access, api, lead, pages
from lift_jax.errors import UserError

_STATIC = pathlib.Path(__file__).parent / 'static'
_COOKIE_DAYS = 60

_BAD_LINK = (
  'This personal link is not valid, or no longer. Check that it is complete, '
  'or ask for a new one.'
)
_GONE = 'There is no such clip (any more).'
_DISK = (
  'The server could not write to its disk, which may be full. Nothing was '
  'saved; tell the person who runs the project.'
)
_STATUS = ((NotFoundError, 404), (ConflictError, 409), (StorageError, 507))


def create_app(store: Store, tries: access.Tries | None = None) -> ASGIApp:
  """The application that serves a project.

  Args:
    store: the project.
    tries: limits wrong tokens; by default to 20 a minute and address.
  """
  tries = tries or access.Tries()
  app = Starlette(
    routes=[
      Route('/enter/{token}', _enter),
      Route('/', pages.work),
      Route('/guideline', pages.guideline),
      Route('/clips/{clip}', _clip),
      Route('/lead', lead.project),
      Route('/lead/disagreements', lead.disagreements),
      *(
        Route(f'/api/{name}', api.endpoint(action), methods=['POST'])
        for name, action in (
          ('tasks', api.next_tasks),
          ('recent', api.recent_answers),
          ('answers', api.save_answer),
        )
      ),
      *(
        Route(f'/api/{name}', api.endpoint(action, LEAD), methods=['POST'])
        for name, action in (
          ('settle', lead.settle),
          ('invite', lead.invite),
          ('revoke', lead.revoke),
        )
      ),
      Mount('/static', StaticFiles(directory=_STATIC)),
    ],
    exception_handlers={
      HTTPException: _http_error,
      UserError: _user_error,
      Exception: _internal_error,
    },
  )
  app.state.store = store
  app.state.tries = tries
  return access.Gate(app, store, tries)


def _enter(request: Request) -> Response:
  """Turns a personal link into a cookie, and the address into one without it.

  The cookie is Lax: a Strict one is not sent when the link was opened from a
  mail. All changes are POST requests with a CSRF token.
  """
  store, tries = request.app.state.store, request.app.state.tries
  address = access.address_of(request)
  if tries.is_blocked(address):
    return pages.refusal(request, 429, access.TOO_MANY)
  token = request.path_params['token']
  person = store.person_of_token(token)
  if person is None:
    tries.add_failure(address)
    return pages.refusal(request, 403, _BAD_LINK)
  response = RedirectResponse('/lead' if person.role == LEAD else '/', 303)
  response.set_cookie(
    access.cookie_name(store),
    token,
    max_age=_COOKIE_DAYS * 24 * 3600,
    secure=request.url.scheme == 'https',
    httponly=True,
    samesite='lax',
  )
  return response


def _clip(request: Request) -> Response:
  """A clip, or the range of it that the browser asks for."""
  path = request.app.state.store.clip_path(request.path_params['clip'])
  return FileResponse(path, headers={'Cache-Control': 'private, max-age=3600'})


async def _http_error(request: Request, error: Exception) -> Response:
  assert isinstance(error, HTTPException)
  return pages.refusal(request, error.status_code, error.detail)


async def _user_error(request: Request, error: Exception) -> Response:
  status = next((s for kind, s in _STATUS if isinstance(error, kind)), 400)
  message = str(error)
  # The message names folders of the server.
  if isinstance(error, StorageError):
    logging.error('%s', error)
    message = _DISK
  elif request.url.path.startswith('/clips/'):
    message = _GONE
  return pages.refusal(request, status, message)


async def _internal_error(request: Request, error: Exception) -> Response:
  return pages.refusal(
    request,
    500,
    'The server failed; the person who runs it finds details in its log.',
  )
