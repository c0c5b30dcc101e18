"""HTML pages of an annotation project."""

import hashlib
from typing import Any

import jinja2
from starlette.requests import HTTPConnection, Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from lift_jax.annotation.entities import (
  LEAD,
  OVERALL,
  PAIR_LABELS,
  SKIP_CAUSES,
)
from lift_jax.annotation.store import Store
from lift_jax.data.rubric import Rubric

# All text is escaped: captions and reasons cannot inject HTML.
_ENVIRONMENT = jinja2.Environment(
  loader=jinja2.PackageLoader('lift_jax.annotation.web'),
  autoescape=True,
  undefined=jinja2.StrictUndefined,
  trim_blocks=True,
  lstrip_blocks=True,
)


def _number(value: float | None, layout: str) -> str:
  """A number as the layout says; a dash where it is undefined."""
  return '–' if value is None else layout.format(value)


_ENVIRONMENT.filters['number'] = _number

_PAGES = {'/': 'Rate', '/guideline': 'Guideline'}
_LEAD_PAGES = {'/lead': 'Project', '/lead/disagreements': 'Disagreements'}

_TITLES = {
  400: 'That did not work',
  403: 'No entry',
  404: 'Not found',
  429: 'Too many tries',
  500: 'Something went wrong',
  507: 'Nothing was saved',
}

# Text of the labels of a pair, whose first clip is on the left.
_PAIR_TEXTS = dict(
  zip(PAIR_LABELS, ('Left is better', 'Same', 'Right is better'), strict=True)
)

_KEYS = (
  (('1', '2', '3'), 'choose a label in the marked row'),
  (('Enter',), 'next row; after the last one, save'),
  (('Ctrl + Enter',), 'save from anywhere'),
  (('↑', '↓'), 'row before, next row'),
  (('Tab', 'r'), 'write the reason'),
  (('Esc',), 'leave the reason'),
  (('Space',), 'play or pause'),
  (('←', '→'), 'one frame back, forward'),
  (('<', '>'), 'slower, faster'),
  (('m',), 'sound on or off'),
  (('f',), 'full screen on or off'),
  (('b', 'n'), 'back to earlier answers, and forth'),
  (('s',), 'skip'),
  (('?',), 'show these keys'),
)

_SUGGESTIONS = 30  # reasons for each label


def project_id(store: Store) -> str:
  """Identifies a project in the browsers of this host."""
  return hashlib.sha256(str(store.path.resolve()).encode()).hexdigest()[:12]


def render(request: Request, template: str, **content: Any) -> Response:
  """A page for the person who asks for it."""
  store, person = request.app.state.store, request.state.person
  pages = _PAGES | (_LEAD_PAGES if person.role == LEAD else {})
  page = _ENVIRONMENT.get_template(template).render(
    project={
      'id': project_id(store),
      'title': store.path.resolve().parent.name,
    },
    person=person,
    pages=pages.items(),
    here=request.url.path,
    csrf_token=request.state.csrf_token,
    **content,
  )
  return HTMLResponse(page)


def refusal(connection: HTTPConnection, status: int, message: str) -> Response:
  """What is sent where a request is not served: a page, or JSON to a script."""
  headers = {'Retry-After': '60'} if status == 429 else None
  if connection.url.path.startswith('/api/'):
    return JSONResponse({'error': message}, status, headers)
  page = _ENVIRONMENT.get_template('message.html').render(
    title=_TITLES.get(status, _TITLES[400]),
    message=message,
    is_known=hasattr(connection.state, 'person'),
  )
  return HTMLResponse(page, status, headers)


def work(request: Request) -> Response:
  """The page on which clips are rated, and pairs compared."""
  store = request.app.state.store
  rubric = store.settings.rubric
  pair_questions = {
    name: f'Which clip is better? {question}'
    for name, question in rubric.questions.items()
  }
  pair_questions[OVERALL] = 'Which clip is better, everything considered?'
  labels = {label: label for label in rubric.labels}
  return render(
    request,
    'work.html',
    forms={
      'clip': _rows(store, rubric.questions, labels),
      'pair': _rows(store, pair_questions, _PAIR_TEXTS),
    },
    skip_causes=SKIP_CAUSES,
    key_table=_KEYS,
  )


def _rows(store: Store, questions, labels) -> list[dict[str, Any]]:
  return [
    {
      'dimension': dimension,
      'title': title(dimension),
      'question': question,
      'choices': [
        {
          'label': label,
          'text': text,
          'reasons': store.suggest_reasons(dimension, label, _SUGGESTIONS),
        }
        for label, text in labels.items()
      ],
    }
    for dimension, question in questions.items()
  ]


def title(dimension: str) -> str:
  return dimension[:1].upper() + dimension[1:].replace('_', ' ')


def guideline(request: Request) -> Response:
  """What the labels mean, with example clips."""
  store = request.app.state.store
  rubric: Rubric = store.settings.rubric
  clips: dict[tuple[str, str], list[str]] = {}
  for example in store.examples():
    clips.setdefault((example.dimension, example.label), []).append(
      example.clip
    )
  return render(
    request,
    'guideline.html',
    guideline=rubric.guideline,
    dimensions=[
      {
        'title': title(dimension),
        'question': question,
        'labels': [
          {
            'name': label,
            'meaning': rubric.levels.get(dimension, {}).get(label, ''),
            'clips': clips.get((dimension, label), []),
          }
          for label in rubric.labels
        ],
      }
      for dimension, question in rubric.questions.items()
    ],
  )
