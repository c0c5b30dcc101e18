"""Pages over HTTP, without a browser: trust, ranges, limits, answers."""

import json
import re

import pytest
from starlette.testclient import TestClient

from lift_jax.annotation.entities import Answer, Settings
from lift_jax.annotation.web import access
from lift_jax.annotation.web.app import create_app
from lift_jax.data import rubric
from tests.annotation.web import projects

pytestmark = pytest.mark.fast


class Visitor:
  """A browser without scripts."""

  def __init__(self, store, link: str | None = None, **settings):
    self.http = TestClient(
      create_app(store, **settings),
      base_url='http://localhost',
      raise_server_exceptions=False,
    )
    self.csrf = ''
    if link:
      page = self.http.get(link)
      assert page.status_code == 200, page.text
      (self.csrf,) = re.findall('csrf-token" content="(.+?)"', page.text)

  def get(self, path: str, **headers):
    return self.http.get(
      path, headers={k.replace('_', '-'): v for k, v in headers.items()}
    )

  def post(self, path: str, body, **headers):
    return self.http.post(
      path, json=body, headers={'X-CSRF-Token': self.csrf} | headers
    )

  def task(self):
    return self.post('/api/tasks', {}).json()['tasks'][0]


@pytest.fixture(scope='module')
def store(tmp_path_factory):
  with projects.make_store(tmp_path_factory.mktemp('web'), 3) as store:
    yield store


@pytest.fixture
def fresh(tmp_path):
  with projects.make_store(tmp_path, 2, 1) as store:
    yield store


@pytest.fixture(scope='module')
def rater(store):
  return Visitor(store, projects.add_rater(store)[1])


@pytest.fixture(scope='module')
def lead(store):
  return Visitor(store, projects.add_lead(store)[1])


def clip_of(store) -> str:
  return store.examples()[0].clip


def answer(to, **changes):
  """An answer to a task of the page, all of it 'Good' or 'better'."""
  labels = (
    dict.fromkeys(projects.QUESTIONS, 'Good')
    if to['kind'] == 'clip'
    else dict.fromkeys((*projects.QUESTIONS, 'overall'), 'better')
  )
  return {
    'id': 'an-answer-of-mine', 'task': to['id'], 'labels': labels,
    'reasons': {}, 'seconds': 4.5, 'skip': '', 'replaces': '',
  } | changes  # fmt: skip


class TestTrust:
  def test_nothing_without_link(self, store):
    visitor = Visitor(store)
    for path in (
      '/', '/guideline', '/lead', '/lead/disagreements', '/nothing',
      '/static/style.css', '/static/work.js', f'/clips/{clip_of(store)}',
      '/favicon.ico', '/../app.py',
    ):  # fmt: skip
      reply = visitor.get(path)
      assert (path, reply.status_code) == (path, 403)
      assert 'personal link' in reply.text
      assert visitor.http.head(path).status_code == 403
    for name in ('tasks', 'recent', 'answers', 'settle', 'invite', 'revoke'):
      reply = visitor.post(f'/api/{name}', {})
      assert reply.status_code == 403
      assert 'personal link' in reply.json()['error']

  def test_link(self, store):
    _, link = projects.add_rater(store, 'Emmy')
    visitor = Visitor(store)
    reply = visitor.http.get(link, follow_redirects=False)
    assert (reply.status_code, reply.headers['location']) == (303, '/')
    cookie = reply.headers['set-cookie']
    assert {'HttpOnly', 'SameSite=lax', 'Path=/'} <= set(cookie.split('; '))
    assert 'Secure' not in cookie
    assert visitor.get('/').status_code == 200

  def test_secure_cookie(self, store):
    """Behind a proxy with HTTPS."""
    _, link = projects.add_rater(store, 'Emmy')
    http = TestClient(create_app(store), base_url='https://localhost')
    reply = http.get(link, follow_redirects=False)
    assert 'Secure' in reply.headers['set-cookie'].split('; ')

  def test_lead_is_sent_to_project(self, store):
    _, link = projects.add_lead(store, 'Mary')
    reply = Visitor(store).http.get(link, follow_redirects=False)
    assert reply.headers['location'] == '/lead'

  def test_revoked(self, fresh):
    person, link = projects.add_rater(fresh)
    visitor = Visitor(fresh, link)
    fresh.revoke_tokens(person.id)
    assert visitor.get('/').status_code == 403
    assert visitor.post('/api/tasks', {}).status_code == 403
    assert Visitor(fresh).get(link).status_code == 403

  def test_rater_is_no_lead(self, rater):
    for path in ('/lead', '/lead/disagreements'):
      assert rater.get(path).status_code == 403
    for name in ('settle', 'invite', 'revoke'):
      reply = rater.post(f'/api/{name}', {'name': 'Eve', 'role': 'lead'})
      assert reply.status_code == 403
    assert '/lead' not in rater.get('/').text

  def test_csrf(self, store, rater):
    body = {'kind': 'clip'}
    for token in ('', 'f' * 64, 'é'):
      reply = rater.http.post(
        '/api/tasks', json=body, headers={'X-CSRF-Token': token.encode()}
      )
      assert reply.status_code == 403
    other = Visitor(store, projects.add_rater(store, 'Emmy')[1])
    reply = rater.post('/api/tasks', body, **{'X-CSRF-Token': other.csrf})
    assert reply.status_code == 403

  def test_pages_of_person_before(self, store):
    """Their answers are not counted for who opened a link afterwards."""
    visitor = Visitor(store, projects.add_rater(store, 'Emmy')[1])
    visitor.get(projects.add_rater(store, 'Lise')[1])
    reply = visitor.post('/api/tasks', {})
    assert reply.status_code == 403
    assert 'Another personal link' in reply.json()['error']

  def test_headers(self, store, rater):
    for reply in (
      rater.get('/'), Visitor(store).get('/'), rater.get('/nothing'),
      rater.get('/static/work.js'), rater.get(f'/clips/{clip_of(store)}'),
      rater.post('/api/tasks', {}),
    ):  # fmt: skip
      policy = reply.headers['content-security-policy']
      assert "default-src 'none'" in policy
      assert "script-src 'self';" in policy
      assert 'unsafe' not in policy
      assert reply.headers['x-content-type-options'] == 'nosniff'
      assert reply.headers['referrer-policy'] == 'no-referrer'
      assert reply.headers['x-frame-options'] == 'DENY'
      assert 'server' not in reply.headers
    assert rater.get('/').headers['cache-control'] == 'no-store'

  def test_nothing_inline(self, rater, lead):
    """What the content security policy would block, and other hosts."""
    for visitor, path in (
      (rater, '/'), (rater, '/guideline'), (rater, '/nothing'),
      (lead, '/lead'), (lead, '/lead/disagreements'),
    ):  # fmt: skip
      page = visitor.get(path).text
      assert not re.findall(r'<style|<script(?! type="module" src)', page)
      assert not re.findall(r'\s(?:style|on\w+)=', page)
      assert not re.findall(r'(?:src|href)="(?!/|\?)', page)

  def test_tries(self, store):
    now = [0.0]
    tries = access.Tries(limit=3, seconds=60, clock=lambda: now[0])
    visitor = Visitor(store, tries=tries)
    inside = Visitor(store, projects.add_rater(store)[1])
    inside.http.app = visitor.http.app
    _, link = projects.add_rater(store, 'Emmy')
    for _ in range(3):
      assert visitor.get('/enter/wrong').status_code == 403
    for path in ('/enter/wrong', link):
      reply = visitor.get(path)
      assert (reply.status_code, reply.headers['retry-after']) == (429, '60')
    now[0] = 61.0
    assert visitor.get(link).status_code == 200

  def test_tries_of_cookies(self, store):
    tries = access.Tries(limit=3)
    visitor = Visitor(store, tries=tries)
    visitor.http.cookies.set(access.cookie_name(store), 'wrong')
    codes = [visitor.get('/').status_code for _ in range(4)]
    assert codes == [403, 403, 429, 429]

  def test_tries_of_addresses(self):
    tries = access.Tries(limit=1)
    tries.add_failure('a')
    assert (tries.is_blocked('a'), tries.is_blocked('b')) == (True, False)

  def test_projects_differ(self, store, fresh):
    """Two on one host do not take each other's cookie."""
    assert access.cookie_name(store) != access.cookie_name(fresh)


class TestClips:
  @pytest.fixture
  def clip(self, store):
    path = store.clip_path(clip_of(store))
    return f'/clips/{clip_of(store)}', path.read_bytes()

  def test_whole(self, rater, clip):
    path, content = clip
    reply = rater.get(path)
    assert (reply.status_code, reply.content) == (200, content)
    assert reply.headers['content-type'] == 'video/mp4'
    assert reply.headers['accept-ranges'] == 'bytes'
    assert reply.headers['cache-control'].startswith('private')

  @pytest.mark.parametrize(
    'asked, start, stop',
    [
      ('bytes=0-0', 0, 1), ('bytes=10-19', 10, 20), ('bytes=10-', 10, None),
      ('bytes=-7', -7, None), ('bytes=-9999999', 0, None),
      ('bytes=5-9999999', 5, None),
    ],
  )  # fmt: skip
  def test_range(self, rater, clip, asked, start, stop):
    path, content = clip
    reply = rater.get(path, Range=asked)
    part = content[start:stop]
    assert (reply.status_code, reply.content) == (206, part)
    first = content.index(part) if start < 0 else start
    assert reply.headers['content-range'] == (
      f'bytes {first}-{first + len(part) - 1}/{len(content)}'
    )
    assert reply.headers['content-length'] == str(len(part))

  def test_unsatisfiable(self, rater, clip):
    path, content = clip
    for asked in (f'bytes={len(content)}-', 'bytes=-0'):
      reply = rater.get(path, Range=asked)
      assert reply.status_code == 416
      assert reply.headers['content-range'] == f'bytes */{len(content)}'

  def test_changed(self, rater, clip):
    """The rest of a clip that has changed meanwhile is no use."""
    path, content = clip
    tag = rater.get(path).headers['etag']
    assert rater.get(path, Range='bytes=4-', If_Range=tag).status_code == 206
    reply = rater.get(path, Range='bytes=4-', If_Range='"other"')
    assert (reply.status_code, reply.content) == (200, content)

  def test_head(self, rater, clip):
    path, content = clip
    reply = rater.http.head(path)
    assert (reply.status_code, reply.content) == (200, b'')
    assert reply.headers['content-length'] == str(len(content))

  def test_paths_are_no_ids(self, rater):
    for path in (
      '/clips/clips/000.mp4', '/clips/000.mp4', '/clips/..%2f000.mp4',
      '/clips/%00', '/static/..%2fapp.py', '/static/../app.py',
    ):  # fmt: skip
      assert rater.get(path).status_code == 404

  def test_link_out_of_root(self, fresh, tmp_path):
    visitor = Visitor(fresh, projects.add_rater(fresh)[1])
    path = fresh.clip_path(clip_of(fresh))
    path.rename(tmp_path / 'outside.mp4')
    path.symlink_to(tmp_path / 'outside.mp4')
    assert visitor.get(f'/clips/{clip_of(fresh)}').status_code == 404

  def test_gone(self, fresh):
    visitor = Visitor(fresh, projects.add_rater(fresh)[1])
    path = fresh.clip_path(clip_of(fresh))
    path.unlink()
    reply = visitor.get(f'/clips/{clip_of(fresh)}')
    assert reply.status_code == 404
    assert str(path.parent) not in reply.text


class TestAnswers:
  @pytest.fixture
  def visitor(self, fresh):
    return Visitor(fresh, projects.add_rater(fresh)[1])

  def answers(self, store):
    (person,) = store.people()
    return store.recent_answers(person.id)

  def test_task(self, fresh, visitor):
    reply = visitor.post('/api/tasks', {}).json()
    first, second = reply['tasks']
    assert first['id'] != second['id']
    assert visitor.post('/api/tasks', {}).json() == reply
    assert reply['pace'] == {
      'answered': 0, 'left': 3, 'seconds_per_task': None,
    }  # fmt: skip
    for task in (first, second):
      assert set(task) == {'id', 'kind', 'caption', 'clips'}
      assert [clip['fps'] for clip in task['clips']] == [projects.FPS] * (
        2 if task['kind'] == 'pair' else 1
      )

  def test_saved_once(self, fresh, visitor):
    given = answer(visitor.task())
    for _ in range(3):
      reply = visitor.post('/api/answers', given)
      assert reply.json() == {'saved': given['id']}
    (saved,) = self.answers(fresh)
    assert saved.answer.id == given['id']
    assert saved.answer.labels == given['labels']
    assert saved.answer.seconds == 4.5

  def test_two_tabs(self, fresh, visitor):
    task = visitor.task()
    visitor.post('/api/answers', answer(task, id='from-the-first-tab'))
    reply = visitor.post('/api/answers', answer(task, id='from-a-second-tab'))
    assert reply.status_code == 409
    assert 'another window' in reply.json()['error']
    (saved,) = self.answers(fresh)
    assert saved.answer.id == 'from-the-first-tab'

  def test_correction(self, fresh, visitor):
    task = visitor.task()
    first = answer(task)
    visitor.post('/api/answers', first)
    recent = visitor.post('/api/recent', {}).json()['answers']
    assert recent[0]['task'] == task
    assert recent[0]['answer']['labels'] == first['labels']
    last = next(iter(first['labels']))
    worse = 'Bad' if task['kind'] == 'clip' else 'worse'
    changed = answer(
      task, id='a-better-answer-0', replaces=first['id'],
      labels=first['labels'] | {last: worse},
    )  # fmt: skip
    assert visitor.post('/api/answers', changed).status_code == 200
    (saved,) = self.answers(fresh)
    assert saved.answer.labels == changed['labels']

  def test_skip(self, fresh, visitor):
    skipped = answer(visitor.task(), labels={}, skip='unknown term')
    assert visitor.post('/api/answers', skipped).status_code == 200
    (saved,) = self.answers(fresh)
    assert saved.answer.skip == 'unknown term'

  @pytest.mark.parametrize(
    'text',
    [
      '<script>alert(1)</script>', '"><img src=x onerror=alert(1)>',
      '\U0001f469\u200d\U0001f680' * 1000, 'هذا النص \u202eمن اليمين',
      "'; DROP TABLE votes; --", '{{ 1111 * 1111 }}', 'a\nb\tc',
    ],
  )  # fmt: skip
  def test_texts(self, fresh, visitor, text):
    """They are stored unchanged, and shown as text."""
    task = visitor.task()
    dimension = next(iter(projects.QUESTIONS))
    given = answer(task, reasons={dimension: text})
    assert visitor.post('/api/answers', given).status_code == 200
    (saved,) = self.answers(fresh)
    assert saved.answer.reasons[dimension] == text
    page = visitor.get('/').text
    for markup in ('<script>alert', '<img', '1234321'):
      assert markup not in page

  @pytest.mark.parametrize(
    'changes, message',
    [
      ({'reasons': {'motion': 'x' * 100_000}}, 'at most 10000'),
      ({'reasons': {'motion': 'x' * 300_000}}, 'at most 256 kB'),
      ({'reasons': {'motion': '\ud800'}}, 'not valid JSON'),
      ({'reasons': {'motion': '\x00'}}, 'U+0000'),
      ({'reasons': {'motion': 3}}, "'reasons'"),
      ({'labels': {}}, 'no label for'),
      ({'labels': []}, "'labels'"),
      ({'id': 'short'}, 'malformed'),
      ({'id': 5}, "'id'"),
      ({'task': 'unknown'}, "no task 'unknown'"),
      ({'seconds': '4'}, "'seconds'"),
      ({'seconds': True}, "'seconds'"),
      ({'seconds': 10**400}, 'time'),
      ({'seconds': -1}, 'time'),
      ({'skip': 'boring', 'labels': {}}, "'boring'"),
    ],
  )
  def test_refused(self, fresh, visitor, changes, message):
    reply = visitor.http.post(
      '/api/answers',
      content=json.dumps(answer(visitor.task(), **changes)),
      headers={'X-CSRF-Token': visitor.csrf},
    )
    assert reply.status_code in (400, 404, 413)
    assert message in reply.json()['error']
    assert '\n' not in reply.json()['error']
    assert not self.answers(fresh)

  @pytest.mark.parametrize(
    'body', [b'', b'[]', b'nonsense', b'\xff', b'[' * 200_000, b'9' * 5000]
  )
  def test_malformed(self, visitor, body):
    reply = visitor.http.post(
      '/api/answers', content=body, headers={'X-CSRF-Token': visitor.csrf}
    )
    assert reply.status_code == 400
    assert 'The request is not' in reply.json()['error']

  def test_full_disk(self, fresh, visitor):
    given = answer(visitor.task(), reasons={'motion': 'x' * 10_000})
    with fresh.database.reading() as db:
      db.execute('PRAGMA max_page_count = 1')  # no more than there are
    reply = visitor.post('/api/answers', given)
    assert reply.status_code == 507
    assert 'Nothing was saved' in reply.json()['error']
    assert str(fresh.path) not in reply.json()['error']
    assert not self.answers(fresh)
    with fresh.database.reading() as db:
      db.execute('PRAGMA max_page_count = 100000')
    assert visitor.post('/api/answers', given).status_code == 200
    assert len(self.answers(fresh)) == 1

  def test_internal_error(self, fresh, visitor, monkeypatch):
    def fail(*_):
      raise RuntimeError('a secret')

    monkeypatch.setattr(type(fresh), 'pace', fail)
    reply = visitor.post('/api/tasks', {})
    assert reply.status_code == 500
    assert 'secret' not in reply.text
    assert 'content-security-policy' in reply.headers

  def test_methods(self, visitor):
    assert visitor.get('/api/tasks').status_code == 405
    assert visitor.post('/', {}).status_code == 405

  def test_clip_that_cannot_be_read(self, fresh, visitor):
    """It is left to the page to find that it does not play."""
    for path in (fresh.clip_path(clip_of(fresh)).parent).iterdir():
      path.write_bytes(b'not a video')
    rates = {clip['fps'] for clip in visitor.task()['clips']}
    assert rates == {0}


class TestPages:
  def test_dimensions_are_data(self, tmp_path):
    """Two dimensions of five labels with markup, right to left."""
    with projects.make_store(tmp_path, 1) as store:
      store.set_settings(
        Settings(
          rubric.from_json(
            {
              'questions': {'taste': ' Is it <b>nice</b>?', 'جمال': ' هل؟'},
              'labels': ['5 *', '4 *', '3 *', '2 *', '1 *'],
              'rewards': {f'{n} *': n / 5 for n in range(1, 6)},
            }
          ),
          store.settings.root,
        )
      )
      visitor = Visitor(store, projects.add_rater(store)[1])
      page = visitor.get('/').text
      assert 'Is it &lt;b&gt;nice&lt;/b&gt;?' in page
      form = page[page.index('clip-form') : page.index('pair-form')]
      assert form.count('type="radio"') == 10
      assert form.count('dir="auto"') >= 14
      assert 'جمال' in visitor.get('/guideline').text

  def test_guideline(self, store, rater):
    page = rater.get('/guideline').text
    assert 'Watch each clip twice' in page
    assert page.count('All is well.') == 3
    assert page.count(f'/clips/{clip_of(store)}') == 3
    assert page.count('No example yet.') == 6

  def test_errors(self, rater):
    reply = rater.get('/nothing')
    assert reply.status_code == 404
    assert 'href="/"' in reply.text
    assert rater.post('/api/nothing', {}).json() == {'error': 'Not Found'}


class TestLead:
  def test_settle(self, fresh):
    visitor = Visitor(fresh, projects.add_lead(fresh)[1])
    task = fresh.add_task([('clips/000.mp4', projects.caption_of(0))])
    for name, label in (('Ada', 'Good'), ('Emmy', 'Bad')):
      person, _ = projects.add_rater(fresh, name)
      labels = dict.fromkeys(projects.QUESTIONS, 'Good') | {'motion': label}
      reasons = {'motion': f'<i>{name}</i> says so.'}
      fresh.save_answer(
        person.id, Answer(f'an-answer-of-{name}', task, labels, reasons, 9.0)
      )
    page = visitor.get('/lead/disagreements').text
    assert '&lt;i&gt;Ada&lt;/i&gt; says so.' in page
    assert '&lt;i&gt;Emmy&lt;/i&gt; says so.' in page
    assert page.count('data-dimension') == 1
    body = {
      'task': task, 'labels': {'motion': 'Normal'},
      'reasons': {'motion': 'In between.'},
    }  # fmt: skip
    assert visitor.post('/api/settle', body).status_code == 200
    assert 'None.' in visitor.get('/lead/disagreements').text
    assert 'In between.' in visitor.get('/lead/disagreements?settled').text
    found = fresh.disagreement(task)
    assert found.decided == {'motion': ('Normal', 'In between.')}
    project = visitor.get('/lead').text
    assert '0 of 3 tasks have all their ratings' in project
    assert 'No open disagreements, 1 settled' in ' '.join(project.split())

  def test_invite_and_revoke(self, fresh):
    visitor = Visitor(fresh, projects.add_lead(fresh)[1])
    reply = visitor.post('/api/invite', {'name': 'Zoë', 'role': 'rater'})
    link = reply.json()['path']
    invited = Visitor(fresh, link)
    assert 'Zoë' in visitor.get('/lead').text
    (number,) = [p.id for p in fresh.people() if p.name == 'Zoë']
    assert visitor.post('/api/revoke', {'person': number}).status_code == 200
    assert invited.get('/').status_code == 403
    for unknown in (number, 10**30, 'Zoë', None, [1]):
      reply = visitor.post('/api/revoke', {'person': unknown})
      assert reply.status_code == 404
    reply = visitor.post('/api/invite', {'name': '', 'role': 'rater'})
    assert reply.status_code == 400
    (own,) = [p.id for p in fresh.people() if p.role == 'lead']
    assert visitor.post('/api/revoke', {'person': own}).status_code == 400

  @pytest.mark.parametrize('page', ['0', '-1', 'x', '1' * 30, '٣'])
  def test_page_number(self, lead, page):
    assert lead.get(f'/lead/disagreements?page={page}').status_code == 404

  def test_pages(self, lead):
    assert lead.get('/lead/disagreements?page=2').status_code == 200
