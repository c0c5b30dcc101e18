"""Folders of Qwen3-VL: weights onto a mesh and back, and bad input."""

import copy
import json
import pathlib
import shutil

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lift_jax import partitioning
from lift_jax.errors import UserError
from lift_jax.models import critics, lora
from lift_jax.models.adapter_config import AdapterConfig
from lift_jax.models.functional import functional
from lift_jax.models.qwen3vl import convert
from lift_jax.models.qwen3vl.backbone import BACKBONE
from lift_jax.models.qwen3vl.config import PUBLISHED
from lift_jax.weights import param_paths, safetensors_files
from tests.models.qwen3vl import tiny_qwen
from tests.models.qwen3vl.tiny_qwen import (
  MIXED,
  make_frames,
  padded,
  reference_inputs,
  stacked,
)
from tests.optional import peft, torch, transformers
from tests.torch_weights import params_from_torch, scaled_error, to_torch_names

INDEX = 'model.safetensors.index.json'


@pytest.fixture(scope='module')
def published(tmp_path_factory):
  """In many shards, with a tied head, as 4B is."""
  path = tmp_path_factory.mktemp('published')
  tiny_qwen.write_published(path, max_shard_size='40KB')
  return path


@pytest.fixture
def spoilt(published, tmp_path):
  return shutil.copytree(published, tmp_path / 'spoilt')


def edit_json(path: pathlib.Path, **changes):
  path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def make_mesh(**axes):
  return partitioning.make_mesh(partitioning.MeshConfig(**{'fsdp': 1} | axes))


def load(critic, **axes):
  """(network, parameters), on a mesh if it is given."""
  model = functional(critic.build())
  shardings = None
  if axes:
    mesh = make_mesh(**axes)
    critic.check_mesh(mesh)
    shardings = partitioning.param_shardings(
      critic.rules, model.abstract_params, mesh
    )
  return model, critic.load(model, shardings, jnp.float32)


def logits_of(model, params, frames, tokens_bn):
  hidden_bnd = model(params, frames, tokens_bn)
  return model(params, hidden_bnd, method='logits')


def test_shards_on_a_mesh(published):
  """Four ways over fsdp, and both key heads on devices of their own."""
  assert len(json.loads((published / INDEX).read_text())['weight_map']) > 50
  assert len(list(published.glob('*.safetensors'))) > 3
  critic = critics.open_critic(published)
  model, params = load(critic, fsdp=4, tensor=2)
  expected = params_from_torch(
    convert.TIED_TABLE,
    model.abstract_params,
    tiny_qwen.reference(True),
    skip=('lm_head.weight',),
  )
  jax.tree.map(np.testing.assert_array_equal, params, expected)
  kernel = params['llm']['blocks']['attn']['to_k']['kernel']
  assert kernel.sharding.spec == jax.P(None, 'fsdp', 'tensor')

  clips = [make_frames(seed) for seed in range(4)]
  tokens_bn = np.repeat(padded(MIXED), len(clips), axis=0)
  with jax.set_mesh(make_mesh(fsdp=4, tensor=2)):
    ours = jax.jit(lambda *args: logits_of(model, *args))(
      params, stacked(*clips), tokens_bn
    )
  for number, clip in enumerate(clips):
    with torch.no_grad():
      inputs = reference_inputs(clip, MIXED)
      expected = tiny_qwen.reference(True)(**inputs).logits[0]
    assert scaled_error(ours[number, : len(MIXED)], expected) < 5e-6


def test_export_is_what_transformers_reads(published, tmp_path):
  critic = critics.open_critic(published)
  model, params = load(critic)
  critic.write(tmp_path / 'export', params, 'float32')
  again = critics.open_critic(tmp_path / 'export')
  assert again.config == critic.config
  assert again.fingerprint == critic.fingerprint
  assert (
    again.open_tokenizer('qwen3-vl').video_id == critic.config.video_token_id
  )
  theirs = transformers.Qwen3VLForConditionalGeneration.from_pretrained(
    tmp_path / 'export'
  ).state_dict()
  for name, tensor in tiny_qwen.reference(True).state_dict().items():
    torch.testing.assert_close(theirs[name], tensor, rtol=0, atol=0)


def test_type_of_an_export(published, tmp_path):
  critic = critics.open_critic(published)
  _, params = load(critic)
  critic.write(tmp_path / 'export', params, 'bfloat16')
  config = json.loads((tmp_path / 'export' / 'config.json').read_text())
  assert config['dtype'] == 'bfloat16'
  tensors = safetensors_files.open_tensors(tmp_path / 'export', 'model')
  assert {tensor.dtype for tensor in tensors.values()} == {
    jnp.dtype('bfloat16')
  }
  assert 'lm_head.weight' not in tensors


# PEFT uses what transformers deprecates.
@pytest.mark.filterwarnings('ignore:.is_gradient_checkpointing:FutureWarning')
def test_adapters_of_peft(published, tmp_path):
  wrapped = peft.get_peft_model(
    copy.deepcopy(tiny_qwen.reference(True)),
    peft.LoraConfig(
      r=2,
      lora_alpha=6,
      target_modules=r'.*language_model\..*\.(q_proj|o_proj|down_proj)',
    ),
  )
  with torch.no_grad():
    for name, tensor in wrapped.named_parameters():
      if 'lora_' in name:
        tensor.normal_(std=0.1)
  wrapped.save_pretrained(tmp_path)
  critic = critics.open_critic(published, (AdapterConfig(str(tmp_path)),))
  model, params = load(critic)
  expected = param_paths.flatten(
    params_from_torch(
      convert.TIED_TABLE,
      model.abstract_params,
      wrapped.merge_and_unload(),
      skip=('lm_head.weight',),
    )
  )
  for name, leaf in param_paths.flatten(params).items():
    assert scaled_error(leaf, expected[name]) < 1e-6, name


def test_names_of_our_adapters(published):
  critic = critics.open_critic(published)
  config = lora.LoRAConfig(rank=2, alpha=4.0, targets=critic.lora_targets)
  params = functional(lora.adapted(critic.build(), config)).abstract_params
  adapters, _ = param_paths.partition(params, lora.is_adapter)
  zeros = jax.tree.map(lambda leaf: np.zeros(leaf.shape), adapters)
  names = to_torch_names(critic.adapter_table, zeros)
  layer = 'base_model.model.model.language_model.layers.2'
  assert names[f'{layer}.mlp.up_proj.lora_A.weight'].shape == (2, 40)
  assert names[f'{layer}.self_attn.k_proj.lora_B.weight'].shape == (32, 2)
  assert len(names) == 3 * 7 * 2


@pytest.mark.fast
@pytest.mark.parametrize('name', PUBLISHED)
def test_rules_are_total(name):
  """And no large parameter is replicated, with a key head on each device."""
  critic = BACKBONE.declare(PUBLISHED[name])
  params = functional(critic.build()).abstract_params
  for axes in ({'fsdp': 4, 'tensor': 2}, {'tensor': 8}):
    mesh = make_mesh(**axes)
    critic.check_mesh(mesh)
    shardings = param_paths.flatten(
      partitioning.param_shardings(critic.rules, params, mesh)
    )
    for key, leaf in param_paths.flatten(params).items():
      if leaf.size > 1e7:
        part = shardings[key].shard_shape(leaf.shape)
        assert 8 * np.prod(part) == leaf.size, key


@pytest.mark.fast
def test_key_heads_that_the_mesh_does_not_divide():
  critic = BACKBONE.declare(tiny_qwen.tiny_config())
  with pytest.raises(UserError, match='mesh.tensor is 4, .* 2 key heads'):
    critic.check_mesh(make_mesh(fsdp=2, tensor=4))


class TestBadInput:
  @pytest.mark.parametrize(
    'kind', ['qwen2_vl', 'qwen2_5_vl', 'qwen3_vl_moe', 'qwen3']
  )
  def test_other_models(self, spoilt, kind):
    edit_json(spoilt / 'config.json', model_type=kind)
    with pytest.raises(UserError, match=f"'{kind}'; give .*'qwen3_vl'") as e:
      critics.open_critic(spoilt)
    assert '\n' not in str(e.value)

  def test_missing_shard(self, spoilt):
    shard = sorted(spoilt.glob('*.safetensors'))[1]
    shard.unlink()
    with pytest.raises(UserError, match=shard.name) as e:
      load(critics.open_critic(spoilt))
    assert '\n' not in str(e.value)

  def test_config_of_another_size(self, spoilt):
    config = json.loads((spoilt / 'config.json').read_text())
    config['text_config']['intermediate_size'] = 64
    edit_json(spoilt / 'config.json', **config)
    with pytest.raises(UserError, match=r'of another shape: .*mlp'):
      load(critics.open_critic(spoilt))

  def test_config_with_a_head_of_its_own(self, spoilt):
    edit_json(spoilt / 'config.json', tie_word_embeddings=False)
    with pytest.raises(UserError, match=r'1 missing: lm_head\.weight'):
      load(critics.open_critic(spoilt))

  def test_tied_head_in_the_file(self, tmp_path):
    """It must be the embedding."""
    tiny_qwen.write_published(tmp_path, tied_head=False)
    edit_json(tmp_path / 'config.json', tie_word_embeddings=True)
    with pytest.raises(UserError, match='lm_head.weight and .* differ'):
      load(critics.open_critic(tmp_path))
    file = tmp_path / 'model.safetensors'
    tensors = safetensors_files.open_tensors(tmp_path, 'model')
    arrays = {name: tensor[...] for name, tensor in tensors.items()}
    arrays['lm_head.weight'] = arrays[
      'model.language_model.embed_tokens.weight'
    ]
    safetensors_files.write(
      file,
      [
        (name, array.shape, array.dtype, lambda array=array: array)
        for name, array in arrays.items()
      ],
    )
    _, params = load(critics.open_critic(tmp_path))
    assert 'head' not in params['llm']

  def test_no_video_processor(self, spoilt):
    (spoilt / 'video_preprocessor_config.json').unlink()
    with pytest.raises(UserError, match='video_preprocessor_config.json'):
      critics.open_critic(spoilt)

  def test_joint_processor_file(self, spoilt):
    """Of transformers 5."""
    file = spoilt / 'video_preprocessor_config.json'
    values = json.loads(file.read_text())
    file.unlink()
    joint = spoilt / 'processor_config.json'
    joint.write_text(json.dumps({'video_processor': values}))
    assert critics.open_critic(spoilt).config == tiny_qwen.tiny_config()
    joint.write_text('{}')
    with pytest.raises(UserError, match='no video_processor; copy'):
      critics.open_critic(spoilt)

  def test_tokenizer_of_another_model(self, spoilt):
    edit_json(spoilt / 'config.json', video_token_id=7)
    with pytest.raises(UserError, match='token 5, and video_token_id .* 7'):
      critics.open_critic(spoilt).open_tokenizer('qwen3-vl')
    config = json.loads((spoilt / 'config.json').read_text())
    config['text_config']['vocab_size'] = 100
    edit_json(spoilt / 'config.json', **config)
    with pytest.raises(UserError, match=r'tokenizer has \d+ tokens, .* 100'):
      critics.open_critic(spoilt).open_tokenizer('qwen3-vl')
