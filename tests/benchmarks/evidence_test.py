"""The evidence: what is compared, the choice of settings, and the tables."""

import json
from unittest import mock

from absl.testing import parameterized
import evidence
from evidence_parts import arms, config, measures, search, tables
import numpy as np
import pytest

from lift_jax import config_lib
from lift_jax.errors import UserError
from lift_jax.evaluation.bootstrap import BootstrapConfig
from lift_jax.jobs.align_config import AlignConfig

pytestmark = pytest.mark.fast

_CHOICES = {
  name: method.candidates()[0]
  for name, method in arms.METHODS.items()
  if method.grid
}
_RATE = {'optimizer.learning_rate': 1e-3}
_BOOTSTRAP = BootstrapConfig(draws=200, coverage=0.95, seed=0)


class ArmsTest(parameterized.TestCase):
  def test_every_arm_is_a_config(self):
    section = config.get_config('smoke').align
    for name, arm in arms.ARMS.items():
      settings = arm.settings(_CHOICES)
      changed = section.copy_and_resolve_references()
      changed.update_from_flattened_dict(settings)
      align = config_lib.resolve(changed, AlignConfig)
      self.assertEqual(bool(align.data.real), arm.has_real, name)
      self.assertEqual(bool(align.data.synthetic), arm.method != 'real', name)
      selects = align.objective.chosen.selects(reward=1.0, is_real=True)
      if arm.has_real:
        self.assertTrue(selects, name)

  def test_every_candidate_is_a_config(self):
    """And has a name of its own."""
    section = config.get_config('smoke').align
    names = []
    for name, method in arms.METHODS.items():
      for candidate in method.candidates() if method.grid else ():
        changed = section.copy_and_resolve_references()
        changed.update_from_flattened_dict(
          arms.search_arm(name).settings({name: candidate})
        )
        config_lib.resolve(changed, AlignConfig)
        names.append(search.candidate_name(name, candidate))
    self.assertLen(names, 35)
    self.assertLen(set(names), len(names))

  def test_real_weight(self):
    """It is that of the choice whose search it comes from."""
    choices = search.read_choices(search.CHOICES)
    setting = 'objective.dpo.real_weight'
    chosen = arms.ARMS['dpo-critic-real'].settings(choices)[setting]
    self.assertEqual(chosen, choices['dual_ipo'][setting])

  def test_names(self):
    self.assertEqual(
      list(arms.ARMS)[:4],
      ['sft', 'rejection-checkers', 'weighted-checkers', 'dpo_mpo-checkers'],
    )
    for name in ('real', 'sft-real', 'dual_ipo-critic-real', 'kto-critic'):
      self.assertIn(name, arms.ARMS)
    self.assertNotIn('weighted_soft-checkers', arms.ARMS)

  def test_soft_rewards_take_the_settings_of_hard_ones(self):
    chosen = {'weighted': {'optimizer.learning_rate': 7.0}}
    settings = arms.ARMS['weighted_soft-critic'].settings(chosen)
    self.assertEqual(settings['optimizer.learning_rate'], 7.0)

  def test_nothing_chosen(self):
    with self.assertRaisesRegex(UserError, '--search --only=kto'):
      arms.ARMS['kto-critic'].settings({})

  def test_choose(self):
    self.assertEqual(arms.choose('b,a', ['a', 'b', 'c']), ['a', 'b'])
    self.assertEqual(arms.choose('', ['a', 'b']), ['a', 'b'])
    with self.assertRaisesRegex(UserError, '--only: x; known: a'):
      arms.choose('x', ['a'])


class SearchTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.path = tmp_path / 'choices.json'

  def test_choice(self):
    rates = (3e-4, 1e-4, 1e-3)
    names = [
      search.candidate_name('sft', {'optimizer.learning_rate': rate})
      for rate in rates
    ]
    self.assertEqual(names[0], 'sft-learning_rate=0.0003')
    found = {
      name: {100: {'all': [0.1] * 8}, 101: {'all': [share] * 8}}
      for name, share in zip(names, (0.2, 0.3, 0.4), strict=True)
    }
    methods = search.write_choices(self.path, found, {'steps': 3}, _BOOTSTRAP)
    self.assertEqual(
      search.read_choices(self.path), {'sft': {'optimizer.learning_rate': 1e-3}}
    )
    rows = methods['sft']['tried']
    self.assertEqual(rows[1]['all'], {'100': 0.1, '101': 0.3})
    self.assertEqual(rows[0]['gain'], [0.0, 0.0, 0.0])
    value, low, high = rows[1]['gain']
    self.assertEqual(value, 0.05)
    self.assertTrue(0 < low < value < high)
    # A later search of another method keeps this one.
    later = {'rejection-learning_rate=0.001': {100: {'all': [0.5]}}}
    search.write_choices(self.path, later, {}, _BOOTSTRAP)
    self.assertEqual(list(search.read_choices(self.path)), ['sft', 'rejection'])

  def test_best_beyond_chance(self):
    first = {'settings': {'a': 1}, 'gain': [0.0, 0.0, 0.0]}
    by_chance = {'settings': {'a': 2}, 'gain': [0.05, -0.01, 0.1]}
    better = {'settings': {'a': 3}, 'gain': [0.02, 0.01, 0.03]}
    self.assertEqual(search.best([first, by_chance]), {'a': 1})
    self.assertEqual(search.best([first, by_chance, better]), {'a': 3})

  def test_no_file(self):
    with self.assertRaisesRegex(UserError, '--search'):
      search.read_choices(self.path)

  def test_shipped_choices(self):
    chosen = search.read_choices(search.CHOICES)
    self.assertEqual(
      set(chosen), {name for name, m in arms.METHODS.items() if m.grid}
    )


class MeasuresTest(parameterized.TestCase):
  def test_paired_difference(self):
    rng = np.random.default_rng(0)
    other = rng.random(200)
    values = other + 0.1
    found = measures.difference(values, other, _BOOTSTRAP)
    # Pairs cancel the spread between prompts.
    np.testing.assert_allclose(
      (found.value, found.low, found.high), 0.1, rtol=1e-6
    )

  def test_rewards_by_prompt(self):
    records = [
      {'caption': 'b', 'soft_reward': 0.5},
      {'caption': 'a', 'soft_reward': 0.25},
      {'caption': 'b', 'soft_reward': 1.0},
    ]
    self.assertEqual(measures.rewards(records, ['a', 'b']), [0.25, 0.75])

  def test_accuracy(self):
    names = ('semantic', 'motion', 'fidelity')
    truth = [{'labels': dict.fromkeys(names, x)} for x in ('Good', 'Bad')]
    rated = [{'labels': dict.fromkeys(names, 'Good')} for _ in range(2)]
    rated[1]['labels']['motion'] = 'Bad'
    self.assertEqual(
      measures.accuracy(rated, truth),
      {'semantic': 0.5, 'fidelity': 0.5, 'motion': 1.0},
    )


def _values(share: float) -> measures.Values:
  names = ('semantic', 'motion', 'fidelity', 'all', 'reward', 'static')
  return {
    **{name: [share, share] for name in names},
    'motion_size': [0.04 * share] * 2,
    'diversity': [0.1, 0.1],
    'distance': [0.0, 0.02],
  }


class TablesTest(parameterized.TestCase):
  def test_rows(self):
    found = {
      'base': _values(0.1) | {'critic': [0.25, 0.25]},
      'sft': _values(0.2),
      'weighted-checkers': _values(0.25) | {'critic': [0.5, 0.5]},
      'kto-critic': None,
    }
    lines = tables.markdown(
      {3: found, 4: {'base': None}},
      {3: {'semantic': 0.8, 'motion': 0.625}, 4: None},
      _BOOTSTRAP,
    )
    for line in (
      '| base | 10.0 |  |  |  | 10.0 | 10.0 | 10.0 |',
      '| weighted-checkers | 25.0 | +15.0 [+15.0, +15.0] '
      '| +5.0 [+5.0, +5.0] |  | 25.0 | 25.0 | 25.0 |',
      '| base | 0.100 | 0.250 |  | 100.0 | 10.0 | 100.0 | 0.0100 |',
      '| sft | 0.200 |  |  | 200.0 | 20.0 | 100.0 | 0.0100 |',
      '| weighted-checkers | 0.250 | 0.500 |  | 250.0 | 25.0 | 100.0 '
      '| 0.0100 |',
      'Right labels of the critic: semantic 80.0%, motion 62.5%.',
      'Not run: kto-critic.',
      'Seed 4 was not run.',
      '| 3 | 5: weighted against plain | weighted-checkers | sft '
      '| +5.0 [+5.0, +5.0] |',
    ):
      self.assertIn(line, lines)
    self.assertNotIn('## All seeds', lines)

  def test_all_seeds(self):
    one = {'base': _values(0.1), 'sft': _values(0.2), 'kto-critic': None}
    other = {
      name: {
        measure: [*values, share] for measure, values in _values(share).items()
      }
      for name, share in (('base', 0.3), ('sft', 0.6), ('kto-critic', 0.5))
    }
    lines = tables.markdown({0: one, 1: other}, {0: None, 1: None}, _BOOTSTRAP)
    pooled = lines[lines.index('## All seeds') : lines.index('## Differences')]
    # Two prompts of the first seed and three of the second.
    self.assertIn('| base | 22.0 |  |  |  | 22.0 | 22.0 | 22.0 |', pooled)
    (plain,) = (x for x in pooled if x.startswith('| sft | 44.0 | +22.0 ['))
    self.assertEndsWith(plain, '|  |  | 44.0 | 44.0 | 44.0 |')
    # Not every seed ran it.
    self.assertFalse(any('kto-critic' in line for line in pooled))

  def test_aims_over_all_seeds(self):
    seeds = {
      seed: {'sft': _values(0.2), 'base': _values(0.1)}
      | {'weighted-checkers': _values(share)}
      for seed, share in ((0, 0.3), (1, 0.5))
    }
    lines = tables.markdown(seeds, {0: None, 1: None}, _BOOTSTRAP)
    gains = [
      line.split(' | ')[-1][:5] for line in lines if '5: weighted' in line
    ]
    self.assertEqual(gains, ['+10.0', '+30.0', '+20.0'])

  def test_differences_between_arms(self):
    shares = {
      'base': 0.1,
      'real': 0.2,
      'dpo-critic': 0.3,
      'dpo-critic-real': 0.2,
      'kto-critic-real': 0.2,
      'dpo_mpo-checkers-rounds_1': 0.2,
      'dpo_mpo-checkers-rounds_2': 0.4,
    }
    found = {name: _values(share) for name, share in shares.items()}
    lines = tables.markdown({3: found}, {3: None}, _BOOTSTRAP)
    start = lines.index('| --- | --- | --- | --- | --- |') + 1
    # Neither of an arm without its other, nor of `real` and round 1.
    self.assertEqual(
      lines[start:],
      [
        '| 3 | real clips | dpo-critic-real | dpo-critic '
        '| -10.0 [-10.0, -10.0] |',
        '| 3 | another round | dpo_mpo-checkers-rounds_2 '
        '| dpo_mpo-checkers-rounds_1 | +20.0 [+20.0, +20.0] |',
      ],
    )


class _Study:
  """A study that trains nothing."""

  calls: list[tuple]

  def __init__(self, call, is_search, logger):
    del is_search, logger
    self.config = call.config
    self._calls = type(self).calls

  def start(self):
    self._calls.append(('start', self.config.seed))

  def run(self, name, arm, settings):
    self._calls.append((name, arm.name, settings['optimizer.learning_rate']))

  def run_rounds(self, name, arm, settings):
    self.run(name, arm, settings)

  def train_critics(self):
    self._calls.append(('train_critics',))

  def score(self, name, number):
    self._calls.append(('score', name, number))

  def evaluated(self):
    return ['base']

  def judge(self, name):
    self._calls.append(('judge', name))

  def values(self, name):
    return _values(0.3 if name.endswith('0.001') else 0.1)

  def conditions(self):
    return {'steps': 1}

  def critic_accuracy(self):
    return None


class CommandTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _world(self, tmp_path, capsys):
    self.workdir, self.capsys = tmp_path, capsys
    self.choices = tmp_path / 'choices.json'

  def run_command(self, *arguments: str) -> list[tuple]:
    _Study.calls = []
    with mock.patch.object(evidence, 'Study', _Study):
      evidence.main(
        [
          f'--workdir={self.workdir}',
          f'--choices={self.choices}',
          f'--config={config.__file__}:smoke',
          *arguments,
        ]
      )
    return _Study.calls

  def test_search_then_arms(self):
    calls = self.run_command('--search', '--only=sft,dpo_mpo')
    self.assertEqual(calls[0], ('start', 100))
    self.assertEqual(calls[1][0], 'sft-learning_rate=0.0003')
    self.assertLen(calls, 1 + 3 + 5)
    chosen = json.loads(self.choices.read_text())
    self.assertEqual(chosen['conditions'], {'steps': 1})
    printed = self.capsys.readouterr().out
    self.assertIn(
      '| sft | learning_rate=0.001 | 30.0 | +20.0 [+20.0, +20.0] | chosen |',
      printed,
    )
    self.assertIn('| sft | learning_rate=0.0003 | 10.0 |  |  |', printed)
    calls = self.run_command('--seeds=7', '--only=sft,dpo_mpo-checkers-rounds')
    self.assertEqual(
      calls,
      [
        ('start', 7),
        ('sft', 'sft', 1e-3),
        ('dpo_mpo-checkers-rounds', 'dpo_mpo-checkers', 3e-4),
      ],
    )
    self.assertIn('## Seed 7', self.capsys.readouterr().out)

  def test_critics_come_first(self):
    self.choices.write_text(
      json.dumps({'methods': {'kto': {'chosen': {'a': 1}}}})
    )
    with mock.patch.object(arms.Arm, 'settings', return_value=_RATE):
      calls = self.run_command('--seeds=7,8', '--only=kto-critic')
    self.assertEqual(
      calls,
      [
        ('start', 7),
        ('start', 8),
        ('train_critics',),
        ('train_critics',),
        ('score', 'clips', 0),
        ('score', 'clips', 0),
        ('kto-critic', 'kto-critic', 1e-3),
        ('kto-critic', 'kto-critic', 1e-3),
        ('judge', 'base'),
        ('judge', 'base'),
      ],
    )

  def test_tables_alone(self):
    self.assertEqual(self.run_command('--seeds=1,2', '--only=tables'), [])
    self.assertIn('## Seed 2', self.capsys.readouterr().out)
