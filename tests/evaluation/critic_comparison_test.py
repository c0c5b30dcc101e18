"""Several critics on the same ratings and pairs."""

import pathlib

import pytest

from lift_jax.data.hra import HRARecord
from lift_jax.data.rubric import LIFT
from lift_jax.evaluation.bootstrap import BootstrapConfig
from lift_jax.evaluation.critic_comparison import compare_critics
from lift_jax.evaluation.normalization import Normalization
from tests.evaluation.preferences_test import pair, score

pytestmark = pytest.mark.fast

CONFIG = BootstrapConfig(draws=200, coverage=0.9, seed=0)
NAMES = [f'v{number}' for number in range(30)]
LABELS = ('Bad', 'Normal', 'Good')


def human():
  """Labels that turn over the clips, in every dimension."""
  return [
    HRARecord(
      name,
      pathlib.Path(name),
      'A cat.',
      '',
      dimension,
      LABELS[number % 3],
      '',
      'f',
      f'record {number} {dimension}',
    )  # fmt: skip
    for number, name in enumerate(NAMES)
    for dimension in LIFT.dimensions
  ]


def critic(wrong: int):
  """Answers as people do, except about every so many clips."""
  return [
    score(name, *[(number + (number % wrong == 0)) % 3] * 3)
    for number, name in enumerate(NAMES)
  ]


CRITICS = {'one': critic(5), 'two': critic(3), 'same': critic(5)}
# Good, then Bad.
PAIRS = [pair(NAMES[n + 2], NAMES[n], 'first') for n in range(0, 27, 3)]


def test_ratings():
  result = compare_critics(CRITICS, human(), [], LIFT, CONFIG)
  assert result['ratings']['count'] == 90
  assert result['pairs'] == {'count': 0, 'metrics': {}}
  found = result['ratings']['metrics']['accuracy']
  assert found['one']['value'] == pytest.approx(24 / 30)
  assert found['two']['value'] == pytest.approx(20 / 30)
  assert found['one']['minus_first'] is None
  difference = found['two']['minus_first']
  assert difference['value'] == pytest.approx(-4 / 30)
  # Paired: a critic that answers the same differs by nothing in any resample.
  assert found['same']['minus_first'] == {'value': 0, 'low': 0, 'high': 0}
  assert difference['low'] < difference['value'] < difference['high']
  assert result['ratings']['metrics']['Spearman']['one']['value'] > 0.5


def test_pairs():
  critics = {**CRITICS, 'fewer': CRITICS['one'][:15]}
  result = compare_critics(critics, [], PAIRS, LIFT, CONFIG)
  assert result['ratings']['count'] == 0
  assert result['pairs']['count'] == 5  # both clips of which all have scored
  metrics = result['pairs']['metrics']
  assert list(metrics) == ['no ties, overall', 'with ties, overall']
  assert set(metrics['no ties, overall']) == {*critics}


def test_normalised():
  """Only of critics that have a normalization."""
  one = Normalization(
    'one', {}, dict.fromkeys(LIFT.dimensions, 0.5),
    dict.fromkeys(LIFT.dimensions, 0.1),
  )  # fmt: skip
  result = compare_critics(CRITICS, [], PAIRS, LIFT, CONFIG, {'two': one})
  found = result['pairs']['metrics']['no ties, overall, normalised']
  assert list(found) == ['two']
  assert found['two']['minus_first'] is None
