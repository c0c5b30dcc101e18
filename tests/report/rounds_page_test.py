"""The page of `lift rounds`."""

import re

import pytest

from lift_jax.report.rounds_page import rounds_page

pytestmark = pytest.mark.fast


def guard(name, value, low=None, high=None, **others):
  estimate = {'value': value, 'low': low, 'high': high}
  common = {'since': 'base', 'lowest': None, 'highest': None, 'broken': ''}
  return {'name': name, 'value': estimate} | common | others


def results(*rounds):
  return {
    'state': 'stopped by a guard',
    'seed': 0,
    'rounds': [
      {
        'number': number,
        'guards': guards,
        'broken': [g['broken'] for g in guards if g['broken']],
        'rolled_back': any(g['broken'] for g in guards),
      }
      for number, guards in enumerate(rounds, start=1)
    ],
    'model': {'of': 'round_1', 'path': 'model', 'adapters': ['a/export']},
  }


def test_page():
  page = rounds_page(
    results(
      [guard('reward', 0.05, 0.04, 0.06), guard('anchor_distance', 1e-3)],
      [
        guard('reward', 0.1, 0.08, 0.12),
        guard(
          'static_share', 0.3, 0.2, 0.4, highest=0.1, broken='<clips> stop'
        ),
      ],
    )
  )
  assert '2 rounds, 1 rolled back; stopped by a guard' in page
  assert 'that of round 1: model with a/export' in page
  assert 'Round 2 was rolled back: &lt;clips&gt; stop.' in page
  assert page.count('<figure>') == 3
  (row,) = re.findall(r'<tr>.*reward of the training critic.*', page)
  row = page[page.index(row) :].split('</tr>')[0]
  assert '+0.050' in row and '[+0.080, +0.120]' in row
  # A number that a round does not have.
  (row,) = re.findall(r'<tr>.*share of static clips.*', page)
  assert '<td>-</td>' in page[page.index(row) :].split('</tr>')[0]


def test_limits():
  """A dashed line for each."""

  def dashes(**limits):
    one = guard('frame_difference', 0.05, 0.01, 0.09, **limits)
    return rounds_page(results([one])).count('stroke-dasharray')

  none = dashes()
  assert dashes(lowest=-0.1) == none + 1
  assert dashes(lowest=-0.1, highest=0.15) == none + 2


def test_nothing_yet():
  page = rounds_page(results())
  assert '0 rounds, 0 rolled back' in page
  assert 'No round has been measured yet.' in page
