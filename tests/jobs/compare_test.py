"""Runs of `lift compare`: its three forms, and what they refuse."""

import json
import re
from unittest import mock

from absl.testing import parameterized
import numpy as np
import pytest

from lift_jax.comparison import metrics, network_metrics
from lift_jax.data.vbench_dimensions import PUBLISHED
from lift_jax.jobs import compare
from lift_jax.toyworld.weights import T2V
from tests import browser
from tests.comparison import networks, sets
from tests.jobs import jobs
from tests.models.clip import tiny_clip

CONFIG = jobs.REPOSITORY / 'configs' / 'compare.py'
FULL_INFO = [
  {'prompt_en': 'a lamp', 'dimension': ['temporal_flickering']},
  {'prompt_en': 'a dog', 'dimension': ['scene'], 'prompt_opt': 'A big dog.'},
]


def _flags(**settings):
  few = {
    'statistics__bootstrap__draws': 50,
    'statistics__permutations': 200,
    'report__pairs': 1,
    'run__num_readers': 2,
  }
  return [
    f'--config.{key.replace("__", ".")}={value}'
    for key, value in (few | settings).items()
  ]


class SmokeTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.workdir = tmp_path / 'run'

  def compare(self):
    outcome = jobs.lift(
      'compare', f'--config={CONFIG}:smoke', f'--workdir={self.workdir}',
      *_flags(toy_prompts=4),
    )  # fmt: skip
    self.assertEqual((outcome.status, outcome.stderr), (0, ''))
    return outcome

  def test_smoke(self):
    outcome = self.compare()
    result = json.loads((self.workdir / 'comparison.json').read_text())
    self.assertTrue(result['synthetic'])
    (comparison,) = result['comparisons']
    self.assertEqual(
      (comparison['base'], comparison['model']), ('before', 'after')
    )
    names = [row['name'] for row in comparison['rows']]
    self.assertContainsSubset(
      ['critic_reward', 'held_out_reward', 'own_temporal_flickering', 'static',
       'frame_difference', 'block_motion', 'block_motion_p95', 'diversity'],
      names,
    )  # fmt: skip
    self.assertIn('overall', comparison['people'])
    self.assertTrue(outcome.has_logged(result['verdicts'][0]))
    page = (self.workdir / 'report.html').read_text()
    self.assertIn('<strong>Synthetic data. </strong>', page)
    self.assertIn('<strong>VBench: </strong>no results are given', page)
    self.assert_browser_reads_it()
    # The same command again measures nothing and says the same.
    journal = (self.workdir / 'metrics_after.jsonl').read_text()
    self.compare()
    again = json.loads((self.workdir / 'comparison.json').read_text())
    self.assertEqual(again, result)
    self.assertEqual(
      (self.workdir / 'metrics_after.jsonl').read_text(), journal
    )

  def assert_browser_reads_it(self):
    program = browser.find()
    if program is None:
      return
    process = browser.run(
      program, self.workdir / 'report.html', self.workdir / 'profile',
      '--dump-dom',
    )  # fmt: skip
    self.assertEqual(process.returncode, 0, process.stderr)
    self.assertNotIn('CONSOLE', process.stderr)
    headings = re.findall('<h2>(.*?)</h2>', process.stdout)
    self.assertContainsSubset(
      ['after against before', 'Clips side by side', 'Not measured'], headings
    )


@pytest.mark.fast
class PromptsTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.folder = tmp_path
    (tmp_path / 'info.json').write_text(json.dumps(FULL_INFO))

  def prompts(self, *argv):
    return jobs.lift('compare', 'prompts', *argv)

  def test_vbench(self):
    out = self.folder / 'prompts.json'
    outcome = self.prompts(
      '--suite=vbench', f'--file={self.folder / "info.json"}', f'--out={out}',
      '--seed=3',
    )  # fmt: skip
    self.assertEqual((outcome.status, outcome.stderr), (0, ''))
    self.assertTrue(outcome.has_logged('2 prompts, 30 clips (suite vbench)'))
    suite = json.loads(out.read_text())
    self.assertEqual(
      [(p['name'], p['prompt'], p['clips'], p['base_seed'])
       for p in suite['data']],
      [('a lamp', 'a lamp', 25, 3), ('a dog', 'A big dog.', 5, 3)],
    )  # fmt: skip

  def test_own_file(self):
    file = self.folder / 'mine.txt'
    file.write_text('a\nb\n')
    out = self.folder / 'prompts.json'
    self.prompts(f'--suite={file}', f'--out={out}', '--clips=2')
    suite = json.loads(out.read_text())
    self.assertEqual(suite['suite'], 'mine.txt')
    self.assertEqual([p['clips'] for p in suite['data']], [2, 2])

  @parameterized.parameters(
    ((), '--suite=NAME is missing'),
    (('--suite=vbench',), '--out=PROMPTS.json is missing'),
    (('--suite=vbench', '--out=x.json'), '--file=FILE is missing'),
    (('--suite=none.txt', '--out=x.txt'), 'give the name of a .json file'),
    (('--suite=none.txt', '--out=x.json'), 'none.txt: no such file'),
    (('--suite=vbench', '--out=x.json', '--config.a=1'), 'have no config'),
    (('--suite=vbench', '--out=x.json', '--clips=0'), '--clips'),
  )
  def test_refused(self, argv, message):
    outcome = self.prompts(*argv)
    self.assertEqual(outcome.status, 2)
    self.assertIn(message, outcome.stderr)
    self.assertLen(outcome.stderr.splitlines(), 1)


@pytest.mark.fast
class CheckTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.folder = tmp_path
    file = tmp_path / 'mine.txt'
    file.write_text('a\nb\n')
    self.suite = tmp_path / 'prompts.json'
    jobs.lift(
      'compare', 'prompts', f'--suite={file}', f'--out={self.suite}',
      '--clips=2',
    )  # fmt: skip

  def check(self, *argv):
    return jobs.lift(
      'compare', 'check', f'--suite={self.suite}',
      f'--clips={self.folder / "x"}', *argv,
    )  # fmt: skip

  def test_complete(self):
    sets.write_model(self.folder / 'x', num_clips=2)
    outcome = self.check()
    self.assertEqual((outcome.status, outcome.stderr), (0, ''))
    self.assertTrue(outcome.has_logged('4 clips in '))

  def test_missing(self):
    sets.write_model(self.folder / 'x', num_clips=1)
    outcome = self.check()
    self.assertEqual(outcome.status, 2)
    self.assertIn('2 missing (a-1, b-1)', outcome.stderr)
    outcome = self.check('--allow_missing')
    self.assertEqual(outcome.status, 0)
    self.assertTrue(outcome.has_logged('2 missing (a-1, b-1)'))

  def test_extra(self):
    """Only missing clips are allowed."""
    sets.write_model(self.folder / 'x', 'abc', num_clips=2)
    outcome = self.check('--allow_missing')
    self.assertEqual(outcome.status, 2)
    self.assertIn('2 extra (c-0, c-1)', outcome.stderr)


class CompareTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.folder = tmp_path
    self.workdir = tmp_path / 'run'

  def sample(self, name, **settings):
    return sets.write_model(
      self.folder / name,
      frames=lambda prompt, index: sets.noise(seed=ord(prompt) + index),
      **settings,
    )

  def compare(self, *folders, **settings):
    outcome = jobs.lift(
      'compare', f'--config={CONFIG}', f'--workdir={self.workdir}',
      *_flags(models__folders=tuple(map(str, folders)), **settings),
    )  # fmt: skip
    path = self.workdir / 'comparison.json'
    return outcome, json.loads(path.read_text()) if path.exists() else None

  def assert_refused(self, message, *folders, **settings):
    outcome, result = self.compare(*folders, **settings)
    self.assertEqual(outcome.status, 2, outcome)
    self.assertIn(message, outcome.stderr)
    self.assertLen(outcome.stderr.splitlines(), 1)
    self.assertIsNone(result)

  def scores(self, folder, name, critic, labels=('Good', 'Bad')):
    """Scores of clips a-0 and b-0, as lift score writes them."""
    path = folder / name
    path.write_text(
      json.dumps(
        [
          {
            'video': f'videos/{prompt}-0.mp4', 'caption': prompt,
            'critic': critic,
            'labels': dict.fromkeys(('semantic', 'motion', 'fidelity'), label),
          }
          for prompt, label in zip('ab', labels, strict=False)
        ]
      )
    )  # fmt: skip
    return str(path)

  @pytest.mark.fast
  def test_three_models(self):
    """With clips alone: nothing says which is better."""
    folders = [self.sample(name) for name in ('x', 'y', 'z')]
    outcome, result = self.compare(*folders)
    self.assertEqual((outcome.status, outcome.stderr), (0, ''))
    self.assertEqual(
      [(one['base'], one['model']) for one in result['comparisons']],
      [('x', 'y'), ('x', 'z')],
    )
    self.assertStartsWith(
      result['verdicts'][0], 'It was not measured whether y or x is better'
    )
    # Equal clips, so no difference at all.
    for row in result['comparisons'][0]['rows']:
      self.assertEqual(row['difference']['value'], 0)
    reasons = {one['name']: one['reason'] for one in result['not_measured']}
    self.assertContainsSubset(
      ['VBench', 'critic', 'held-out critic', 'people', 'distance to base'],
      reasons,
    )
    self.assertIn(
      'no prompt of the suite', reasons['diversity of the clips of a prompt']
    )

  def test_vbench(self):
    """Totals from result files, submissions, and missing clips."""
    suite = sets.vbench_suite()
    prompts = self.folder / 'prompts.json'
    data = [
      {'name': p.name, 'prompt': p.text, 'clips': p.num_clips,
       'dimensions': p.dimensions}
      for p in suite.prompts
    ]  # fmt: skip
    prompts.write_text(json.dumps({'suite': 'vbench', 'data': data}))
    names = [prompt.name for prompt in suite.prompts]
    texts = dict.fromkeys(names, 'text')
    folders, results = [], []
    for number, row in enumerate((PUBLISHED[2], PUBLISHED[5])):
      folder = sets.write_model(
        self.folder / f'm{number}', names, 2, texts=texts
      )
      folders.append(folder)
      entries = sets.vbench_entries(suite, row.scores, seed=number)
      if number:
        del entries['color']  # VBench was not run on it
      results.append(
        str(sets.write_results(self.folder / f'r{number}', entries))
      )
    settings = {
      'suite__file': prompts,
      'vbench__folders': tuple(results),
      'vbench__submission': True,
    }
    outcome, _ = self.compare(*folders, **settings)
    self.assertEqual(outcome.status, 2)
    self.assertIn('no result for color', outcome.stderr)
    outcome, result = self.compare(
      *folders, **settings, suite__allow_missing=True
    )
    self.assertEqual((outcome.status, outcome.stderr), (0, ''))
    rows = {row['name']: row for row in result['comparisons'][0]['rows']}
    self.assertAlmostEqual(rows['scene']['other']['value'], 0.5763)
    self.assertIn('total', rows)
    self.assertTrue((self.workdir / 'm0_vbench_submission.zip').exists())
    page = (self.workdir / 'report.html').read_text()
    # Published rows without a known evaluator, and not VBench-Long's.
    self.assertIn('LiFT paper', page)
    self.assertNotIn('VBench leaderboard', page)

  @pytest.mark.fast
  def test_critics(self):
    folders = [self.sample(name) for name in ('x', 'y')]
    files, held_out = (
      tuple(self.scores(folder, f'{critic}.json', critic) for folder in folders)
      for critic in 'CD'
    )
    outcome, result = self.compare(
      *folders, critic__files=files, critic__held_out=held_out
    )
    self.assertEqual((outcome.status, outcome.stderr), (0, ''))
    rows = {row['name']: row for row in result['comparisons'][0]['rows']}
    self.assertAlmostEqual(rows['held_out_reward']['base']['value'], 0.475)

  def metric_file(self, folder, name, value):
    """A metric of one's own, which is the same for clips a-0 and b-0."""
    metric = {'name': name, 'title': 'beauty', 'group': 'Mine',
              'better': 'higher', 'is_share': True}  # fmt: skip
    path = folder / 'metrics.json'
    clips = {f'videos/{prompt}-0.mp4': {name: value} for prompt in 'ab'}
    path.write_text(
      json.dumps({'metrics': [metric], 'decisive': name, 'clips': clips})
    )
    return str(path)

  @pytest.mark.fast
  def test_every_pair(self):
    """By a metric of one's own, which decides; the last two come first."""
    folders = [self.sample(name) for name in 'xyz']
    files = tuple(
      self.metric_file(folder, 'beauty', value)
      for folder, value in zip(folders, (0.2, 0.9, 0.5), strict=True)
    )
    outcome, result = self.compare(
      *folders, models__every_pair=True, metrics__files=files
    )
    self.assertEqual((outcome.status, outcome.stderr), (0, ''))
    changes = {
      (one['base'], one['model']): one['rows'][0]['difference']['value']
      for one in result['comparisons']
    }
    self.assertEqual(list(changes), [('y', 'z'), ('x', 'z'), ('x', 'y')])
    self.assertSequenceAlmostEqual(list(changes.values()), [-0.4, 0.3, 0.7])
    self.assertIn('beauty 50.0 against 90.0', result['verdicts'][0])
    page = (self.workdir / 'report.html').read_text()
    self.assertIn('<option value="model0">z against y</option>', page)

  @pytest.mark.fast
  def test_metric_of_another_name(self):
    folders = [self.sample(name) for name in 'xy']
    files = tuple(self.metric_file(folder, 'static', 0.5) for folder in folders)
    self.assert_refused(
      "'static' is the name of another metric", *folders, metrics__files=files
    )

  @pytest.mark.fast
  def test_flow(self):
    """Of clips of four frames that stand still, but for one of y."""
    folders = [self.sample(name) for name in 'xy']
    flows = []
    for number, folder in enumerate(folders):
      flows.append(folder / 'flow')
      flows[-1].mkdir()
      for name in ('a-0', 'b-0'):
        flow_phw2 = np.zeros((5, 16, 16, 2), np.float32)
        flow_phw2[:] = 9.0 if number and name == 'b-0' else 0.0
        np.save(flows[-1] / f'{name}.npy', flow_phw2)
    outcome, result = self.compare(
      *folders, flow__folders=tuple(map(str, flows))
    )
    self.assertEqual((outcome.status, outcome.stderr), (0, ''))
    rows = {row['name']: row for row in result['comparisons'][0]['rows']}
    self.assertEqual(rows['flow_static']['other']['value'], 0.5)
    self.assertEqual(rows['flow_dynamic_degree']['other']['value'], 0.5)
    # The clip of the other prompt is dropped.
    self.assertEqual(rows['flow_temporal_flickering']['num_clips'], 1)
    reasons = {one['name'] for one in result['not_measured']}
    self.assertNotIn('static filter', reasons)

  @pytest.mark.fast
  def test_distance(self):
    """On latents of the base's clips; the networks are faked."""
    folders = [self.sample(name) for name in 'xy']
    latents = folders[0] / 'latents'
    latents.mkdir()
    for number, name in enumerate(('a-0', 'b-0')):
      np.save(latents / f'{name}.npy', np.full((2, 3, 4, 5), number))

    def distance(base, other, config, mesh, **settings):
      self.assertEqual((base.path, config.compute_dtype), (T2V, 'float32'))
      self.assertEqual(settings, {'draws': 4, 'batch_per_shard': 1})
      return mock.Mock(side_effect=distances, fingerprint=lambda: {'draws': 4})

    def distances(clips, *, keep):
      self.assertFalse(keep)
      self.assertEqual([clip.caption for clip in clips], ['a', 'b'])
      return [float(clip.latents.mean()) for clip in clips]

    with mock.patch.object(compare, 'VelocityDistance', distance):
      outcome, result = self.compare(
        *folders, distance__models=(str(T2V), str(T2V)),
        distance__compute_dtype='float32',
      )  # fmt: skip
    self.assertEqual((outcome.status, outcome.stderr), (0, ''))
    rows = {row['name']: row for row in result['comparisons'][0]['rows']}
    row = rows['distance_to_base']
    self.assertEqual((row['base']['value'], row['other']['value']), (0, 0.5))

  @pytest.mark.fast
  def test_held_out_is_another(self):
    folders = [self.sample(name) for name in ('x', 'y')]
    files = tuple(self.scores(folder, 'C.json', 'C') for folder in folders)
    self.assert_refused(
      'hold out another one', *folders,
      critic__files=files, critic__held_out=files,
    )  # fmt: skip

  @pytest.mark.fast
  def test_trained_on_these_prompts(self):
    folders = [self.sample(name) for name in ('x', 'y')]
    train = self.folder / 'hra.json'
    turns = [
      {'from': 'human', 'value': '<video>\n a How is it?'},
      {'from': 'gpt', 'value': 'Good. Fine.'},
    ]
    other = [turns[0] | {'value': '<video>\n z How is it?'}, turns[1]]
    train.write_text(
      json.dumps(
        [
          {'video': 'v.mp4', 'conversations': turns},
          {'video': 'w.mp4', 'conversations': other},
        ]
      )
    )
    self.assert_refused(
      'the critic was trained on the prompt', *folders,
      critic__trained_on=(str(train),),
    )  # fmt: skip

  @pytest.mark.fast
  def test_other_prompts(self):
    folders = self.sample('x'), self.sample('y', names='abc')
    self.assert_refused("have different prompts, such as 'c'", *folders)

  @pytest.mark.fast
  def test_missing_clips(self):
    folders = self.sample('x', num_clips=2), self.sample('y', num_clips=1)
    self.assert_refused(
      '2 missing (a-1, b-1); sample them, or set suite.allow_missing', *folders
    )
    _, result = self.compare(*folders, suite__allow_missing=True)
    self.assertEqual(
      result['faults'], [{'model': 'y', 'text': '2 missing (a-1, b-1)'}]
    )

  @pytest.mark.fast
  def test_missing_prompt(self):
    """One of the suite that a model has no clip of."""
    file, suite = self.folder / 'mine.txt', self.folder / 'suite.json'
    file.write_text('a\nb\nc\n')
    jobs.lift(
      'compare', 'prompts', f'--suite={file}', f'--out={suite}', '--clips=1'
    )
    folders = self.sample('x', names='abc'), self.sample('y')
    self.assert_refused('1 missing (c-0)', *folders, suite__file=suite)
    outcome, result = self.compare(
      *folders, suite__file=suite, suite__allow_missing=True
    )
    self.assertEqual(outcome.stderr, '')
    self.assertEqual(result['comparisons'][0]['rows'][0]['num_clips'], 2)

  @pytest.mark.fast
  def test_cut_clip(self):
    folders = self.sample('x'), self.sample('y')
    path = folders[1] / 'videos' / 'a-0.mp4'
    path.write_bytes(path.read_bytes()[:-200])
    self.assert_refused('1 cut or damaged (videos/a-0.mp4)', *folders)

  @pytest.mark.fast
  @parameterized.parameters(
    ({'models__names': "('x',)"}, 'models.names has 1 items for 2'),
    ({'models__names': "('x', 'x')"}, 'name each model once'),
    ({'critic__files': "('a.json',)"}, 'critic.files has 1 items for 2'),
    ({'vbench__folders': "('a', 'b')"}, 'suite.file is empty'),
    ({'flow__folders': "('a', 'b')"}, 'a-0.npy: no such file'),
    ({'distance__models': "('a', 'b')"}, 'a/model_index.json: no such'),
    ({'distance__adapters': "('a',)"}, 'distance.adapters has 1 items for 2'),
    ({'distance__draws': 0}, 'distance.draws must be above 0'),
    ({'metrics__files': "('a', 'b')"}, 'a: no such file'),
    ({'vbench__submission': True}, 'needs the results in vbench.folders'),
    ({'critic__files': "('a.json', 'b.json')"}, 'a.json: no such file'),
    ({'people__files': "('pairs.json',)"}, 'pairs.json: no such file'),
    ({'people__follow_links': 'x'}, 'people.follow_links'),
    ({'suite__file': 'none.json'}, 'none.json: no such file'),
    ({'run__num_readers': 0}, 'run.num_readers must be above 0'),
    ({'statistics__level': 1.0}, 'statistics.level is 1'),
  )
  def test_refused(self, settings, message):
    folders = self.sample('x'), self.sample('y')
    self.assert_refused(message, *folders, **settings)

  def test_networks(self):
    """Metrics whose networks are given; reasons for the others."""
    clip = tiny_clip.write_clip(self.folder / 'clip')
    suite = self.folder / 'prompts.json'
    data = [
      {'name': 'a', 'prompt': 'A long a.', 'clips': 1, 'style': 'oil',
       'dimensions': ['appearance_style']},
      {'name': 'b', 'prompt': 'A long b.', 'clips': 1,
       'dimensions': ['background_consistency']},
    ]  # fmt: skip
    suite.write_text(json.dumps({'suite': 'mine', 'data': data}))
    texts = {one['name']: one['prompt'] for one in data}
    folders = [self.sample(name, texts=texts) for name in ('x', 'y')]
    free = [one for one in metrics.measures() if not one.needs]
    tiny = network_metrics.network_measures(networks.SIZES)
    with pytest.MonkeyPatch.context() as patch:
      patch.setattr(metrics, '_MEASURES', [*free, *tiny])
      outcome, result = self.compare(
        *folders, suite__file=suite, metrics__weights__clip_b32=clip
      )
    self.assertEqual((outcome.status, outcome.stderr), (0, ''))
    rows = {row['name']: row for row in result['comparisons'][0]['rows']}
    self.assertEqual(
      {name: rows[name]['num_clips'] for name in rows if 'own_' in name},
      {'own_background_consistency': 1, 'own_appearance_style': 1},
    )
    self.assertEqual(rows['clip_text_alignment']['num_clips'], 2)
    reasons = {one['name']: one['reason'] for one in result['not_measured']}
    self.assertEqual(
      reasons['aesthetic quality (LAION)'],
      'needs a folder of weights: --config.metrics.weights.clip_l14, '
      '--config.metrics.weights.aesthetic',
    )
    self.assertContainsSubset(
      ['subject consistency (DINO)', 'temporal style, overall consistency'],
      reasons,
    )

  @pytest.mark.fast
  def test_another_network(self):
    clip = tiny_clip.write_clip(self.folder / 'clip')
    folders = self.sample('x'), self.sample('y')
    for name, message in (
      ('clip_b32', 'not openai/clip-vit-base-patch32'),
      ('dino_b16', 'use the config of a DINO'),
    ):
      self.assert_refused(
        message, *folders, **{f'metrics__weights__{name}': clip}
      )

  @pytest.mark.fast
  def test_folders(self):
    self.assert_refused('models.folders is empty')
    x = self.sample('x')
    self.assert_refused('has one folder; give two or more', x)
    self.assert_refused('list a folder once', x, x)
    (self.folder / 'empty').mkdir()
    self.assert_refused('lists no clip', x, self.folder / 'empty')
    (self.folder / 'deep').mkdir()
    self.assert_refused("two are named 'x'", x, self.sample('deep/x'))
