"""docs/inputs.md, "Networks of metrics": every row has a test, named here."""

import re

import pytest

from tests import doc_tables
from tests.comparison.network_metrics_test import OpenTest
from tests.models.clip import config_test, model_test, tokenizer_test
from tests.models.dino import tower_test

pytestmark = pytest.mark.fast

_CLIP = model_test.ConvertTest
_TEXTS = tokenizer_test.TokenizerTest
TESTS = {
  'the sizes of CLIP in `text_config_dict` and `vision_config_dict` too, as in '
  'older files': config_test.ConfigTest.test_sizes_that_differ,
  '`position_ids` among the tensors of CLIP': (
    _CLIP.test_position_numbers_are_ignored_by_name
  ),
  'CLIP without `tokenizer.json`, or `vocab.json` and `merges.txt`': (
    _TEXTS.test_without_its_files
  ),
  'a text above 77 tokens': _TEXTS.test_truncated,
  'CLIP or DINO of other sizes than VBench uses': OpenTest.test_another_size0,
  'CLIP in place of DINO': OpenTest.test_another_network,
  'a ViT with a pooling layer, as those that were trained to classify have': (
    tower_test.ConvertTest.test_another_vit
  ),
  'the weights of another network': OpenTest.test_other_tensors,
  'weights only as a pickle (`pytorch_model.bin`)': OpenTest.test_only_a_pickle,
  'the aesthetic head as a safetensors file, or a folder with it': (
    OpenTest.test_head
  ),
  'the aesthetic head as `.pth`, or of another width': OpenTest.test_head,
  'a name in `metrics.weights` that no metric needs': (
    OpenTest.test_unknown_weights
  ),
}


def test_table():
  rows = doc_tables.rows('inputs.md', 'Networks of metrics')
  assert rows.keys() == TESTS.keys()
  for name, result in rows.items():
    assert re.match(r'(read|refused)\b', result), name
