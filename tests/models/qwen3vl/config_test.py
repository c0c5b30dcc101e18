"""Configs of Qwen3-VL folders, in every published form."""

import copy

import jax
import numpy as np
import pytest

from lift_jax.errors import UserError
from lift_jax.models.functional import functional
from lift_jax.models.qwen3vl import convert
from lift_jax.models.qwen3vl.backbone import BACKBONE
from lift_jax.models.qwen3vl.config import (
  PUBLISHED,
  Qwen3VLConfig,
  QwenTowerConfig,
  QwenVideoConfig,
)
from lift_jax.weights import conversion
from tests.models.qwen3vl.tiny_qwen import tiny_config
from tests.optional import transformers

pytestmark = pytest.mark.fast

VIDEO = QwenVideoConfig()
# Parameters, those of the tower, and tensors in a file.
COUNTS = {
  'Qwen3-VL-2B': (2_127_532_032, 406_957_056, 625),
  'Qwen3-VL-4B': (4_437_815_808, 415_347_712, 713),
  'Qwen3-VL-8B': (8_767_123_696, 576_388_336, 750),
}


def count(params) -> int:
  return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(params))


@pytest.mark.parametrize('name', PUBLISHED)
def test_published_sizes(name):
  config = PUBLISHED[name]
  params = functional(BACKBONE.declare(config).build()).abstract_params
  table = convert.TIED_TABLE if config.tied_head else convert.UNTIED_TABLE
  sources = conversion.resolve(table, params)
  num_tensors = sum(len(source.names) for source in sources.values())
  found = count(params), count(params['vision_tower']), num_tensors
  assert found == COUNTS[name]


def test_published_names():
  config = PUBLISHED['Qwen3-VL-4B']
  params = functional(BACKBONE.declare(config).build()).abstract_params
  shapes = {
    name: source.shape
    for source in conversion.resolve(convert.TIED_TABLE, params).values()
    for name in source.names
  }
  tower, llm = 'model.visual.', 'model.language_model.'
  expected = {
    f'{tower}patch_embed.proj.weight': (1024, 3, 2, 16, 16),
    f'{tower}pos_embed.weight': (2304, 1024),
    f'{tower}blocks.23.attn.qkv.weight': (3072, 1024),
    f'{tower}blocks.0.mlp.linear_fc1.bias': (4096,),
    f'{tower}merger.norm.weight': (1024,),
    f'{tower}merger.linear_fc2.weight': (2560, 4096),
    f'{tower}deepstack_merger_list.2.norm.weight': (4096,),
    f'{tower}deepstack_merger_list.0.linear_fc1.weight': (4096, 4096),
    f'{llm}embed_tokens.weight': (151_936, 2560),
    f'{llm}layers.35.self_attn.q_proj.weight': (4096, 2560),
    f'{llm}layers.0.self_attn.k_proj.weight': (1024, 2560),
    f'{llm}layers.0.self_attn.q_norm.weight': (128,),
    f'{llm}layers.0.mlp.down_proj.weight': (2560, 9728),
    f'{llm}layers.0.post_attention_layernorm.weight': (2560,),
    f'{llm}norm.weight': (2560,),
  }
  assert {name: shapes[name] for name in expected} == expected


def test_to_json_and_back():
  config = tiny_config(video=VIDEO, tied_head=False)
  assert Qwen3VLConfig.from_json(config.to_json(), VIDEO) == config


def test_published_config_as_transformers_reads_it():
  """Sizes of 8B, whose names transformers translates itself."""
  config = PUBLISHED['Qwen3-VL-8B']
  values = transformers.Qwen3VLConfig.from_dict(config.to_json()).to_dict()
  # Version 5 has no rope_scaling.
  assert values['text_config']['rope_parameters']['rope_theta'] == 5e6
  assert 'rope_scaling' not in values['text_config']
  assert Qwen3VLConfig.from_json(values, VIDEO) == config


def changed(section: str, **changes):
  values = copy.deepcopy(tiny_config().to_json())
  part = values[section] if section else values
  part.update(changes)
  return values


def test_rope_in_either_form():
  config = tiny_config(video=VIDEO)
  values = config.to_json()
  text = values['text_config']
  rope = text.pop('rope_scaling') | {'rope_theta': text.pop('rope_theta')}
  text['rope_parameters'] = rope
  assert Qwen3VLConfig.from_json(values, VIDEO) == config
  # Those of transformers, where a file has none.
  del text['rope_parameters']
  text['head_dim'] = 128
  found = Qwen3VLConfig.from_json(values, VIDEO)
  assert (found.llm.rope_theta, found.rope_sections) == (5e5, (24, 20, 20))


@pytest.mark.parametrize(
  ('values', 'message'),
  [
    (
      changed('text_config', rope_parameters={'rope_theta': 1.0}),
      r'text_config of c.json: rope_theta .*1\.0.*; keep the right one',
    ),
    (
      changed('text_config', rope_scaling={'rope_type': 'yarn', 'factor': 2}),
      "text_config of c.json: .*factor.*rope_type='yarn'",
    ),
    (
      changed('text_config', rope_scaling={'mrope_section': [2, 2, 2]}),
      r'c.json: mrope_section \[2, 2, 2\]: .* 8 together',
    ),
    (
      changed('text_config', rope_scaling={'mrope_interleaved': False}),
      'mrope_interleaved=False',
    ),
    (changed('text_config', num_experts=8), r'num_experts \(unknown\)'),
    (
      changed('text_config', model_type='qwen3_vl_moe_text'),
      "model_type='qwen3_vl_moe_text' .only 'qwen3_vl_text'",
    ),
    (changed('text_config', hidden_size=48), 'tokens of width 40, .* has 48'),
    (changed('vision_config', patch_size=14), 'patch_size=14'),
    (
      changed('vision_config', deepstack_visual_indexes=[2, 9]),
      r'deepstack_visual_indexes \[2, 9\] .* below its 4 layers',
    ),
    (
      changed('vision_config', num_position_embeddings=24),
      'num_position_embeddings 24',
    ),
    (changed('', vision_config=None), 'c.json: vision_config is None; give'),
    (changed('', video_token_id=512), 'video_token_id 512'),
  ],
)
def test_other_networks(values, message):
  with pytest.raises(UserError, match=message) as caught:
    Qwen3VLConfig.from_json(values, VIDEO, 'c.json')
  assert '\n' not in str(caught.value)


def test_first_name_of_the_tower():
  values = changed('vision_config', model_type='qwen3_vl')
  config = Qwen3VLConfig.from_json(values, VIDEO)
  assert config == tiny_config(video=VIDEO)


def test_head_layout():
  with pytest.raises(UserError, match='give a multiple of 8'):
    QwenTowerConfig(width=36, num_heads=2)


def test_video_limits_are_read():
  config = QwenVideoConfig(
    fps=None, num_frames=16, min_pixels=2048, max_pixels=10**6
  )
  values = config.to_json()
  assert values['size'] == {'longest_edge': 10**6, 'shortest_edge': 2048}
  assert QwenVideoConfig.from_json(values, 'v.json') == config
  # By rate, as published.
  assert QwenVideoConfig.from_json(VIDEO.to_json(), 'v.json') == VIDEO


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'num_frames': 8}, 'v.json: fps is 2.0 and num_frames 8; give one'),
    ({'fps': None}, 'v.json: fps is None and num_frames None'),
    ({'image_mean': [0.4, 0.5, 0.5]}, 'v.json: image_mean'),
    ({'merge_size': 4}, 'v.json: merge_size=4'),
    ({'cap_pixels_per_frame': True}, 'cap_pixels_per_frame=True'),
    ({'size': {'height': 32, 'width': 32}}, 'v.json: .*size.height'),
    ({'size': None}, 'v.json: .*no size.longest_edge'),
    ({'max_pixels': 100}, r'v.json: max_pixels \(unknown\)'),
    (
      {'size': {'longest_edge': 10, 'shortest_edge': 20}},
      'v.json: at least 20 and at most 10 pixels; swap',
    ),
  ],
)
def test_other_processors(changes, message):
  with pytest.raises(UserError, match=message):
    QwenVideoConfig.from_json(VIDEO.to_json() | changes, 'v.json')
