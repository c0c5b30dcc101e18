"""Clips of two simulated models, for `lift compare`."""

import numpy as np
import pytest

from lift_jax.comparison.clip_sets import check_same_prompts, read_clips
from lift_jax.data.pair_records import read_pairs
from lift_jax.data.rubric import LIFT
from lift_jax.evaluation.scores import read_scores
from lift_jax.toyworld import compared_models

pytestmark = pytest.mark.fast


def test_models(tmp_path):
  """One is better, in the eyes of both critics and of people."""
  compared_models.write_models(tmp_path, num_prompts=6)
  sets = [
    read_clips(model, tmp_path / model) for model in compared_models.MODELS
  ]
  check_same_prompts(sets)
  assert [len(one.clips) for one in sets] == [12, 12]
  critics = set()
  for name in (compared_models.SCORES, compared_models.HELD_OUT_SCORES):
    rewards = []
    for one in sets:
      records = read_scores(one.folder, (str(one.folder / name),)).records
      assert len(records) == 12
      critics |= {record.critic for record in records}
      answers = [a for record in records for a in record.answers.values()]
      rewards.append(np.mean([a.soft_reward(LIFT) for a in answers]))
    assert rewards[1] > rewards[0] + 0.1
  assert len(critics) == 2
  pairs = read_pairs(tmp_path, (compared_models.PAIRS,)).records
  preferred = [pair.overall for pair in pairs]
  assert len(preferred) == 12
  assert preferred.count('second') > preferred.count('first')
