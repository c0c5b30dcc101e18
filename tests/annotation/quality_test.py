"""Agreement equals published examples; what is known of raters."""

import math

import numpy as np
import pytest

from lift_jax.annotation import quality, summary
from lift_jax.evaluation.bootstrap import BootstrapConfig
from tests.annotation import stores

pytestmark = pytest.mark.fast

# K. Krippendorff, Computing Krippendorff's alpha-reliability (2011), example C.
OBSERVERS = (
  '1 2 3 3 2 1 4 1 2 . . .',
  '1 2 3 3 2 2 4 1 2 5 . 3',
  '. 3 3 3 2 3 4 2 2 5 1 .',
  '1 2 3 3 2 4 4 1 2 5 1 .',
)
# Three observers and labels; worked by hand.
THREE_LABELS = ('3 3 2 1 1 2 3 .', '3 2 2 1 2 2 3 1', '3 3 1 1 1 . 3 1')
FEW = BootstrapConfig(draws=20, coverage=0.9, seed=0)


def counts_of(observers, num_labels):
  values = [row.split() for row in observers]
  counts = np.zeros((len(values[0]), num_labels), int)
  for row in values:
    for unit, value in enumerate(row):
      if value != '.':
        counts[unit, int(value) - 1] += 1
  return counts[counts.sum(axis=1) >= 2]


@pytest.mark.parametrize(
  ('observers', 'num_labels', 'level', 'expected'),
  [
    (OBSERVERS, 5, 'nominal', 0.743),
    (OBSERVERS, 5, 'ordinal', 0.815),
    (THREE_LABELS, 3, 'nominal', 0.606),
    (THREE_LABELS, 3, 'ordinal', 0.821),
  ],
)
def test_alpha(observers, num_labels, level, expected):
  found = quality.alpha(counts_of(observers, num_labels), level, FEW)
  assert round(found.value, 3) == expected
  assert found.low < found.value <= found.high


def test_alpha_undefined():
  same = np.array([[3, 0, 0], [2, 0, 0]])
  assert quality.alpha(same, 'nominal', FEW).value is None
  assert quality.alpha(same[:0], 'nominal', FEW).value is None


def test_interval():
  """Clips are resampled: repeated clips narrow the interval."""
  counts = counts_of(OBSERVERS, 5)
  config = BootstrapConfig(draws=200, coverage=0.9, seed=0)
  narrow = quality.alpha(np.tile(counts, (20, 1)), 'nominal', config)
  wide = quality.alpha(counts, 'nominal', config)
  assert narrow.high - narrow.low < (wide.high - wide.low) / 2


@pytest.fixture
def report(tmp_path):
  """Three raters; the third one always says Bad. One clip is a gold one."""
  with stores.create(tmp_path, raters_per_clip=3) as store:
    *tasks, gold = stores.add_clips(store, tmp_path, 5)
    (ann, bob, cid), lead = stores.add_people(store, 3)
    store.set_gold(gold, dict.fromkeys(stores.RUBRIC.dimensions, ('Good', '')))
    for task, label in zip(
      tasks, ('Good', 'Normal', 'Bad', 'Good'), strict=True
    ):
      stores.rate(store, ann, task, label)
      stores.rate(store, bob, task, label)
      stores.rate(store, cid, task, 'Bad')
    for person, label in ((ann, 'Good'), (cid, 'Bad')):
      stores.rate(store, person, gold, label)
    store.settle(lead, tasks[0], {'motion': ('Good', '')})
    yield quality.report(store, FEW)


def test_raters(report):
  ann, bob, cid = report['raters']
  assert (ann['name'], ann['answers'], ann['skips']) == ('rater 0', 5, 0)
  assert ann['seconds'] == 2.0
  assert ann['hours'] == pytest.approx(10 / 3600)
  # Equal to Bob's four of four, and to one of Cid's.
  assert ann['agreement'] == pytest.approx(5 / 8)
  assert cid['agreement'] == pytest.approx(2 / 8)
  assert ann['labels']['motion'] == {'Good': 0.5, 'Normal': 0.25, 'Bad': 0.25}
  assert cid['labels']['motion'] == {'Good': 0, 'Normal': 0, 'Bad': 1}


def test_gold(report):
  ann, bob, cid = (rater['gold'] for rater in report['raters'])
  assert (ann['share'], cid['share'], bob['share']) == (1, 0, None)
  assert ann['labels'] == 3
  # Wilson: n / (n + z^2) for a share of 1.
  assert ann['low'] == pytest.approx(3 / (3 + 1.959964**2))
  assert ann['high'] == 1


def test_tasks(report):
  assert report['tasks'] == {
    'total': 4,
    'complete': 4,
    'begun': 0,
    'broken': 0,
    'gold': 1,
    'disputed': 2,
    'decided': 1,
  }
  motion = report['agreement']['clip']['motion']
  assert motion['tasks'] == 4
  assert all(0 < motion[level]['value'] < 1 for level in quality.LEVELS)
  assert not math.isnan(motion['ordinal']['low'])


def test_lines(report):
  text = '\n'.join(summary.lines(report))
  assert '4 total, 4 complete' in text
  assert 'rater 2: 5, 0, 0.0, 2, 25 %, 0 % of 3' in text
  assert 'motion: ordinal 0.' in text
