"""Normalised rewards, and the file of them."""

import json
import pathlib

import pytest

from lift_jax.data.rubric import LIFT, Scale
from lift_jax.errors import UserError
from lift_jax.evaluation import normalization
from lift_jax.evaluation.scores import Answer, ScoredRecord

pytestmark = pytest.mark.fast


def record(*labels, critic='c'):
  """Of each dimension the class, 2 being Good; None for no answer."""
  answers = {
    name: Answer(label, '', None)
    for name, label in zip(LIFT.dimensions, labels, strict=True)
    if label is not None
  }
  return ScoredRecord(
    'a', pathlib.Path('a'), 'x', answers, '', critic, (), 'scores.json', '1'
  )  # fmt: skip


RECORDS = [record(2, 2, 0), record(0, 2, 1), record(2, 0, 0), record(0, 0, 1)]


def test_round_trip(tmp_path):
  found = normalization.fit(RECORDS, LIFT)
  assert found.mean['semantic'] == pytest.approx((0.9 + 0.05) / 2)
  assert found.std['semantic'] == pytest.approx((0.9 - 0.05) / 2)
  normalization.write(tmp_path, found)
  assert normalization.read(tmp_path, LIFT) == found
  # One deviation above the mean in two dimensions, one below it in the third.
  assert found.overall(RECORDS[0], LIFT) == pytest.approx(1 + 1 - 1)
  missing = found.overall(record(2, 2, None), LIFT)
  assert missing != missing  # NaN


def test_refused_scores():
  with pytest.raises(UserError, match='no "critic" in the records'):
    normalization.fit([record(2, 2, 2, critic='')], LIFT)
  with pytest.raises(UserError, match='in motion is the same for all 2'):
    normalization.fit([record(2, 2, 2), record(0, 2, 1)], LIFT)


@pytest.mark.parametrize(
  'changes, message',
  [
    ({'critic': ''}, '"critic" is empty'),
    ({'dimensions': []}, 'a list, not an object'),
    ({'dimensions': {'motion': {'mean': 0.5, 'std': 0}}}, '"std" of motion'),
    ({'dimensions': {'motion': {'mean': 0.5, 'std': 1}}}, 'made for the dim'),
    ({'rewards': {'Good': 1.0}}, 'made for the dimensions'),
  ],
)  # fmt: skip
def test_refused_file(tmp_path, changes, message):
  normalization.write(tmp_path, normalization.fit(RECORDS, LIFT))
  path = tmp_path / normalization.NAME
  path.write_text(json.dumps(json.loads(path.read_text()) | changes))
  with pytest.raises(UserError, match=message):
    normalization.read(tmp_path, LIFT)


def test_other_scale_or_none(tmp_path):
  with pytest.raises(UserError, match='no normalization.json; score'):
    normalization.read(tmp_path, LIFT)
  normalization.write(tmp_path, normalization.fit(RECORDS, LIFT))
  other = Scale(rewards=(1.0, 0.5, 0.0))
  with pytest.raises(UserError, match='make it again'):
    normalization.read(tmp_path, other)
