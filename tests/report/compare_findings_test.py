"""Sentences about a comparison of two models."""

from absl.testing import parameterized
import pytest

from lift_jax.report.compare_findings import findings, verdict
from tests.report.comparison_results import comparison, row, win_rate

pytestmark = pytest.mark.fast


class VerdictTest(parameterized.TestCase):
  def test_better(self):
    found = verdict(
      comparison(
        row('total', 0.8025, 0.8215, 'better', half=0.005),
        row('critic_reward', 0.5, 0.4, 'worse'),
      )
    )
    self.assertEqual(
      found,
      'after is better than before: VBench Total 82.15 against 80.25, +1.90 '
      'points (95% interval: +1.40 to +2.40)',
    )

  def test_worse(self):
    found = verdict(comparison(row('critic_reward', 0.5, 0.4, 'worse')))
    self.assertStartsWith(
      found, 'before is better than after: critic reward 40.0 against 50.0, −10'
    )

  def test_held_out_first(self):
    """The critic that the model was not trained with decides."""
    found = verdict(
      comparison(
        row('critic_reward', 0.5, 0.6, 'better'),
        row('held_out_reward', 0.5, 0.51),
      )
    )
    self.assertEqual(
      found,
      'No difference that 200 clips could show: held out reward 51.0 against '
      '50.0, +1.0 points (95% interval: −4.0 to +6.0); a difference of 4.0 '
      'points would probably have been found',
    )

  def test_one_prompt(self):
    found = verdict(
      comparison(row('total', 0.5, 0.6, half=None, detectable=None))
    )
    self.assertEndsWith(found, '+10.00 points; they cannot show any')

  @parameterized.parameters(
    (win_rate(70, 10, 20), 'People prefer after to before: in 75.0% (65.0 to'),
    (win_rate(20, 10, 70), 'People prefer before to after: after wins in 25.0'),
    (win_rate(45, 10, 45), 'People do not clearly prefer either: after wins'),
  )
  def test_people(self, overall, start):
    found = verdict(
      comparison(row('total', 0.5, 0.6), people={'overall': overall})
    )
    self.assertStartsWith(found, start)
    self.assertIn('of 100 pairs, where ties count half', found)

  def test_nothing_decides(self):
    found = verdict(comparison(row('block_motion', 0.1, 0.2, 'higher')))
    self.assertStartsWith(found, 'It was not measured whether after or before')


class FindingsTest(parameterized.TestCase):
  def test_marks(self):
    found = findings(
      comparison(
        row('a', 0.5, 0.6, 'better'),
        row('b', 0.5, 0.4, 'worse'),
        row('c', 0.5, 0.3, 'worse'),
        row('d', 0.5, 0.5),
      )
    )
    self.assertEqual(
      found,
      [
        'after is better in a (+10.0 points).',
        'after is worse in b (−10.0 points), c (−20.0 points).',
        'No difference that so many clips could show in 1 of 4 numbers; the '
        'table has the difference that they could have shown.',
      ],
    )

  @parameterized.parameters(
    (row('static', 0.1, 0.3, 'worse'), 'more of them are static (+20.0'),
    (row('block_motion', 0.03, 0.01, 'lower'), 'blocks move less (−2.0% of'),
  )  # fmt: skip
  def test_stillness(self, frozen, words):
    """A win by freezing is seen without any weights."""
    first, *_ = findings(
      comparison(row('own_temporal_flickering', 0.9, 0.99, 'better'), frozen)
    )
    self.assertStartsWith(first, 'Warning: the clips of after move less: ')
    self.assertIn(words, first)

  def test_gain_that_only_the_critic_sees(self):
    first, *_ = findings(
      comparison(
        row('critic_motion', 0.5, 0.7, 'better'),
        row('held_out_motion', 0.5, 0.51),
        row('critic_fidelity', 0.5, 0.6, 'better'),
        row('held_out_fidelity', 0.5, 0.6, 'better'),
      )
    )
    self.assertEqual(
      first,
      'Warning: the critic sees a gain that the held-out critic does not, in '
      'motion (+20.0 points, held-out +1.0 points). The model may have learned '
      'to please its critic.',
    )

  @parameterized.parameters(
    ({'same_noise': 0.25}, 'Only 25.0% of the clips start from the same noise'),
    ({'missing_in_vbench': 7}, 'Warning: 7 clips are missing in the results'),
  )
  def test_clips(self, fields, start):
    first, *_ = findings(comparison(row('a', 0.5, 0.6), **fields))
    self.assertStartsWith(first, start)

  def test_diversity(self):
    first, *_ = findings(comparison(row('diversity', 0.3, 0.2, 'worse')))
    self.assertStartsWith(first, 'Warning: the clips of a prompt are more')
