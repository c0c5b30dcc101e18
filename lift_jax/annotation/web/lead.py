"""Pages and actions of a lead: people, disagreements, skipped clips."""

from collections.abc import Mapping
from typing import Any

from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response

from lift_jax.annotation import quality
from lift_jax.annotation.entities import LEAD, PAIR_LABELS, ROLES, Person
from lift_jax.annotation.store import Store
from lift_jax.annotation.tables import NotFoundError
from lift_jax.annotation.web import api, pages
from lift_jax.evaluation.bootstrap import BootstrapConfig

# Few draws, so that the page takes a second for thousands of clips.
_BOOTSTRAP = BootstrapConfig(draws=100, coverage=0.95, seed=0)

_PER_PAGE = 10  # disagreements

# Text of the labels of a pair, whose clips are shown one above the other.
_PAIR_TEXTS = dict(
  zip(PAIR_LABELS, ('First is better', 'Same', 'Second is better'), strict=True)
)


def project(request: Request) -> Response:
  """People with their links, how well they agree, and skipped clips."""
  _check_lead(request)
  store = request.app.state.store
  report = quality.report(store, _BOOTSTRAP)
  return pages.render(
    request,
    'lead.html',
    people=store.people(),
    report=report,
    raters={rater['name']: rater for rater in report['raters']},
    labels=store.settings.rubric.labels,
    title_of=pages.title,
    linked=store.linked_people(),
    roles=ROLES,
    setbacks=store.setbacks(),
  )


def disagreements(request: Request) -> Response:
  """Clips whose votes differ: all votes side by side, and a form to settle."""
  _check_lead(request)
  store = request.app.state.store
  decided = 'settled' in request.query_params
  page = request.query_params.get('page', '1')
  if not (page.isascii() and page.isdigit() and 0 < int(page[:9]) < 10**8):
    raise HTTPException(404, 'There is no such page.')
  start = (int(page) - 1) * _PER_PAGE
  found = store.disagreements(_PER_PAGE + 1, start, decided)
  return pages.render(
    request,
    'disagreements.html',
    disagreements=found[:_PER_PAGE],
    title_of=pages.title,
    pair_texts=_PAIR_TEXTS,
    decided=decided,
    page=int(page),
    has_more=len(found) > _PER_PAGE,
  )


def _check_lead(request: Request) -> None:
  if request.state.person.role != LEAD:
    raise HTTPException(403, 'This page is for leads.')


def settle(
  store: Store, person: Person, body: Mapping[str, Any]
) -> Mapping[str, Any]:
  """Lets a lead's labels of a task count."""
  labels, reasons = api.texts(body, 'labels'), api.texts(body, 'reasons')
  ratings = {
    dimension: (label, reasons.get(dimension, ''))
    for dimension, label in labels.items()
  }
  store.settle(person.id, api.text(body, 'task'), ratings)
  return {}


def invite(
  store: Store, person: Person, body: Mapping[str, Any]
) -> Mapping[str, Any]:
  """A personal link for somebody new, or a new one for somebody known."""
  invited = store.add_person(api.text(body, 'name'), api.text(body, 'role'))
  return {'path': f'/enter/{store.issue_token(invited.id)}'}


def revoke(
  store: Store, person: Person, body: Mapping[str, Any]
) -> Mapping[str, Any]:
  """Ends all links of a person."""
  number = body.get('person')
  if number == person.id:
    raise HTTPException(400, 'You would lock yourself out.')
  if number not in list(store.linked_people()):
    raise NotFoundError('This person has no valid link.')
  store.revoke_tokens(number)
  return {}
