"""docs/inputs.md, "Published models": what is read, and what is refused."""

import functools
import json
import pathlib
import re
import shutil

import jax
import numpy as np
import pytest
import sentencepiece
import transformers

from lift_jax.diffusion.sampler import SamplerConfig
from lift_jax.errors import UserError
from lift_jax.models import critics
from lift_jax.models.functional import functional
from lift_jax.models.generators import open_model
from tests import doc_tables
from tests.models.cogvideox.tiny_pipeline import make_pipeline
from tests.models.t5 import spiece
from tests.models.vila import tiny_vila
from tests.optional import safetensors_torch, torch

SCHEDULER = 'scheduler/scheduler_config.json'
ENCODER = 'text_encoder/model.safetensors'
TRANSFORMER = 'transformer/diffusion_pytorch_model.safetensors'
TOWER = 'vision_tower/model.safetensors'

# Config files with a number that is a size, and one that is another number.
NUMBERS = {
  'transformer/config.json': ('num_layers', 'norm_eps'),
  'vae/config.json': ('layers_per_block', 'scaling_factor'),
  'text_encoder/config.json': ('d_model', 'layer_norm_epsilon'),
  SCHEDULER: ('num_train_timesteps', 'snr_shift_scale'),
  'llm/config.json': ('hidden_size', 'rms_norm_eps'),
  'vision_tower/config.json': ('image_size', 'layer_norm_eps'),
}


@pytest.fixture(scope='module')
def published(tmp_path_factory):
  """A video model and a critic; the files of both lie in one folder."""
  path = tmp_path_factory.mktemp('published')
  make_pipeline().save_pretrained(path)
  tiny_vila.write(path, tiny_vila.shared())
  return path


class Folder:
  """A copy that a test may modify, and what is read from it."""

  def __init__(self, path: pathlib.Path, published: pathlib.Path):
    self.path = shutil.copytree(published, path)
    self.published = published

  def edit(self, name, **changes):
    file = self.path / name
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))

  def edit_tensors(self, name, change):
    """`change` maps a dict of tensors to another."""
    file = self.path / name
    tensors = change(safetensors_torch.load_file(file))
    safetensors_torch.save_file(tensors, file)

  def open(self):
    return open_model(self.path), critics.open_critic(self.path)

  def refused(self, *words, read=None):
    """Whether reading it is one line with these words."""
    with pytest.raises(UserError) as caught:
      (read or self.open)()
    message = str(caught.value)
    assert '\n' not in message
    for word in (str(self.path), *words):
      assert word in message, message

  def load(self, network):
    model = open_model(self.path)
    return model.load(network, model.declare(network), None)

  def is_same(self, network):
    model = open_model(self.published)
    expected = model.load(network, model.declare(network), None)
    jax.tree.map(np.testing.assert_array_equal, self.load(network), expected)

  def load_tower(self, path=None):
    critic = critics.open_critic(path or self.path)
    model = functional(critic.build())
    shardings = jax.tree.map(
      lambda _: jax.sharding.SingleDeviceSharding(jax.devices()[0]),
      model.abstract_params,
    )
    return critic.load(model, shardings, np.float32)['vision_tower']


def spacings(folder):
  folder.edit(
    SCHEDULER,
    timestep_spacing='leading',
    steps_offset=1,
    set_alpha_to_one=False,
  )
  steps = folder.open()[0].schedule.make_steps(SamplerConfig(num_steps=4))
  assert steps.timestep.tolist() == [751, 501, 251, 1]
  assert steps.from_x0[-1] < 1  # it does not go to clean latents


def other_spacing(folder):
  folder.edit(SCHEDULER, timestep_spacing='karras')
  folder.refused('timestep_spacing', "'karras'", "'linspace'")


def numbers(folder):
  wrong = (None, '1', float('nan'), float('inf'), -1, 0, True)
  for file, keys in NUMBERS.items():
    before = (folder.path / file).read_text()
    for key in keys:
      for value in wrong:
        folder.edit(file, **{key: value})
        folder.refused(file, f'{key}={value!r} (give a positive ')
    (folder.path / file).write_text(before)


def harmless_keys(folder):
  base = transformers.PretrainedConfig().to_dict()
  del base['model_type']
  base |= {'_attn_implementation_autoset': True, '_commit_hash': 'abc'}
  base |= {'torchscript': False, 'use_bfloat16': False, 'num_beams': 1}
  base['pruned_heads'], base['add_cross_attention'] = {}, False
  before = open_model(folder.published), critics.open_critic(folder.published)
  for file in (*NUMBERS, 'mm_projector/config.json'):
    value = json.loads((folder.path / file).read_text())
    folder.edit(file, **(base | value))
  model, critic = folder.open()
  assert model.text_encoder == before[0].text_encoder
  assert critic.config == before[1].config


def other_keys(folder):
  for change in (
    {'pruned_heads': {'0': [1]}},
    {'add_cross_attention': True},
    {'quantization_config': {'load_in_8bit': True}},
    {'sliding_window': 512},
  ):
    for file in NUMBERS:
      before = (folder.path / file).read_text()
      folder.edit(file, **change)
      folder.refused(file, *change)
      (folder.path / file).write_text(before)


def byte_order_mark(folder):
  for file in folder.path.rglob('*.json'):
    file.write_bytes(b'\xef\xbb\xbf' + file.read_bytes())
  _, critic = folder.open()
  critic.open_tokenizer('vicuna_v1')
  folder.is_same('transformer')


def int8(folder):
  def quantise(tensors):
    tensors['shared.weight'] = tensors['shared.weight'].to(torch.int8)
    return tensors

  folder.edit_tensors(ENCODER, quantise)
  folder.refused(
    'shared.weight is int8', read=lambda: folder.load('text_encoder')
  )


@functools.cache
def _positions():
  """The table as a module of diffusers has it."""
  return make_pipeline().transformer.patch_embed.pos_embedding


def _add_positions(folder, dtype, error=0.0):
  table = _positions() + error
  folder.edit_tensors(
    TRANSFORMER,
    lambda tensors: {
      **tensors, 'patch_embed.pos_embedding': table.to(dtype)
    },
  )  # fmt: skip


def equal_positions(folder):
  for dtype in (torch.float32, torch.float16, torch.bfloat16):
    _add_positions(folder, dtype)
    folder.is_same('transformer')


def other_positions(folder):
  _add_positions(folder, torch.float32, 0.01)
  folder.refused(
    'patch_embed.pos_embedding is not the table',
    read=lambda: folder.load('transformer'),
  )


def complete_t5(folder):
  def complete(tensors):
    decoder = {
      name.replace('encoder', 'decoder'): tensor.clone()
      for name, tensor in tensors.items()
      if name.startswith('encoder.')
    }
    head = {'lm_head.weight': tensors['shared.weight'].clone()}
    return tensors | decoder | head

  folder.edit_tensors(ENCODER, complete)
  folder.is_same('text_encoder')


def wrapped(folder):
  for prefix in ('module.', '_orig_mod.'):
    folder.edit_tensors(
      TRANSFORMER,
      lambda tensors, prefix=prefix: {
        f'{prefix}{name}': tensor for name, tensor in tensors.items()
      },
    )
    folder.is_same('transformer')


def tower_of_transformers_5(folder):
  expected = folder.load_tower(folder.published)
  folder.edit_tensors(
    TOWER,
    lambda tensors: {
      name.removeprefix('vision_model.'): tensor
      for name, tensor in tensors.items()
    },
  )
  jax.tree.map(np.testing.assert_array_equal, folder.load_tower(), expected)


def other_tensors(folder):
  folder.edit_tensors(
    TRANSFORMER, lambda tensors: {**tensors, 'extra': torch.ones(1)}
  )
  folder.edit_tensors(
    ENCODER,
    lambda tensors: {
      name: tensor
      for name, tensor in tensors.items()
      if name != 'encoder.final_layer_norm.weight'
    },
  )
  folder.refused('1 unknown: extra', read=lambda: folder.load('transformer'))
  folder.refused(
    '1 missing: encoder.final_layer_norm.weight',
    read=lambda: folder.load('text_encoder'),
  )


def spiece_model(folder):
  (tokenizer := folder.path / 'tokenizer').rename(folder.path / 'byt5')
  tokenizer.mkdir()
  spiece.train(tokenizer)
  processor = sentencepiece.SentencePieceProcessor(
    model_file=str(tokenizer / 'spiece.model')
  )
  ids, _ = open_model(folder.path).load_tokenizer()(['ba\u0301ll'])
  expected = [*processor.encode('ba\u0301ll'), 1]
  assert ids[0].tolist() == expected + [0] * (7 - len(expected))


def other_tokenizer(folder):
  ids, _ = open_model(folder.path).load_tokenizer()(['a'])
  assert ids[0].tolist() == [ord('a') + 3, 1, 0, 0, 0, 0, 0]


def token_without_row(folder):
  folder.edit('text_encoder/config.json', vocab_size=101)
  tokenize = open_model(folder.path).load_tokenizer()
  tokenize(['a'])  # whose token is 100
  with pytest.raises(UserError, match="^caption 'b' has token 101, but the"):
    tokenize(['b'])


def critic_padding(folder):
  vocab_size = json.loads((folder.path / 'llm/config.json').read_text())[
    'vocab_size'
  ]
  folder.edit('llm/tokenizer_config.json', pad_token='[PAD]')
  (folder.path / 'llm/added_tokens.json').write_text(
    json.dumps({'[PAD]': vocab_size})
  )
  _, critic = folder.open()
  tokenizer = critic.open_tokenizer('vicuna_v1')
  assert tokenizer.pad_id < tokenizer.vocab_size <= vocab_size


def critic_token(folder):
  folder.edit('llm/config.json', vocab_size=300)
  _, critic = folder.open()
  folder.refused(
    'the language model 300', read=lambda: critic.open_tokenizer('vicuna_v1')
  )


CASES = {
  '`timestep_spacing` linspace, leading or trailing; `steps_offset`; '
  '`set_alpha_to_one`': spacings,
  'another `timestep_spacing`': other_spacing,
  'null, text, NaN, infinity, a negative number, 0 or true where a size or '
  'another number belongs': numbers,
  'keys that begin with `_`; keys of the base config of transformers, such as '
  '`output_attentions`, `return_dict`, `id2label`, '
  '`chunk_size_feed_forward`': harmless_keys,
  'a base key that changes the network (`pruned_heads`, '
  '`add_cross_attention`, `quantization_config`), or an unknown key': (
    other_keys
  ),
  'JSON files that begin with a byte order mark': byte_order_mark,
  'an int8 tensor': int8,
  '`patch_embed.pos_embedding` that equals the table of the config': (
    equal_positions
  ),
  'another `patch_embed.pos_embedding`': other_positions,
  "`decoder.*` and `lm_head.weight` beside T5's encoder": complete_t5,
  '`module.` or `_orig_mod.` before the names of all tensors': wrapped,
  "SigLIP's tensors without `vision_model.`, as transformers 5 saves them": (
    tower_of_transformers_5
  ),
  'any other tensor too many, or one too few': other_tensors,
  "T5's `spiece.model`": spiece_model,
  'a tokenizer without `spiece.model`': other_tokenizer,
  'a caption with a token that the text encoder lacks': token_without_row,
  '`[PAD]` of a critic at an id beyond its vocabulary': critic_padding,
  'another token of a critic beyond its vocabulary': critic_token,
}


def test_table():
  rows = doc_tables.rows('inputs.md', 'Published models')
  assert rows.keys() == CASES.keys()
  for name, result in rows.items():
    assert re.match(r'(read|refused)\b', result), name


@pytest.mark.parametrize('name', CASES)
def test_case(name, published, tmp_path):
  CASES[name](Folder(tmp_path / 'model', published))
