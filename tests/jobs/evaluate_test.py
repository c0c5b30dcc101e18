"""`lift evaluate`: what it reads, refuses and leaves behind."""

import json
import pathlib
import re

from absl.testing import parameterized
import pytest

from lift_jax.data.hra import DIMENSIONS
from tests import browser, hub_server
from tests.data import clips
from tests.evaluation.records import failed, rated, rated_in_all, scored
from tests.jobs import jobs

CONFIG = jobs.REPOSITORY / 'configs' / 'eval_critic.py'

_SMALL = {
  'metrics.bootstrap.draws': 100,
  'report.worst': 4,
  'toy_clips': 80,
}

_LABELS = ('Good', 'Normal', 'Bad')


@pytest.fixture(scope='module')
def smoke(tmp_path_factory):
  """The workdir of a run on toy clips, and its outcome."""
  workdir = tmp_path_factory.mktemp('smoke')
  flags = [f'--config.{key}={value}' for key, value in _SMALL.items()]
  outcome = jobs.lift(
    'evaluate', f'--config={CONFIG}:smoke', f'--workdir={workdir}', *flags
  )
  return workdir, outcome


class SmokeTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _setting(self, smoke):
    self.workdir, self.outcome = smoke

  def test_outcome(self):
    self.assertEqual((self.outcome.status, self.outcome.stderr), (0, ''))
    self.assertTrue(self.outcome.has_logged('are simulated'))
    table = [line for line in self.outcome.log if line.startswith('accuracy')]
    self.assertLen(table, 1)
    self.assertEqual(jobs.leftovers(self.workdir), [])

  def test_numbers(self):
    result = json.loads((self.workdir / 'evaluation.json').read_text())
    self.assertTrue(result['synthetic'])
    self.assertEqual(list(result['dimensions']), list(DIMENSIONS))
    accuracy = result['all']['agreement']['accuracy']
    self.assertBetween(accuracy['value'], 0.5, 0.9)
    self.assertLess(accuracy['low'], accuracy['value'])
    self.assertLess(accuracy['value'], accuracy['high'])
    self.assertLen(result['left_out']['scored_not_rated'], 1)
    self.assertNotEmpty(result['left_out']['rated_not_scored'])
    self.assertLen(result['worst'], 4)
    for temperature in result['temperatures'].values():
      self.assertGreater(temperature, 1)

  def test_page(self):
    page = (self.workdir / 'report.html').read_text()
    self.assertIn('Synthetic data.', page)
    self.assertEqual(page.count('<img src="data:image/jpeg'), 4 * 8)

  def test_browser(self):
    """A browser reports no errors in the page."""
    program = browser.find()
    if program is None:
      pytest.skip('no Chromium here')
    process = browser.run(
      program, self.workdir / 'report.html', self.workdir / 'profile',
      '--dump-dom',
    )  # fmt: skip
    self.assertEqual(process.returncode, 0, process.stderr)
    self.assertNotIn('CONSOLE', process.stderr)
    headings = re.findall('<h[12]>(.*?)</h[12]>', process.stdout)
    self.assertEqual(headings[0], 'How far to trust this critic')
    self.assertContainsSubset(
      ['All metrics', 'Confusion matrices', 'How to read this'], headings
    )


class FilesTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _setting(self, tmp_path):
    self.root = tmp_path / 'data'
    self.workdir = tmp_path / 'run'
    (self.root / 'videos').mkdir(parents=True)

  def write(self, name, items) -> pathlib.Path:
    path = self.root / name
    text = '\n'.join(map(json.dumps, items))
    path.write_text(text if name.endswith('l') else json.dumps(items))
    return path

  def evaluate(self, **settings):
    defaults = {
      'labels__root': self.root,
      'labels__files': "('labels.json',)",
      'scores__files': f"('{self.root / 'scores.jsonl'}',)",
      'metrics__bootstrap__draws': 50,
    }
    flags = [
      f'--config.{key.replace("__", ".")}={value}'
      for key, value in (defaults | settings).items()
    ]
    outcome = jobs.lift(
      'evaluate', f'--config={CONFIG}', f'--workdir={self.workdir}', *flags
    )
    path = self.workdir / 'evaluation.json'
    return outcome, json.loads(path.read_text()) if path.exists() else None

  def clips(self, names='abcdefghij'):
    """Labels that turn, and scores that are one step off for every third."""
    human, scores = [], []
    for index, name in enumerate(names):
      labels = [_LABELS[(index + step) % 3] for step in range(3)]
      said = labels if index % 3 else [labels[1], labels[2], labels[0]]
      caption = f'A {name} with number {index}.'
      human += rated_in_all(name, caption, tuple(labels))
      scores.append(scored(name, caption, tuple(said)))
    return human, scores

  def test_own_files(self):
    human, scores = self.clips()
    self.write('labels.json', human)
    self.write('scores.jsonl', scores)
    clips.write_clip(self.root / 'videos' / 'a.mp4', 5, 32, 48)
    outcome, result = self.evaluate(calibration__fraction=0.0)
    self.assertEqual((outcome.status, outcome.stderr), (0, ''))
    self.assertFalse(result['synthetic'])
    self.assertEqual(result['critic'], '0123456789abcdef')
    self.assertEqual(result['all']['ratings'], 30)
    self.assertAlmostEqual(
      result['all']['agreement']['accuracy']['value'], 18 / 30
    )
    page = (self.workdir / 'report.html').read_text()
    self.assertNotIn('Synthetic data.', page)
    self.assertEqual(page.count('<img src="data:image/jpeg'), 3 * 5)
    self.assertIn('The video file is missing.', page)

  @parameterized.parameters(False, True)
  def test_pairs(self, has_ratings):
    """Pairs that people compared, alone or next to ratings."""
    human, scores = self.clips()
    self.write('labels.json', human)
    self.write('scores.jsonl', scores)
    # Of two clips that the critic scores alike people prefer the first.
    pairs = [
      {
        'caption': 'A a with number 0.',
        'videos': ['videos/a.mp4', 'videos/b.mp4'],
        'overall': 'first',
        'dimensions': {'motion': 'second'},
      }
    ]
    scores[1]['caption'] = scores[0]['caption']
    self.write('scores.jsonl', scores)
    self.write('pairs.json', pairs)
    settings = {'preferences__files': "('pairs.json',)"}
    if not has_ratings:
      settings['labels__files'] = '()'
    outcome, result = self.evaluate(**settings)
    self.assertEqual((outcome.status, outcome.stderr), (0, ''))
    found = result['preferences']['dimensions']
    self.assertEqual(list(found), ['overall', 'motion'])
    self.assertEqual(found['motion']['count'], 1)
    self.assertEqual('dimensions' in result, has_ratings)
    self.assertTrue(outcome.has_logged('Pairs that people compared'))
    page = (self.workdir / 'report.html').read_text()
    self.assertIn('<h2>Pairs that people compared</h2>', page)
    self.assertEqual('<h2>Confusion matrices</h2>' in page, has_ratings)

  def test_several_critics(self):
    """Another critic, which is always right, on ratings and a benchmark."""
    human, scores = self.clips()
    other = []
    for index, item in enumerate(scores):
      labels = tuple(_LABELS[(index + step) % 3] for step in range(3))
      name = 'abcdefghij'[index]
      other.append(scored(name, item['caption'], labels, critic='other'))
    caption = scores[0]['caption']
    for items in (scores, other):
      items[1]['caption'] = caption
    self.write('labels.json', human)
    self.write('scores.jsonl', scores)
    path = self.write('other.jsonl', other)
    (self.root / 'bench.csv').write_text(
      'path_A,path_B,prompt,VQ,MQ,TA,Overall\n'
      f'videos/a.mp4,videos/b.mp4,{caption},B,A,A,A\n'
    )
    folders = [self.root / name for name in ('critic', 'other_critic')]
    for folder in folders:
      folder.mkdir()
    settings = {
      'scores__others': f"('{path}',)",
      'preferences__files': "('bench.csv',)",
      'normalization__critics': tuple(map(str, folders)),
    }
    own = str(self.root / 'scores.jsonl')
    outcome, result = self.evaluate(
      normalization__files=(own, str(path)), **settings
    )
    self.assertEqual((outcome.status, outcome.stderr), (0, ''))
    accuracy = result['critics']['ratings']['metrics']['accuracy']
    self.assertEqual(list(accuracy), [own, str(path), 'ensemble'])
    self.assertEqual(accuracy[str(path)]['value'], 1.0)
    self.assertGreater(accuracy[str(path)]['minus_first']['low'], 0)
    found = result['preferences']['dimensions']
    self.assertIn('overall, normalised', found)
    self.assertEqual(found['fidelity']['benchmark']['votes'], 1)
    self.assertTrue(outcome.has_logged('Critics'))
    page = (self.workdir / 'report.html').read_text()
    self.assertIn('<h2>Critics compared</h2>', page)
    ensemble = json.loads((self.workdir / 'ensemble.json').read_text())
    self.assertLen(ensemble, 10)
    # The normalizations are in the folders now, but only of these critics.
    self.assertEqual(self.evaluate(**settings)[0].status, 0)
    settings['normalization__critics'] = (str(folders[1]),)
    outcome, _ = self.evaluate(**settings)
    self.assertIn('critics are of other; give its folder too', outcome.stderr)

  def test_labels_of_the_hub(self):
    human, scores = self.clips()
    path = self.write('labels.json', human)
    self.write('scores.jsonl', scores)
    with (
      hub_server.serve() as server,
      hub_server.use(server.url, self.root / 'hub'),
    ):
      server.add('datasets/org/data', {'labels.json': path.read_bytes()})
      path.unlink()
      _, result = self.evaluate(labels__root='org/data')
    self.assertEqual(result['counts']['human_records'], 30)

  def test_split_keeps_prompts_together(self):
    human, scores = self.clips()
    self.write('labels.json', human)
    self.write('scores.jsonl', scores)
    _, result = self.evaluate(calibration__fraction=0.4)
    counts = result['counts']
    self.assertEqual(counts['videos_evaluated'] + counts['videos_aside'], 10)
    self.assertEqual(counts['ratings_aside'], 3 * counts['videos_aside'])
    self.assertGreater(counts['videos_aside'], 0)

  def test_calibration_files(self):
    human, scores = self.clips()
    self.write('labels.json', human[:18])
    self.write('other.json', human[18:])
    self.write('scores.jsonl', scores)
    outcome, result = self.evaluate(calibration__files="('other.json',)")
    self.assertEqual(outcome.stderr, '')
    self.assertEqual(result['counts']['videos_evaluated'], 6)
    self.assertEqual(result['counts']['videos_aside'], 4)
    self.assertEqual(result['left_out']['scored_not_rated'], [])

  def test_nothing_is_lost(self):
    """What cannot be compared is counted, listed and told."""
    human, scores = self.clips()
    human.append(rated('x', 'A stray', 'motion', 'Good'))
    scores = scores[:-1] + [failed('j', scores[-1]['caption'], 'no label')]
    scores.append(scored('y', 'Another stray'))
    self.write('labels.json', human)
    self.write('scores.jsonl', scores)
    outcome, result = self.evaluate(calibration__fraction=0.0)
    left_out = result['left_out']
    self.assertIn('videos/x.mp4', left_out['rated_not_scored'][0][0])
    self.assertIn('videos/y.mp4', left_out['scored_not_rated'][0])
    self.assertEqual(left_out['errors'][0][1], 'no label')
    self.assertEqual(result['all']['errors'], 3)
    self.assertEqual(result['all']['ratings'], 30)
    for words in ('1 rated not scored', '1 scored not rated', '1 errors'):
      self.assertTrue(outcome.has_logged(words), words)

  def test_skip(self):
    human, scores = self.clips()
    scores[3]['labels']['motion'] = 'Fine'
    human[0]['conversations'][1]['value'] = 'Fine.'
    self.write('labels.json', human)
    self.write('scores.jsonl', scores)
    outcome, _ = self.evaluate()
    self.assertEqual(outcome.status, 2)
    self.assertIn("scores.jsonl line 4: \"labels\": motion is 'Fine'",
                  outcome.stderr)  # fmt: skip
    self.assertFalse((self.workdir / 'report.html').exists())
    outcome, result = self.evaluate(labels__on_bad_record='skip')
    self.assertEqual(outcome.stderr, '')
    self.assertLen(result['left_out']['skipped'], 2)

  @parameterized.parameters('video', 'caption')
  def test_trained_on(self, shared):
    human, scores = self.clips()
    self.write('labels.json', human)
    self.write('scores.jsonl', scores)
    video = 'c' if shared == 'video' else 'z'
    caption = 'A c with number 2.' if shared == 'caption' else 'x'
    trained = self.clips('klmn')[0]
    trained += rated_in_all(video, caption, ('Good', 'Good', 'Good'))
    self.write('train.json', trained)
    outcome, result = self.evaluate(train__files="('train.json',)")
    self.assertEqual(outcome.status, 2)
    self.assertLen(outcome.stderr.splitlines(), 1)
    for word in ('train.json record', 'labels.json record', shared):
      self.assertIn(word, outcome.stderr)
    self.assertIsNone(result)

  @parameterized.parameters(
    ({'labels__files': '()'}, 'labels.files is empty'),
    ({'scores__files': '()'}, 'scores.files is empty'),
    ({'labels__files': "('none.json',)"}, 'none.json: no such file'),
    ({'labels__root': '/nowhere'}, '/nowhere: no such folder'),
    ({'calibration__fraction': 1.0}, 'calibration.fraction is 1'),
    ({'metrics__temperature': 'some'}, 'metrics.temperature'),
    ({'reward__good': 0.1}, 'a worse label a higher score'),
    ({'labels__on_bad_record': 'stop'}, 'on_bad_record'),
    ({'normalization__files': "('a', 'b')"}, '2 normalization.files for 0'),
  )
  def test_refused(self, settings, message):
    human, scores = self.clips()
    self.write('labels.json', human)
    self.write('scores.jsonl', scores)
    outcome, _ = self.evaluate(**settings)
    self.assertEqual(outcome.status, 2)
    self.assertIn(message, outcome.stderr)
    self.assertLen(outcome.stderr.splitlines(), 1)
