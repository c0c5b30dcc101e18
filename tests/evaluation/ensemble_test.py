"""Several critics as one."""

import json

import pytest

from lift_jax.data.rubric import LIFT
from lift_jax.errors import UserError
from lift_jax.evaluation import ensemble
from lift_jax.evaluation.scores import read_scores
from tests.evaluation.records import failed, scored

pytestmark = pytest.mark.fast

GOOD, BAD = ('Good',) * 3, ('Bad',) * 3


@pytest.fixture
def read(tmp_path):
  def read(*items):
    path = tmp_path / 'scores.json'
    path.write_text(json.dumps(items))
    return read_scores(tmp_path, [path]).records

  return read


def test_mean(read):
  one = read(scored('a', 'x', GOOD, 0.8), scored('b', 'x', GOOD))
  two = read(scored('b', 'x', BAD), scored('a', 'x', BAD, 0.6))
  first, second = ensemble.make_ensemble([one, two], LIFT)
  assert (first.video, second.video) == ('videos/a.mp4', 'videos/b.mp4')
  # Bad, Normal, Good.
  answer = first.answers['motion']
  assert answer.probabilities == pytest.approx((0.35, 0.15, 0.5))
  assert LIFT.classes[answer.label] == 'Good'
  soft = [records[k].answers['motion'] for records, k in ((one, 0), (two, 1))]
  assert answer.soft_reward(LIFT) == pytest.approx(
    sum(each.soft_reward(LIFT) for each in soft) / 2
  )


def test_file(read):
  """It is read like that of a critic."""
  one = read(scored('a', 'x', GOOD, flags=['static']), scored('b', 'x'))
  two = read(failed('b', 'x'), scored('a', 'x', BAD, probabilities=None))
  items = ensemble.to_json([one, two], LIFT)
  assert [item['critic'] for item in items] == ['ensemble'] * 2
  assert read(*items) == ensemble.make_ensemble([one, two], LIFT)
  # .745 and .05; then one critic alone.
  assert items[0]['disagreement'] == pytest.approx((0.745 - 0.05) / 2)
  assert items[0]['score'] == pytest.approx((0.745 + 0.05) / 2)
  assert items[0]['uncertainty'] > items[0]['disagreement']
  assert items[1]['disagreement'] == 0


def test_no_answer(read):
  (item,) = ensemble.to_json([read(failed('a', 'x', 'cut'))] * 2, LIFT)
  assert item['error'] == 'cut'


def test_no_common_clip(read):
  with pytest.raises(UserError, match='no clip is in both'):
    ensemble.make_ensemble(
      [read(scored('a', 'x')), read(scored('a', 'y'))], LIFT
    )
