"""docs/inputs.md, "Qwen3-VL": every row has tests, which are named here."""

import re

import pytest

from tests import doc_tables
from tests.models.qwen3vl import config_test, folder_test, video_test

pytestmark = pytest.mark.fast

_BAD = folder_test.TestBadInput
TESTS = {
  'the rotary embedding of Qwen3-VL in `rope_scaling` with `rope_theta`, or in '
  '`rope_parameters`': config_test.test_rope_in_either_form,
  "Qwen3-VL's video processor in `video_preprocessor_config.json`, or as "
  '`video_processor` in `processor_config.json`': (
    _BAD.test_joint_processor_file
  ),
  'another patch size, mean or filter in it, both `fps` and `num_frames`, or '
  'neither': config_test.test_other_processors,
  'Qwen2-VL, Qwen3-VL-MoE, a text-only Qwen3': _BAD.test_other_models,
  'a Qwen3-VL with a shard missing': _BAD.test_missing_shard,
  'a clip with fewer frames than Qwen3-VL joins to a patch': (
    video_test.test_fewer_frames_than_patches_take
  ),
  '`lm_head.weight` of a Qwen3-VL with a tied head': (
    _BAD.test_tied_head_in_the_file
  ),
}


def test_table():
  rows = doc_tables.rows('inputs.md', 'Qwen3-VL')
  assert rows.keys() == TESTS.keys()
  for name, result in rows.items():
    assert re.match(r'(read|refused)\b', result), name
