"""What the scripts of the pages ask for: JSON in, JSON out."""

from collections.abc import Awaitable, Callable, Mapping
import dataclasses
import functools
import json
import math
from typing import Any

from starlette.concurrency import run_in_threadpool
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from lift_jax.annotation.entities import Answer, Person, Task
from lift_jax.annotation.store import Store
from lift_jax.data.video import probe
from lift_jax.errors import UserError

# A few reasons of the greatest length fit.
MAX_BODY = 256 * 1024  # bytes

_ANSWERS_TO_CORRECT = 50

Action = Callable[[Store, Person, Mapping[str, Any]], Mapping[str, Any]]


def endpoint(
  action: Action, role: str = ''
) -> Callable[[Request], Awaitable[Response]]:
  """Serves an action on the fields of a request, in a thread.

  Args:
    action: what to do.
    role: that a person needs; '' for any.
  """

  async def serve(request: Request) -> Response:
    person = request.state.person
    if role and person.role != role:
      raise HTTPException(403, f'Only a {role} may do that.')
    body = await _read(request)
    reply = await run_in_threadpool(
      action, request.app.state.store, person, body
    )
    return JSONResponse(reply)

  return serve


async def _read(request: Request) -> Mapping[str, Any]:
  """The JSON object of a request."""
  body = b''
  async for chunk in request.stream():
    body += chunk
    if len(body) > MAX_BODY:
      raise HTTPException(
        413, f'That is too long: at most {MAX_BODY // 1024} kB can be sent.'
      )
  try:
    value = json.loads(body)
    # Half a character pair, such as "\ud800", cannot be stored.
    json.dumps(value, ensure_ascii=False).encode()
  except (ValueError, RecursionError) as error:
    raise HTTPException(400, 'The request is not valid JSON.') from error
  if not isinstance(value, dict):
    raise HTTPException(400, 'The request is not a JSON object.')
  return value


def text(body: Mapping[str, Any], name: str) -> str:
  """A field of a request that must be a text."""
  value = body.get(name)
  if not isinstance(value, str):
    raise HTTPException(400, f'The field {name!r} must be a text.')
  return value


def texts(body: Mapping[str, Any], name: str) -> dict[str, str]:
  """A field of a request that must be an object of texts."""
  value = body.get(name)
  if not isinstance(value, dict) or not all(
    isinstance(item, str) for item in value.values()
  ):
    raise HTTPException(400, f'The field {name!r} must have texts in it.')
  return value


def number(body: Mapping[str, Any], name: str) -> float:
  """A field of a request that must be a number of seconds."""
  value = body.get(name)
  if isinstance(value, bool) or not isinstance(value, int | float):
    raise HTTPException(400, f'The field {name!r} must be a number.')
  # Also for integers beyond any float.
  return float(value) if abs(value) < 1e9 else math.inf


def next_tasks(
  store: Store, person: Person, body: Mapping[str, Any]
) -> Mapping[str, Any]:
  """The task to do and the one after it, and how far the person is."""
  return {
    'tasks': [shown(store, task) for task in store.next_tasks(person.id)],
    'pace': dataclasses.asdict(store.pace(person.id)),
  }


def recent_answers(
  store: Store, person: Person, body: Mapping[str, Any]
) -> Mapping[str, Any]:
  """What the person answered last, the newest first."""
  return {
    'answers': [
      {
        'task': shown(store, given.task),
        'answer': dataclasses.asdict(given.answer),
      }
      for given in store.recent_answers(person.id, _ANSWERS_TO_CORRECT)
    ]
  }


def save_answer(
  store: Store, person: Person, body: Mapping[str, Any]
) -> Mapping[str, Any]:
  """Saves an answer; it is on disk when the reply is sent."""
  answer = Answer(
    id=text(body, 'id'),
    task=text(body, 'task'),
    labels=texts(body, 'labels'),
    reasons=texts(body, 'reasons'),
    seconds=number(body, 'seconds'),
    skip=text(body, 'skip'),
    replaces=text(body, 'replaces'),
  )
  store.save_answer(person.id, answer)
  return {'saved': answer.id}


def shown(store: Store, task: Task) -> Mapping[str, Any]:
  """What the page gets to know of a task."""
  return {
    'id': task.id,
    'kind': task.kind,
    'caption': task.caption,
    'clips': [
      {'url': f'/clips/{clip}', 'fps': _frame_rate(store, clip)}
      for clip in task.clips
    ],
  }


def _frame_rate(store: Store, clip: str) -> float:
  """Frames per second of a clip; 0 where they are unknown."""
  try:
    return _probed_frame_rate(store, clip)
  except UserError:
    return 0.0  # the page will find that it cannot play the clip


@functools.lru_cache(maxsize=10_000)
def _probed_frame_rate(store: Store, clip: str) -> float:
  return probe(store.clip_path(clip), where=f'clip {clip}').fps
