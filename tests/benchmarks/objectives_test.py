"""The comparison of objectives: what each learns from, and the tables."""

import importlib.util
import pathlib
from unittest import mock

from absl.testing import parameterized

_FILE = pathlib.Path(__file__).parents[2] / 'benchmarks' / 'objectives.py'


def _load():
  spec = importlib.util.spec_from_file_location('objectives', _FILE)
  module = importlib.util.module_from_spec(spec)
  spec.loader.exec_module(module)
  return module


objectives = _load()

_UNRATED = [{'video': f'{i}.mp4', 'caption': 'A cross.'} for i in range(3)]
_SCORED = [
  {
    **clip,
    'score': 0.1 * i,
    'soft_reward': 0.2 * i,
    'labels': {'semantic': 'Good', 'motion': label},
  }
  for i, (clip, label) in enumerate(
    zip(_UNRATED, ('Good', 'Bad', 'Good'), strict=True)
  )
]


class _WithoutCritic:
  """A demo that no critic has taken part in."""

  clips = pathlib.Path()

  def unrated_clips(self):
    return _UNRATED

  def scored_clips(self):
    raise AssertionError('there are no scores')


class _Demo(_WithoutCritic):
  def scored_clips(self):
    return _SCORED


class ObjectiveTest(parameterized.TestCase):
  @parameterized.parameters(
    ('plain', [1.0, 1.0, 1.0]),
    ('soft', [0.0, 0.2, 0.4]),
    ('no_real', [0.0, 0.1, 0.2]),
    ('rejection', [1.0, 1.0]),
  )
  def test_scores(self, name, scores):
    records, settings = objectives._objective(_Demo(), name)
    self.assertEqual([record['score'] for record in records], scores)
    kept = [_SCORED[0], _SCORED[2]] if name == 'rejection' else _SCORED
    self.assertEqual(
      [record['video'] for record in records],
      [record['video'] for record in kept],
    )
    self.assertEqual(settings, {'data.real': ()} if name == 'no_real' else {})

  def test_as_in_the_demo(self):
    """`hard` is the stage of the demo itself, with its own scores."""
    self.assertEqual(objectives._objective(_Demo(), 'hard'), (None, {}))
    self.assertEqual(objectives._stages_of('hard'), ('align', 'after'))
    self.assertEqual(objectives._stages_of('soft'), ('align_soft', 'soft'))

  def test_without_critic(self):
    """Some objectives do not ask it, and do not change when it does."""

    def truth(root, record):
      return float(record['video'][0])

    with mock.patch.object(objectives, '_true_reward', truth):
      found = {
        name: objectives._objective(_WithoutCritic(), name)
        for name in objectives._WITHOUT_CRITIC
      }
      for name, one in found.items():
        self.assertEqual(one, objectives._objective(_Demo(), name))
    self.assertEqual([r['score'] for r in found['true'][0]], [0.0, 1.0, 2.0])
    self.assertEqual([r['score'] for r in found['plain'][0]], [1.0] * 3)
    self.assertEqual(found['real'], ([], {'data.synthetic': ()}))


def _both(before: float, after: float) -> dict:
  return {'before': {'value': before}, 'after': {'value': after}}


def _result(critics: dict) -> dict:
  difference = {'value': 0.25, 'low': 0.2, 'high': 0.31}
  rates = _both(0.25, 0.5) | {'difference': difference}
  compared = {
    'num_videos': 364,
    'num_prompts': 182,
    'rates': dict.fromkeys(('all', 'semantic', 'motion', 'fidelity'), rates),
    'reward': _both(0.5, 0.75),
    'speed': _both(0.04, 0.05),
    'static_share': _both(0.0, 0.01),
  }
  return {'objectives': {'hard': compared}, 'critics': critics}


class MarkdownTest(parameterized.TestCase):
  def test_rows(self):
    estimate = {'value': 0.75, 'low': 0.7, 'high': 0.8}
    numbers = dict.fromkeys(('accuracy', 'macro_f1', 'ece'), estimate)
    names = ('semantic', 'motion', 'fidelity', 'all')
    critics = {'without': dict.fromkeys(names, numbers)}
    lines = objectives.markdown({3: _result(critics)})
    self.assertIn('Seed 3, 364 clips of 182 prompts.', lines)
    self.assertIn(
      '| base | 25.0 |  | 25.0 | 25.0 | 25.0 | 0.500 | 0.0400 | 0.0 |', lines
    )
    self.assertIn(
      '| hard | 50.0 | 25.0 [20.0, 31.0] | 50.0 | 50.0 | 50.0 | 0.750 '
      '| 0.0500 | 1.0 |',
      lines,
    )
    cell = '75.0 [70.0, 80.0]'
    self.assertEqual(
      lines[-4:],
      [f'| without | {n} | {cell} | {cell} | {cell} |' for n in names],
    )

  def test_without_critics(self):
    lines = objectives.markdown({0: _result({})})
    self.assertStartsWith(lines[-1], '| hard |')
