"""The pages in a real browser, as people use them."""

from collections.abc import Iterator
import contextlib
import json
import pathlib
import re

import pytest

from lift_jax.annotation.entities import Answer
from lift_jax.annotation.export import write_export
from lift_jax.data import pair_records
from lift_jax.data.rubric import DIMENSIONS
from lift_jax.scoring.output import answer_key
from tests import browser as browsers
from tests.annotation.web import projects
from tests.jobs import critic_jobs, jobs

AXE = pathlib.Path(__file__).parent / 'axe' / 'axe.min.js'
REASON = 'input[aria-label="Reason: Motion"]'


@pytest.fixture(scope='module')
def chromium():
  playwright = pytest.importorskip('playwright.sync_api')
  program = browsers.find()
  if program is None:
    pytest.skip('no Chromium')
  with playwright.sync_playwright() as api:
    launched = api.chromium.launch(
      executable_path=program, args=['--no-sandbox', '--disable-dev-shm-usage']
    )
    yield launched
    launched.close()


class Site:
  """A project that is served, and the people who look at it.

  Attributes:
    store: the project.
    url: of the server.
    problems: errors that browsers reported on their consoles.
  """

  def __init__(self, store, url: str, chromium):
    self.store, self.url, self._chromium = store, url, chromium
    self._contexts = contextlib.ExitStack()
    self.problems: list[str] = []

  def close(self):
    self._contexts.close()

  def open(self, link: str, **settings):
    """A page of a new browser, as one person sees it."""
    context = self._chromium.new_context(**settings)
    self._contexts.callback(context.close)
    return self.page_in(context, link)

  def page_in(self, context, link: str):
    page = context.new_page()
    page.set_default_timeout(20_000)
    page.on('pageerror', lambda error: self.problems.append(str(error)))
    page.on(
      'console',
      lambda line: (
        # Requests that fail are what some tests are about.
        line.type == 'error'
        and 'Failed to load resource' not in line.text
        and self.problems.append(line.text)
      ),
    )
    page.goto(self.url + link)
    return page

  def rater(self, name: str = 'Ada', **settings):
    """(Person, page) of a new rater, with the first task."""
    person, link = projects.add_rater(self.store, name)
    page = self.open(link, **settings)
    ready(page)
    return person, page

  def answers(self, person):
    """Current answers in the order in which they were given."""
    return [
      given.answer for given in self.store.recent_answers(person.id, 100)
    ][::-1]


@contextlib.contextmanager
def site_of(folder, chromium, *args, **settings) -> Iterator[Site]:
  with (
    projects.make_store(folder, *args, **settings) as store,
    projects.serving(store) as url,
  ):
    site = Site(store, url, chromium)
    try:
      yield site
    finally:
      site.close()
    assert site.problems == []


@pytest.fixture
def site(tmp_path, chromium):
  with site_of(tmp_path, chromium, 4) as site:
    yield site


def says(page, text: str) -> None:
  page.wait_for_selector(f'#status:has-text("{text}")')


def ready(page) -> None:
  """Waits until the page takes the next answer, or has no task any more.

  What a page says of an answer it says before the next task is there.
  """
  idle = 'main[aria-busy=false]'
  page.wait_for_selector(
    f'{idle} .row input:focus, {idle} #finished:not([hidden])'
  )


def answered(page, count: int) -> None:
  page.wait_for_selector(f'#pace:has-text("{count} done")')
  ready(page)


def rate(page, digits: str) -> None:
  """Chooses a label in each row and saves, all with the keyboard."""
  for digit in digits:
    page.keyboard.press(digit)
    page.keyboard.press('Enter')


def is_pair(page) -> bool:
  return page.is_visible('#pair-form')


def test_whole_project(tmp_path, chromium):
  """From clips to a critic: ten clips and two pairs, two people and a lead."""
  with site_of(tmp_path, chromium, 10, 2, raters_per_clip=2) as site:
    ada, page = site.rater()
    labels = ('Good', 'Normal', 'Bad')
    given = {}
    for number in range(12):
      if number == 4:
        # A reload keeps what was filled in but not saved.
        page.keyboard.press('3')
        page.keyboard.press('Tab')
        page.keyboard.type('Half a rea')
        page.reload()
        ready(page)
        page.keyboard.press('ArrowUp')
        page.keyboard.press('r')
        page.keyboard.type('son')
        page.keyboard.press('Escape')
      elif number % 5 == 0:
        page.reload()
        ready(page)
      digits = '3211' if is_pair(page) else str(number % 3 + 1) * 3
      if number == 4:
        digits = '3' + digits[1:]
      caption = page.inner_text('#caption')
      given[caption] = digits
      rate(page, digits)
      answered(page, number + 1)
    assert page.is_visible('#finished')

    saved = site.answers(ada)
    assert len(saved) == 12
    assert sum('overall' in answer.labels for answer in saved) == 2
    half = saved[4]
    assert 'Half a reason' in half.reasons.values()
    for answer in saved:
      shown = site.store.task(ada.id, answer.task)
      if 'overall' not in answer.labels:
        digits = given[shown.caption]
        assert answer.labels == {
          name: labels[int(digit) - 1]
          for name, digit in zip(projects.QUESTIONS, digits, strict=True)
        }
      else:
        assert answer.labels['overall'] == 'better'
        assert answer.labels['semantic'] == (
          'worse' if answer is not half else answer.labels['semantic']
        )
      assert 0 < answer.seconds < 60

    # Back to the answer before the last one, and a correction of it.
    page.keyboard.press('b')
    page.wait_for_selector('#correcting:not([hidden])')
    ready(page)
    before = saved[-2]
    page.keyboard.press('b')
    page.wait_for_function(
      '(caption) => document.getElementById("caption").textContent == caption',
      arg=site.store.task(ada.id, before.task).caption,
    )
    ready(page)
    page.keyboard.press('2')
    page.keyboard.press('Control+Enter')
    says(page, 'Correction saved.')
    corrected = next(a for a in site.answers(ada) if a.task == before.task)
    assert corrected.id != before.id
    changed = [
      name
      for name, label in corrected.labels.items()
      if label != before.labels[name]
    ]
    assert len(changed) <= 1
    assert site.store.pace(ada.id).answered == 12

    # Somebody else agrees, but for the motion of one clip.
    bob, _ = projects.add_rater(site.store, 'Bob')
    disputed = None
    while tasks := site.store.next_tasks(bob.id, 1):
      (task,) = tasks
      (answer,) = [a for a in site.answers(ada) if a.task == task.id]
      same = dict(answer.labels)
      if task.kind == 'pair':
        mine = site.store.task(ada.id, task.id)
        if mine.clips != task.clips:
          swap = {'better': 'worse', 'worse': 'better', 'same': 'same'}
          same = {name: swap[label] for name, label in same.items()}
      elif disputed is None:
        disputed = task
        same['motion'] = next(x for x in labels if x != same['motion'])
      site.store.save_answer(
        bob.id, Answer(f'bobs-answer-{task.id}', task.id, same, {}, 5.0)
      )

    _, link = projects.add_lead(site.store)
    lead = site.open(link)
    lead.click('text=1 with disagreements')
    article = lead.locator('article')
    assert article.count() == 1
    for text in ('Ada', 'Bob', disputed.caption):
      assert article.get_by_text(text, exact=True).count() >= 1
    article.locator('.choice', has_text='Normal').click()
    article.get_by_label('Reason: Motion').fill('The lead has looked twice.')
    article.get_by_role('button', name='Settle').click()
    lead.wait_for_selector('text=Settled.')
    found = site.store.disagreement(disputed.id)
    assert found.decided == {'motion': ('Normal', 'The lead has looked twice.')}

    write_export(site.store, tmp_path / 'data' / 'export')
  exported = tmp_path / 'data' / 'export'
  assert len(json.loads((exported / 'hra.json').read_text())) == 30
  pairs = pair_records.read_pairs(tmp_path / 'data', ('export/pairs.json',))
  assert len(pairs.records) == 4
  clips = [clip for pair in pairs.records for clip in pair.clips]
  scores = {
    clip.video: {
      'video': clip.video,
      'caption': clip.caption,
      'labels': dict.fromkeys(DIMENSIONS, 'Good'),
      **{answer_key(name): 'Good.' for name in DIMENSIONS},
    }
    for clip in clips
  }
  (tmp_path / 'scores.json').write_text(json.dumps(list(scores.values())))
  outcome = jobs.lift(
    'evaluate',
    f'--config={jobs.REPOSITORY}/configs/eval_critic.py',
    f'--workdir={tmp_path / "evaluation"}',
    f'--config.labels.root={tmp_path / "data"}',
    "--config.preferences.files=('export/pairs.json',)",
    f"--config.scores.files=('{tmp_path / 'scores.json'}',)",
  )
  assert (outcome.status, outcome.stderr) == (0, ''), outcome
  evaluation = tmp_path / 'evaluation' / 'evaluation.json'
  found = json.loads(evaluation.read_text())['preferences']
  # Two people compared two pairs each.
  assert found['dimensions']['overall']['count'] == 2
  outcome = jobs.lift(
    *critic_jobs.arguments(
      tmp_path / 'critic',
      data__root=tmp_path / 'data',
      data__hra=('export/hra.json',),
      data__questions=exported / 'questions.json',
      train__steps=2,
    )
  )
  assert (outcome.status, outcome.stderr) == (0, ''), outcome


def test_player(site):
  """Speed and sound are kept; frames can be stepped; the clips loop."""
  _, page = site.rater()
  video = '.view:not([hidden]) video:not([hidden])'
  state = f"""() => {{
    const {{paused, muted, loop, playbackRate, volume, currentTime}} =
      document.querySelector('{video}');
    return {{paused, muted, loop, playbackRate, volume, currentTime}};
  }}"""
  page.wait_for_function(f'() => ({state})().currentTime > 0')
  first = page.evaluate(state)
  assert not first['paused'] and first['muted'] and first['loop']
  # It begins again at its end.
  page.wait_for_function(
    f"""() => {{
      const {{currentTime}} = document.querySelector('{video}');
      const hasLooped = currentTime < (window.last ?? 0);
      window.last = currentTime;
      return hasLooped;
    }}"""
  )
  page.keyboard.press('<')  # 0.5
  page.keyboard.press('m')
  page.fill('[data-control=volume]', '0.25')
  for reload in (False, True):
    page.keyboard.press('1')
    rate(page, '')
    page.focus('.row input')
    rate(page, '111')
    says(page, 'Saved')
    ready(page)
    if reload:
      page.reload()
      ready(page)
    now = page.evaluate(state)
    assert (now['playbackRate'], now['volume']) == (0.5, 0.25)
    assert page.input_value('[data-control=rate]') == '0.5'

  page.wait_for_function(f'() => ({state})().currentTime > 0')
  page.keyboard.press(' ')
  assert page.evaluate(state)['paused']
  page.fill('[data-control=position]', '0')
  page.focus('.row input')
  frame = '[data-control=frame]'
  page.wait_for_selector(f'{frame}:has-text("Frame 1 of 12")')
  for key, number in (
    ('ArrowRight', 2), ('ArrowRight', 3), ('ArrowLeft', 2), ('ArrowLeft', 1),
    ('ArrowLeft', 1),
  ):  # fmt: skip
    page.keyboard.press(key)
    page.wait_for_selector(f'{frame}:has-text("Frame {number} of 12")')
  page.keyboard.press('f')
  page.wait_for_function('() => document.fullscreenElement !== null')
  page.keyboard.press('f')
  page.wait_for_function('() => document.fullscreenElement === null')
  page.keyboard.press(' ')
  assert not page.evaluate(state)['paused']


def test_next_clip_is_loaded(site):
  """While the first one is rated."""
  person, link = projects.add_rater(site.store)
  page = site.open('/nothing')
  loaded = set()
  page.on('request', lambda request: loaded.add(request.url))
  page.goto(site.url + link)
  ready(page)
  page.wait_for_function(
    '() => document.querySelectorAll(".view video")[1].readyState >= 3'
  )
  tasks = site.store.next_tasks(person.id)
  urls = {f'{site.url}/clips/{task.clips[0]}' for task in tasks}
  assert len(urls) == 2
  assert urls == {url for url in loaded if '/clips/' in url}
  assert all(url.startswith(site.url) for url in loaded)


def test_pair_in_step(tmp_path, chromium):
  with site_of(tmp_path, chromium, 2, 1) as site:
    _, page = site.rater()
    while not is_pair(page):
      rate(page, '222')
      says(page, 'Saved')
      ready(page)
    page.wait_for_function(
      """() => {
        const shown = document.querySelectorAll('.view video:not([hidden])');
        const [a, b] = [...shown].map((video) => video.currentTime);
        return shown.length == 2 && a > 0.5 && Math.abs(a - b) < 0.12;
      }"""
    )
    page.keyboard.press(' ')
    page.keyboard.press('ArrowRight')
    page.wait_for_function(
      """() => {
        const shown = document.querySelectorAll('.view video:not([hidden])');
        const [a, b] = [...shown].map((video) => video.currentTime);
        return a == b && [...shown].every((video) => video.paused);
      }"""
    )


def test_help_and_skip(site):
  person, page = site.rater()
  page.keyboard.press('?')
  assert page.is_visible('#keys')
  page.keyboard.press('1')  # of the dialog, not the page
  page.keyboard.press('Escape')
  assert page.locator('.row input:checked').count() == 0
  page.keyboard.press('s')
  page.keyboard.press('Tab')
  page.keyboard.press('Tab')
  page.keyboard.press('Enter')
  says(page, 'Skipped')
  (answer,) = site.answers(person)
  assert answer.skip == 'unknown term'


def test_incomplete(site):
  person, page = site.rater()
  page.keyboard.press('1')
  page.keyboard.press('Control+Enter')
  says(page, 'Every row needs a label')
  assert not site.answers(person)


def test_reasons_are_suggested(site):
  _, page = site.rater()
  page.fill(REASON, 'It jumps.')
  page.focus('.row input')
  rate(page, '121')
  answered(page, 1)
  page.keyboard.press('ArrowDown')
  page.keyboard.press('2')
  options = f"() => [...document.querySelector('{REASON}').list.options]"
  offered = page.evaluate(
    f'{options}.map((option) => option.value)'.replace('() => ', '() => ')
  )
  assert offered == ['It jumps.']
  page.reload()
  ready(page)
  assert page.evaluate(f'{options}.map((option) => option.value)') == offered


def test_lost_connection(site):
  """The answer is kept in the page, and sent again with the same id."""
  person, page = site.rater()
  sent = []

  def lose(route):
    sent.append(route.request.post_data_json['id'])
    if len(sent) == 1:
      route.abort()
    elif len(sent) == 2:
      route.fetch()  # arrives, but the reply gets lost
      route.abort()
    else:
      route.continue_()

  page.route('**/api/answers', lose)
  rate(page, '132')
  says(page, 'Not saved yet: There is no connection')
  assert page.is_disabled('#clip-form .main')
  assert page.get_attribute('main', 'aria-busy') == 'true'
  says(page, 'Saved.')
  assert len(sent) == 3 and len(set(sent)) == 1
  (answer,) = site.answers(person)
  assert answer.labels == {
    'semantic': 'Good', 'motion': 'Bad', 'fidelity': 'Normal',
  }  # fmt: skip


def test_reload_before_it_is_saved(site):
  person, page = site.rater()
  page.route('**/api/answers', lambda route: route.abort())
  rate(page, '132')
  says(page, 'Not saved yet')
  assert not site.answers(person)
  page.unroute('**/api/answers')
  page.reload()
  says(page, 'The answer that was still here has been saved')
  (answer,) = site.answers(person)
  assert answer.labels == {
    'semantic': 'Good', 'motion': 'Bad', 'fidelity': 'Normal',
  }  # fmt: skip


def test_server_error(site):
  """A full disk, as an example."""
  person, page = site.rater()
  with site.store.database.reading() as db:
    db.execute('PRAGMA max_page_count = 1')  # no more than there are
  page.fill(REASON, 'x' * 9000)
  page.focus('.row input')
  rate(page, '111')
  says(page, 'Nothing was saved')
  assert not site.answers(person)
  with site.store.database.reading() as db:
    db.execute('PRAGMA max_page_count = 100000')
  says(page, 'Saved.')
  (answer,) = site.answers(person)
  assert answer.reasons['motion'] == 'x' * 9000


def test_text_that_is_refused(site):
  """The form keeps it, so that it can be shortened."""
  person, page = site.rater()
  page.fill(REASON, 'x' * 100_000)
  page.focus('.row input')
  rate(page, '111')
  says(page, 'at most 10000')
  assert len(page.input_value(REASON)) == 100_000
  page.fill(REASON, 'short')
  page.keyboard.press('Control+Enter')
  says(page, 'Saved.')
  (answer,) = site.answers(person)
  assert answer.reasons['motion'] == 'short'


def test_double_click(site):
  """Also a key that is hit twice at once: one answer is sent."""
  person, page = site.rater()
  sent = []
  page.on(
    'request', lambda request: sent.append(request.url.rpartition('/')[2])
  )
  for row in page.locator('#clip-form .row').all():
    row.locator('.choice').first.click()
  page.dblclick('#clip-form .main')
  answered(page, 1)
  page.keyboard.type('1')
  for _ in range(2):
    page.keyboard.press('ArrowDown')
    page.keyboard.type('1')
  page.evaluate(
    """() => {
      const press = {key: 'Enter', ctrlKey: true, bubbles: true};
      document.body.dispatchEvent(new KeyboardEvent('keydown', press));
      document.body.dispatchEvent(new KeyboardEvent('keydown', press));
    }"""
  )
  answered(page, 2)
  assert len(site.answers(person)) == 2
  assert sent.count('answers') == 2


def test_two_tabs(site):
  person, first = site.rater()
  second = site.page_in(first.context, '/')
  ready(second)
  assert first.inner_text('#caption') == second.inner_text('#caption')
  rate(first, '111')
  answered(first, 1)
  rate(second, '333')
  says(second, 'another window')
  answered(second, 1)
  assert second.inner_text('#caption') == first.inner_text('#caption')
  (answer,) = site.answers(person)
  assert set(answer.labels.values()) == {'Good'}


def test_another_person_in_this_browser(site):
  """The answer waits until its author is back."""
  person, page = site.rater()
  other, link = projects.add_rater(site.store, 'Emmy')
  site.page_in(page.context, link).close()
  rate(page, '111')
  says(page, 'Another personal link was opened')
  assert not site.answers(person) and not site.answers(other)
  page.goto(f'{site.url}/enter/{site.store.issue_token(person.id)}')
  says(page, 'has been saved')
  assert len(site.answers(person)) == 1 and not site.answers(other)


def test_clip_disappears(site):
  """A message, and the next one; the lead sees it."""
  person, link = projects.add_rater(site.store)
  gone = site.store.next_tasks(person.id, 1)[0]
  site.store.clip_path(gone.clips[0]).unlink()
  page = site.open(link)
  says(page, 'could not be found any more')
  answered(page, 1)
  assert page.inner_text('#caption') != gone.caption
  (answer,) = site.answers(person)
  assert (answer.task, answer.skip) == (gone.id, 'broken clip')


def test_clip_that_does_not_play(site):
  person, link = projects.add_rater(site.store)
  broken = site.store.next_tasks(person.id, 1)[0]
  site.store.clip_path(broken.clips[0]).write_bytes(b'not a video')
  page = site.open(link)
  says(page, 'cannot play the clip')
  assert not site.answers(person)


TEXTS = (
  '<b onclick="alert(1)">bold</b><script>document.title = "hacked"</script>',
  '\U0001f469\u200d\U0001f680' * 1000,
  'مربع أحمر يتحرك إلى اليمين',
)


def test_texts(tmp_path, chromium):
  with site_of(tmp_path, chromium, 1) as site:
    site.store.add_tasks([([('clips/000.mp4', t)], '') for t in TEXTS])
    person, page = site.rater()
    for number, text in enumerate(TEXTS):
      page.fill('input[aria-label="Reason: Semantic"]', text)
      page.focus('.row input')
      rate(page, '111')
      answered(page, number + 1)
    assert {a.reasons['semantic'] for a in site.answers(person)} == set(TEXTS)
    for _ in range(4):
      page.keyboard.press('b')
      ready(page)
    captions = {
      given.task.caption for given in site.store.recent_answers(person.id)
    }
    assert page.inner_text('#caption') in captions | set(TEXTS)
    assert page.title() == 'Rate · Toy clips'
    assert page.locator('#caption *').count() == 0
    assert page.evaluate(
      'document.documentElement.scrollWidth <= window.innerWidth'
    )


def test_narrow_and_touch(tmp_path, chromium):
  """A phone of 360 pixels: nothing to scroll sideways, large enough to tap."""
  with site_of(tmp_path, chromium, 2, 1) as site:
    person, page = site.rater(
      viewport={'width': 360, 'height': 740}, has_touch=True, is_mobile=True
    )
    for number in range(3):
      form = '#pair-form' if is_pair(page) else '#clip-form'
      for row in page.locator(f'{form} .row').all():
        choice = row.locator('.choice').last
        assert choice.bounding_box()['height'] >= 44
        choice.tap()
      _fits(page)
      page.locator(f'{form} .main').tap()
      answered(page, number + 1)
    assert len(site.answers(person)) == 3
    _, link = projects.add_lead(site.store)
    for path in ('/guideline', link, '/lead/disagreements'):
      page.goto(site.url + path)
      _fits(page)


def _fits(page) -> None:
  assert page.evaluate('document.documentElement.scrollWidth') <= 360, page.url


def test_accessibility(tmp_path, chromium):
  with site_of(tmp_path, chromium, 2, 1, raters_per_clip=2) as site:
    person, page = site.rater()
    other, _ = projects.add_rater(site.store, 'Bob')
    for rater, rank in ((other, 0), (person, 2)):
      for task in site.store.next_tasks(rater.id, 3):
        labels = dict.fromkeys(task.dimensions, task.labels[rank])
        identity = f'an-answer-{rater.id}-{task.id}'
        site.store.save_answer(
          rater.id, Answer(identity, task.id, labels, {}, 3.0)
        )
    for _ in range(3):
      page.keyboard.press('b')
      page.wait_for_selector('#correcting:not([hidden])')
      ready(page)
      _has_no_violations(page)
    for key, dialog in (('?', '#keys'),):
      page.keyboard.press(key)
      page.wait_for_selector(dialog)
      _has_no_violations(page)
      page.keyboard.press('Escape')
    page.keyboard.press('n')
    page.goto(site.url + '/')
    page.wait_for_selector('#finished:not([hidden])')
    _has_no_violations(page)
    _, link = projects.add_lead(site.store)
    for path in (
      '/guideline', '/nothing', '/lead', link, '/lead/disagreements', '/',
    ):  # fmt: skip
      page.goto(site.url + path)
      _has_no_violations(page)
    page.emulate_media(color_scheme='dark')
    page.goto(site.url + '/lead')
    _has_no_violations(page)
    page.context.clear_cookies()
    page.goto(site.url + '/')
    _has_no_violations(page)


def _has_no_violations(page) -> None:
  page.evaluate(AXE.read_text(encoding='utf-8'))
  violations = page.evaluate(
    """async () => (await axe.run({resultTypes: ['violations']})).violations
      .map(({id, impact, nodes}) => `${impact} ${id}: ${nodes[0].html}`)"""
  )
  serious = [v for v in violations if re.match('serious|critical', v)]
  assert serious == [], page.url
