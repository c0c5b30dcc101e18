"""Rows of a comparison: values, marks, totals, critics and people."""

import pathlib

from absl.testing import parameterized
import pytest

from lift_jax.comparison.metrics import HIGHER, LOWER, NEITHER, Metric
from lift_jax.comparison.model_comparison import (
  CRITIC,
  MetricValues,
  check_held_out,
  compare_model,
  critic_measured,
  people_results,
  vbench_measured,
)
from lift_jax.comparison.statistics import StatisticsConfig
from lift_jax.comparison.vbench_results import read_results
from lift_jax.data.pair_records import PairRecord
from lift_jax.data.rubric import LIFT
from lift_jax.data.vbench_dimensions import PUBLISHED
from lift_jax.errors import UserError
from lift_jax.evaluation.scores import Answer, ScoredRecord
from tests.comparison import sets

pytestmark = pytest.mark.fast

CONFIG = StatisticsConfig(sets.BOOTSTRAP, 1000, 0.05)
NAMES = [f'p{index}' for index in range(12)]


def _measured(better, base, change, *, missing=()):
  """A metric of one clip of each prompt."""
  values = [
    {(name, 0): base + 0.01 * index for index, name in enumerate(NAMES)},
    {
      (name, 0): base + 0.01 * index + change + 0.001 * (index % 2)
      for index, name in enumerate(NAMES)
      if name not in missing
    },
  ]
  return MetricValues(Metric('x', 'X', 'G', better), tuple(values))


class RowsTest(parameterized.TestCase):
  @parameterized.parameters(
    (HIGHER, 0.1, 'better', 1.0),
    (HIGHER, -0.1, 'worse', 0.0),
    (LOWER, -0.1, 'better', 1.0),
    (LOWER, 0.1, 'worse', 0.0),
    (NEITHER, 0.1, 'higher', None),
    (NEITHER, -0.1, 'lower', None),
  )
  def test_marks(self, better, change, mark, share):
    (row,) = compare_model([_measured(better, 0.5, change)], 1, CONFIG)
    self.assertEqual(row['mark'], mark)
    self.assertAlmostEqual(row['difference']['value'], change + 0.0005)
    self.assertEqual((row['num_clips'], row['num_prompts']), (12, 12))
    if share is None:
      self.assertIsNone(row['win_rate'])
    else:
      self.assertEqual(row['win_rate']['with_ties']['value'], share)

  def test_a_missing_clip_is_left_out_of_both(self):
    measured = _measured(HIGHER, 0.5, 0.1, missing=NAMES[6:])
    (row,) = compare_model([measured], 1, CONFIG)
    self.assertAlmostEqual(row['base']['value'], 0.525)
    self.assertEqual(row['num_clips'], 6)

  def test_no_clip_in_common(self):
    measured = [
      _measured(HIGHER, 0.5, 0.1, missing=NAMES), _measured(LOWER, 0.5, 0.1)
    ]  # fmt: skip
    self.assertLen(compare_model(measured, 1, CONFIG), 1)


class VBenchTest(parameterized.TestCase):
  @pytest.fixture(autouse=True)
  def _folder(self, tmp_path):
    self.folder = tmp_path

  def results(self, number, scores):
    suite = sets.vbench_suite()
    folder = self.folder / f'{number}'
    entries = sets.vbench_entries(suite, scores, seed=number)
    sets.write_results(folder, entries)
    return read_results(folder, suite, False)

  def test_totals(self):
    """Of the paper's columns, to two decimals; and their differences."""
    paper = [row.scores for row in PUBLISHED[2:]]
    results = [self.results(n, scores) for n, scores in enumerate(paper)]
    measured = vbench_measured(results)
    self.assertLen(measured, 16)
    totals = []
    for model in range(1, 4):
      rows = {
        row['name']: row for row in compare_model(measured, model, CONFIG)
      }
      self.assertEqual(list(rows)[:3], ['total', 'semantic', 'quality'])
      total = rows['total']
      self.assertAlmostEqual(
        total['difference']['value'],
        total['other']['value'] - total['base']['value'],
      )
      self.assertLess(total['difference']['low'], total['difference']['value'])
      self.assertLess(total['difference']['value'], total['difference']['high'])
      self.assertEqual(total['num_clips'], 16 * 6)
      totals += [total['base']['value'], total['other']['value']]
    self.assertEqual(
      [round(100 * total, 2) for total in totals],
      [80.25, 80.91, 80.25, 82.15, 80.25, 82.82],
    )

  def test_the_score_is_that_of_the_file(self):
    """VBench weights some clips by their frames: not quite their mean."""
    results = [
      self.results(number, {'scene': score})
      for number, score in enumerate((0.5, 0.6))
    ]
    (measured,) = vbench_measured(results)
    measured = MetricValues(measured.metric, measured.values, (0.51, 0.63))
    (row,) = compare_model([measured], 1, CONFIG)
    self.assertAlmostEqual(row['base']['value'], 0.51)
    self.assertAlmostEqual(row['difference']['value'], 0.12)

  def test_incomplete(self):
    """Without all dimensions no totals, unless they may be missing."""
    scores = dict(PUBLISHED[0].scores)
    del scores['scene']
    results = [self.results(number, scores) for number in range(2)]
    measured = vbench_measured(results)
    rows = compare_model(measured, 1, CONFIG)
    self.assertEqual([row['name'] for row in rows[:1]], ['quality'])
    rows = compare_model(measured, 1, CONFIG, allow_missing=True)
    (total,) = (row for row in rows if row['name'] == 'total')
    self.assertAlmostEqual(
      total['base']['value'], 0.8091 - 0.5114 / 0.8222 / 9 / 5, places=4
    )

  def test_no_results(self):
    self.assertEqual(vbench_measured([]), [])


def _scored(video, labels='GGG', critic='C', folder='/nowhere/x'):
  names = {'G': 2, 'N': 1, 'B': 0}
  answers = {
    name: Answer(names[label], '', None)
    for name, label in zip(
      ('semantic', 'motion', 'fidelity'), labels, strict=False
    )
  }
  path = pathlib.Path(folder) / video
  return ScoredRecord(
    video, path, 'c', answers, '', critic, (), 'scores.json', 'record 0'
  )


class CriticTest(parameterized.TestCase):
  def measure(self, *records):
    found = sets.clip_set('x', 'ab')
    return critic_measured(CRITIC, [found], [list(records)], LIFT)

  def test_rewards(self):
    measured = self.measure(
      _scored('videos/a-0.mp4', 'GNB'), _scored('videos/b-0.mp4', 'GGG')
    )
    by_name = {one.metric.name: one.values[0] for one in measured}
    self.assertEqual(
      list(by_name),
      ['critic_semantic', 'critic_motion', 'critic_fidelity', 'critic_reward'],
    )
    self.assertEqual(by_name['critic_motion'], {('a', 0): 0.2, ('b', 0): 0.9})
    self.assertAlmostEqual(by_name['critic_reward']['a', 0], 1.15 / 3)

  def test_an_error_is_no_value(self):
    measured = self.measure(
      _scored('videos/a-0.mp4', ''), _scored('videos/b-0.mp4')
    )
    self.assertEqual(list(measured[0].values[0]), [('b', 0)])

  @parameterized.parameters(
    ([_scored('videos/a-0.mp4')], 'no score for 1 of 2 clips, such as video'),
    ([_scored('videos/c-0.mp4')], 'scores.json record 0 .* no clip of'),
    (
      [_scored('videos/a-0.mp4'), _scored('videos/b-0.mp4', critic='D')],
      'scores of different critics',
    ),
  )  # fmt: skip
  def test_refused(self, records, message):
    with self.assertRaisesRegex(UserError, message):
      self.measure(*records)

  def test_held_out_is_another(self):
    one, other = _scored('a'), _scored('a', critic='D')
    check_held_out([[one]], [[other]])
    with self.assertRaisesRegex(
      UserError, "the critic 'C', which critic.files"
    ):
      check_held_out([[one]], [[one]])


def _vote(first, second, overall, rater='', **dimensions):
  paths = (first.path, second.path)
  videos = (str(paths[0]), str(paths[1]))
  return PairRecord(
    'c', videos, paths, overall, dimensions, rater, {}, 'pairs.json record 0'
  )


class PeopleTest(parameterized.TestCase):
  def setUp(self):
    super().setUp()
    self.sets = [sets.clip_set(name, 'abc') for name in ('x', 'y')]

  def clip(self, model, name):
    return self.sets[model].clips[name, 0]

  def test_win_rates(self):
    """Whichever clip is the first; several votes count as their majority."""
    x, y = (
      lambda name, model=model: self.clip(model, name) for model in (0, 1)
    )
    votes = [
      _vote(x('a'), y('a'), 'second', motion='same'),
      _vote(y('b'), x('b'), 'first', motion='first'),
      _vote(y('c'), x('c'), 'second', 'r'),
      _vote(x('c'), y('c'), 'first', 's'),
      _vote(x('c'), y('c'), 'second', 't'),
    ]
    (found,) = people_results(self.sets, votes, [(0, 1)], sets.BOOTSTRAP)
    overall, motion = found['overall'], found['motion']
    self.assertEqual(
      [overall[k] for k in ('wins', 'ties', 'losses')], [2, 0, 1]
    )
    self.assertEqual([motion[k] for k in ('wins', 'ties', 'losses')], [1, 1, 0])
    self.assertAlmostEqual(overall['without_ties']['value'], 2 / 3)
    self.assertAlmostEqual(motion['with_ties']['value'], 0.75)

  def test_third_model(self):
    """A pair of two others says nothing about the first."""
    self.sets.append(sets.clip_set('z', 'abc'))
    votes = [_vote(self.clip(1, 'a'), self.clip(2, 'a'), 'first')]
    *found, of_both = people_results(
      self.sets, votes, [(0, 1), (0, 2), (1, 2)], sets.BOOTSTRAP
    )
    self.assertEqual(found, [{}, {}])
    # The second of a comparison wins or loses.
    self.assertEqual(
      [of_both['overall'][k] for k in ('wins', 'losses')], [0, 1]
    )

  def test_refused(self):
    x = self.clip(0, 'a')
    other = sets.clip_set('w', 'a').clips['a', 0]
    for second, message in (
      (other, 'is no clip of the models compared'),
      (self.clip(0, 'b'), 'not two clips of one prompt by two models'),
      (self.clip(1, 'b'), 'not two clips of one prompt by two models'),
    ):
      with self.assertRaisesRegex(UserError, message):
        people_results(
          self.sets, [_vote(x, second, 'same')], [(0, 1)], sets.BOOTSTRAP
        )
