"""Critics on disk: published folders, adapters, and folders that we write."""

import builtins
import copy
import dataclasses
import functools
import io
import json
import os
import pathlib
import shutil
from unittest import mock

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lift_jax import partitioning
from lift_jax.data.video import ClipInfo
from lift_jax.errors import UserError
from lift_jax.models import critics, lora
from lift_jax.models.adapter_config import AdapterConfig
from lift_jax.models.critic_config import make_random
from lift_jax.models.functional import functional
from lift_jax.models.internvit.config import InternViTConfig
from lift_jax.models.llama.convert import LLAMA_TABLE
from lift_jax.models.vila.backbone import ADAPTER_TABLE, BACKBONE
from lift_jax.weights import param_paths
from tests.models.vila import tiny_vila
from tests.models.vila.critics import (
  CONFIG,
  PEFT_TARGETS,
  SEVEN,
  make_frames,
  make_tokens,
)
from tests.optional import peft, safetensors_torch, torch, transformers
from tests.torch_weights import params_from_torch, scaled_error

WEIGHTS = {
  'llm': 'model-00001-of-00005.safetensors',
  'vision_tower': 'model.safetensors',
  'mm_projector': 'model.safetensors',
}
LORA = lora.LoRAConfig(
  rank=3,
  alpha=4.0,
  targets=('llm/blocks/attn/to_(q|k|v|out)', 'llm/blocks/mlp/(gate|up|down)'),
)


@pytest.fixture(scope='module')
def published(tmp_path_factory):
  return tiny_vila.write(
    tmp_path_factory.mktemp('published') / 'vila', tiny_vila.shared()
  )


@pytest.fixture
def spoilt(published, tmp_path):
  """A published folder that a test may modify."""
  return shutil.copytree(published, tmp_path / 'spoilt')


def open_adapted(path, adapter, **settings):
  return critics.open_critic(path, [AdapterConfig(str(adapter), **settings)])


def load(folder, dtype=jnp.float32, **axes):
  """Network and parameters, by default on one device."""
  model = functional(folder.build())
  config = partitioning.MeshConfig(**{'fsdp': 1} | axes)
  mesh = partitioning.make_mesh(config, None if axes else jax.devices()[:1])
  shardings = partitioning.param_shardings(
    folder.rules, model.abstract_params, mesh
  )
  params = folder.load(model, shardings, dtype)
  assert jax.tree.map(lambda leaf: leaf.sharding, params) == shardings
  return model, params


FRAMES = make_frames(2, 3)
TOKENS, LENGTHS = make_tokens([3, 2], 32)
IS_TOKEN = np.arange(32) < LENGTHS[:, None]


@functools.partial(jax.jit, static_argnums=0)
def _logits(model, params):
  return model(params, model(params, FRAMES, TOKENS), method='logits')


def logits(model, params):
  """[tokens, V], of real tokens only."""
  return np.asarray(_logits(model, jax.device_get(params)))[IS_TOKEN]


def torch_logits(vila):
  with torch.no_grad():
    return vila.eval()(FRAMES, TOKENS)[1].numpy()[IS_TOKEN]


def edit_json(path, **changes):
  value = json.loads(path.read_text())
  path.write_text(json.dumps(value | changes))


def edit_tensors(path, change):
  tensors = safetensors_torch.load_file(path)
  change(tensors)
  safetensors_torch.save_file(tensors, path)


class TestOpen:
  def test_published(self, published):
    """With the other keys of VILA's root config."""
    folder = critics.open_critic(str(published))
    assert folder.config == CONFIG
    assert folder.adapters == ()
    assert (published / 'llm' / 'model.safetensors.index.json').exists()

  def test_feature_layer(self, spoilt):
    edit_json(spoilt / 'config.json', mm_vision_select_layer=-1)
    folder = critics.open_critic(spoilt)
    assert folder.config.vision_tower.feature_layer == -1
    _, params = load(folder)
    norms = params['vision_tower']['blocks']['attn_norm']['scale']
    assert norms.shape[0] == CONFIG.vision_tower.num_layers

  @pytest.mark.parametrize('layer', ['-2', 1.5, -4, 0])
  def test_bad_feature_layer(self, spoilt, layer):
    edit_json(spoilt / 'config.json', mm_vision_select_layer=layer)
    with pytest.raises(UserError, match='mm_vision_select_layer .*give a'):
      critics.open_critic(spoilt)

  def test_num_frames(self, spoilt):
    clip = ClipInfo(9, fps=8.0, height=32, width=32)
    edit_json(spoilt / 'config.json', num_video_frames=3)
    frames = critics.open_critic(spoilt).frames
    selection = frames.select(clip)
    assert selection.indices == (0, 4, 8)
    assert selection.num_positions == 3 * frames.tokens_per_frame
    assert not selection.is_short
    assert frames.shapes(selection).shape[0] == 3

  @pytest.mark.parametrize('count', [0, '8', 2.0, True])
  def test_bad_num_frames(self, spoilt, count):
    edit_json(spoilt / 'config.json', num_video_frames=count)
    with pytest.raises(UserError, match='num_video_frames .*give a positive'):
      critics.open_critic(spoilt)

  @pytest.mark.parametrize(
    ('name', 'message'),
    [
      ('config.json', r'spoilt/config\.json: no such file'),
      ('llm', r'spoilt: no folder llm; give the folder of a VILA-1\.5'),
      ('vision_tower', r'vision_tower/config\.json: no such file'),
      ('mm_projector', r'mm_projector/config\.json: no such file'),
    ],
  )
  def test_missing_parts(self, spoilt, name, message):
    path = spoilt / name
    path.unlink() if path.is_file() else shutil.rmtree(path)
    with pytest.raises(UserError, match=message):
      critics.open_critic(spoilt)

  @pytest.mark.parametrize(
    ('name', 'changes', 'message'),
    [
      ('vision_tower', {'model_type': 'clip'}, "model_type is 'clip'"),
      ('vision_tower', {'model_type': ['clip']}, 'model_type is'),
      ('.', {'model_type': ['llava_llama']}, 'model_type is'),
      ('vision_tower', {'hidden_act': 'relu'}, 'hidden_act'),
      ('llm', {'model_type': 'mistral'}, 'model_type'),
      ('mm_projector', {'mm_projector_type': 'linear'}, 'mm_projector_type'),
    ],
  )
  def test_other_networks(self, spoilt, name, changes, message):
    edit_json(spoilt / name / 'config.json', **changes)
    folder = '' if name == '.' else f'{name}/'
    with pytest.raises(UserError, match=rf'{folder}config\.json: .*{message}'):
      critics.open_critic(spoilt)


class TestLoad:
  def test_equals_torch(self, published):
    folder = critics.open_critic(published)
    # Observed 2e-6.
    assert (
      scaled_error(logits(*load(folder)), torch_logits(tiny_vila.shared()))
      < 1e-5
    )

  def test_on_a_mesh_and_in_another_type(self, published):
    folder = critics.open_critic(published)
    _, expected = load(folder)
    expected = param_paths.flatten(expected)
    for dtype in (jnp.float32, jnp.bfloat16):
      _, params = load(folder, dtype, fsdp=4, tensor=2)
      for name, leaf in param_paths.flatten(params).items():
        assert leaf.dtype == dtype
        np.testing.assert_array_equal(
          leaf, np.asarray(expected[name]).astype(dtype), name
        )

  @pytest.mark.parametrize('name', tuple(WEIGHTS))
  def test_unknown_tensor(self, spoilt, name):
    if name == 'llm':  # its files are listed in an index
      index = spoilt / name / 'model.safetensors.index.json'
      stored = json.loads(index.read_text())
      stored['weight_map']['stranger.weight'] = WEIGHTS[name]
      index.write_text(json.dumps(stored))
    edit_tensors(
      spoilt / name / WEIGHTS[name],
      lambda tensors: tensors.update({'stranger.weight': torch.ones(2)}),
    )
    with pytest.raises(
      UserError, match=rf'spoilt/{name}: tensors 1 unknown: stranger\.weight'
    ):
      load(critics.open_critic(spoilt))

  @pytest.mark.parametrize(
    ('name', 'tensor'),
    [
      ('vision_tower', 'vision_model.encoder.layers.1.mlp.fc1.bias'),
      ('mm_projector', 'layers.4.weight'),
    ],
  )
  def test_missing_tensor(self, spoilt, name, tensor):
    edit_tensors(
      spoilt / name / WEIGHTS[name], lambda tensors: tensors.pop(tensor)
    )
    with pytest.raises(
      UserError, match=rf'spoilt/{name}: tensors 1 missing: {tensor}'
    ):
      load(critics.open_critic(spoilt))

  def test_missing_file(self, spoilt):
    (spoilt / 'llm' / WEIGHTS['llm']).unlink()
    with pytest.raises(UserError, match=f'lists {WEIGHTS["llm"]}, which is'):
      load(critics.open_critic(spoilt))

  def test_tower_of_another_size(self, spoilt):
    edit_json(spoilt / 'vision_tower' / 'config.json', intermediate_size=56)
    with pytest.raises(UserError, match='spoilt/vision_tower: .*another shape'):
      load(critics.open_critic(spoilt))


@pytest.fixture(scope='module')
def with_internvit(tmp_path_factory):
  path = tmp_path_factory.mktemp('internvit') / 'model'
  tower = InternViTConfig(
    image_size=23,
    patch_size=7,
    width=32,
    num_layers=3,
    num_heads=4,
    mlp_width=48,
  )
  config = dataclasses.replace(CONFIG, vision_tower=tower)
  make_random(path, BACKBONE, config, 0)
  return path


class TestInternViT:
  """The tower of VILA-1.5 40b; its numbers are in internvit/tower_test.py."""

  def test_all_layers(self, with_internvit):
    folder = critics.open_critic(with_internvit)
    assert folder.config.vision_tower.feature_layer == -1
    model, params = load(folder)
    assert np.isfinite(logits(model, params)).all()

  def test_feature_layer(self, with_internvit, tmp_path):
    """Layers after it are not loaded and have no effect."""
    _, whole = load(critics.open_critic(with_internvit))
    path = shutil.copytree(with_internvit, tmp_path / 'copy')
    edit_json(path / 'config.json', mm_vision_select_layer=-2)
    model, params = load(critics.open_critic(path))
    whole['vision_tower']['blocks'] = jax.tree.map(
      lambda leaf: leaf[:2], whole['vision_tower']['blocks']
    )
    jax.tree.map(np.testing.assert_array_equal, params, whole)
    # Each layer has an effect, though none is trained.
    assert not np.array_equal(
      logits(model, params),
      logits(*load(critics.open_critic(with_internvit))),
    )


def wrap(config):
  """PEFT's adapters in a copy of the torch critic, none of them at zero."""
  torch.manual_seed(1)
  adapted = peft.get_peft_model(copy.deepcopy(tiny_vila.shared()), config)
  with torch.no_grad():
    for name, tensor in adapted.named_parameters():
      if 'lora_B' in name:
        tensor.normal_(0, 0.1)
  return adapted


def peft_config(**changes):
  return peft.LoraConfig(
    **{'r': 4, 'lora_alpha': 8, 'target_modules': PEFT_TARGETS} | changes
  )


@pytest.fixture(scope='module')
def adapted():
  return wrap(peft_config())


@pytest.fixture(scope='module')
def adapter(adapted, tmp_path_factory):
  """A folder like LiFT's published critics, with the file to ignore."""
  path = tmp_path_factory.mktemp('adapter') / 'lift-critic'
  adapted.save_pretrained(path)
  (path / 'config.json').write_text(json.dumps(tiny_vila.ROOT))
  torch.save({}, path / 'non_lora_trainables.bin')
  return path


def merged_params(adapted, model):
  """The language model as merged by PEFT."""
  merged = copy.deepcopy(adapted).merge_and_unload()
  return params_from_torch(
    LLAMA_TABLE, model.abstract_params['llm'], merged.llm
  )


class TestAdapters:
  @pytest.mark.parametrize('axes', [{}, {'fsdp': 4, 'tensor': 2}])
  def test_merge_is_that_of_peft(self, published, adapter, adapted, axes):
    folder = open_adapted(published, adapter)
    model, params = load(folder, **axes)
    expected = param_paths.flatten(merged_params(adapted, model))
    for name, leaf in param_paths.flatten(params['llm']).items():
      # Observed 1e-7.
      assert scaled_error(leaf, expected[name]) < 1e-6, name
    assert scaled_error(logits(model, params), torch_logits(adapted)) < 1e-5
    plain = logits(*load(critics.open_critic(published)))
    assert scaled_error(plain, torch_logits(adapted)) > 0.1

  def test_in_bfloat16(self, published, adapter, adapted):
    """Every weight is the fp32 sum, rounded once: stored ones are fp32."""
    folder = open_adapted(published, adapter)
    wide, narrow = (
      param_paths.flatten(load(folder, dtype, fsdp=4, tensor=2)[1])
      for dtype in (jnp.float32, jnp.bfloat16)
    )
    for name, leaf in wide.items():
      expected = np.asarray(leaf).astype(jnp.bfloat16)
      np.testing.assert_array_equal(narrow[name], expected, name)
      assert narrow[name].dtype == jnp.bfloat16
    # As torch does; an fp32 sum in another order may be a rounding apart.
    merged = merged_params(adapted, functional(folder.build()))
    differ = [
      np.asarray(narrow[f'llm/{name}']) != np.asarray(leaf).astype(jnp.bfloat16)
      for name, leaf in param_paths.flatten(merged).items()
    ]
    assert np.mean(np.concatenate([x.ravel() for x in differ])) < 1e-4

  @pytest.mark.parametrize('form', ['file', 'without llm'])
  def test_forms(self, published, adapter, adapted, tmp_path, form):
    """Those of the critic; others are in adapter_files_test.py."""
    path = shutil.copytree(adapter, tmp_path / 'adapter')
    file = path / 'adapter_model.safetensors'
    if form == 'without llm':

      def rename(tensors):
        for name in list(tensors):
          tensors[name.replace('llm.', '', 1)] = tensors.pop(name)

      edit_tensors(file, rename)
    _, params = load(open_adapted(published, file))
    _, expected = load(open_adapted(published, adapter))
    jax.tree.map(np.testing.assert_array_equal, params, expected)

  def test_some_layers(self, published, tmp_path):
    """The targets in the config may be anything; tensors decide."""
    adapted = wrap(peft_config(target_modules=r'llm\..+\.(v_proj|down_proj)'))
    adapted.save_pretrained(tmp_path)
    edit_json(tmp_path / 'adapter_config.json', target_modules='all-linear')
    model, params = load(open_adapted(published, tmp_path))
    assert scaled_error(logits(model, params), torch_logits(adapted)) < 1e-5

  @pytest.mark.parametrize(
    'changes',
    [
      {'layers_to_transform': [1]},
      {'rank_pattern': {r'layers\.0\.self_attn\.q_proj': 2, 'up_proj': 3}},
      {'alpha_pattern': {'down_proj': 1}},
      {'use_rslora': True},
    ],
  )
  def test_scales_of_peft(self, published, tmp_path, changes):
    """Of layers that differ."""
    adapted = wrap(peft_config(target_modules=list(SEVEN), **changes,
                               exclude_modules='vision_tower.*'))  # fmt: skip
    adapted.save_pretrained(tmp_path)
    model, params = load(open_adapted(published, tmp_path))
    expected = param_paths.flatten(merged_params(adapted, model))
    for name, leaf in param_paths.flatten(params['llm']).items():
      assert scaled_error(leaf, expected[name]) < 1e-6, name

  def test_dora(self, published, tmp_path):
    wrap(peft_config(use_dora=True)).save_pretrained(tmp_path)
    for path in (tmp_path, tmp_path / 'adapter_model.safetensors'):
      with pytest.raises(UserError, match=r'use_dora = True cannot be merged'):
        open_adapted(published, path)

  @pytest.mark.parametrize(
    ('target', 'message'),
    [
      (['q_proj'], 'no linear layer of this network: .*vision_tower'),
      (r'mm_projector\.layers\.2', 'none of its tensors .*mm_projector'),
    ],
  )
  def test_other_layers(self, published, tmp_path, target, message):
    wrap(peft_config(target_modules=target)).save_pretrained(tmp_path)
    with pytest.raises(UserError, match=f'{tmp_path}: .*{message}'):
      open_adapted(published, tmp_path)

  def test_pickles_are_never_opened(self, published, adapter):
    opened = []

    def spy(file, *args, **kwargs):
      opened.append(os.fspath(file) if isinstance(file, os.PathLike) else file)
      return real(file, *args, **kwargs)

    real = builtins.open
    with (
      mock.patch.object(builtins, 'open', spy),
      mock.patch.object(io, 'open', spy),
    ):
      folder = open_adapted(published, adapter)
      load(folder)
      assert folder.fingerprint
    names = {pathlib.Path(file).name for file in opened if type(file) is str}
    assert {'adapter_model.safetensors', 'adapter_config.json'} <= names
    assert not [name for name in names if name.endswith('.bin')]

  @pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
  def test_peft_loads_what_we_write(self, published, tmp_path, dtype):
    base = critics.open_critic(published)
    model = functional(lora.adapted(base.build(), LORA))
    shapes, _ = param_paths.partition(model.abstract_params, lora.is_adapter)
    rng = np.random.default_rng(0)
    added = jax.tree.map(
      lambda leaf: jnp.asarray(0.2 * rng.normal(size=leaf.shape), dtype).astype(
        jnp.float32
      ),
      shapes,
    )
    target = tmp_path / 'export'
    base.write_adapter(target, added, LORA, dtype)
    assert [path.name for path in tmp_path.iterdir()] == ['export']
    _, params = load(base)
    ours = logits(
      model, param_paths.merge(jax.device_get(params), jax.device_get(added))
    )
    # With warnings as errors: of adapters in the vision tower, of missing keys.
    loaded = peft.PeftModel.from_pretrained(
      copy.deepcopy(tiny_vila.shared()), target
    )
    assert scaled_error(ours, torch_logits(loaded.base_model.model)) < 1e-5
    # And so do we.
    folder = open_adapted(published, target)
    assert scaled_error(logits(*load(folder)), ours) < 1e-5


class TestFingerprint:
  def test_depends_on_content(self, published, adapter, tmp_path):
    one = open_adapted(published, adapter)
    assert len(one.fingerprint) == 16
    moved = open_adapted(
      shutil.copytree(published, tmp_path / 'elsewhere'),
      shutil.copytree(adapter, tmp_path / 'adapter'),
    )
    assert moved.fingerprint == one.fingerprint
    # However the weights are sharded into files.
    vila = tmp_path / 'elsewhere' / 'llm'
    tensors = {}
    for file in sorted(vila.glob('*.safetensors')):
      tensors |= safetensors_torch.load_file(file)
      file.unlink()
    (vila / 'model.safetensors.index.json').unlink()
    safetensors_torch.save_file(tensors, vila / 'model.safetensors')
    whole = open_adapted(vila.parent, tmp_path / 'adapter')
    assert whole.fingerprint == one.fingerprint

  @pytest.mark.parametrize(
    'file',
    [
      *(f'{name}/{file}' for name, file in WEIGHTS.items()),
      'adapter/adapter_model.safetensors',
    ],
  )
  def test_weights(self, spoilt, adapter, file):
    shutil.copytree(adapter, spoilt / 'adapter')
    before = open_adapted(spoilt, spoilt / 'adapter').fingerprint

    def change(tensors):
      # The last number of the last tensor.
      tensors[sorted(tensors)[-1]].flatten()[-1] += 1

    edit_tensors(spoilt / file, change)
    after = open_adapted(spoilt, spoilt / 'adapter').fingerprint
    assert after != before

  @pytest.mark.parametrize(
    ('file', 'changes'),
    [
      ('config.json', {'mm_vision_select_layer': -1}),
      ('llm/config.json', {'rms_norm_eps': 0.5}),
      ('llm/tokenizer_config.json', {'legacy': True}),
      ('llm/special_tokens_map.json', {'pad_token': '</s>'}),
      ('llm/added_tokens.json', {'<|x|>': 500}),
      ('adapter/adapter_config.json', {'lora_alpha': 9}),
    ],
  )
  def test_settings(self, spoilt, adapter, file, changes):
    shutil.copytree(adapter, spoilt / 'adapter')
    before = open_adapted(spoilt, spoilt / 'adapter').fingerprint
    path = spoilt / file
    if not path.exists():
      path.write_text('{}')
    edit_json(path, **changes)
    after = open_adapted(spoilt, spoilt / 'adapter').fingerprint
    assert after != before

  def test_tokenizer(self, spoilt):
    before = critics.open_critic(spoilt).fingerprint
    with open(spoilt / 'llm' / 'tokenizer.model', 'ab') as file:
      file.write(b'\0')
    assert critics.open_critic(spoilt).fingerprint != before

  def test_adapter_or_none(self, published, adapter):
    found = (
      critics.open_critic(published),
      open_adapted(published, adapter),
      open_adapted(published, adapter, scale=0.5),
    )
    assert len({critic.fingerprint for critic in found}) == 3


@pytest.fixture(scope='module')
def made(tmp_path_factory):
  path = tmp_path_factory.mktemp('workdir') / 'model'
  make_random(path, BACKBONE, CONFIG, 7)
  return path


class TestRandomCritic:
  def test_opens(self, made):
    folder = critics.open_critic(made)
    assert folder.config == CONFIG
    model, params = load(folder)
    assert np.isfinite(logits(model, params)).all()
    expected = jax.jit(functional(folder.build()).init)(jax.random.key(7))
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    assert [path.name for path in made.parent.iterdir()] == ['model']

  def test_stays(self, made):
    before = {
      path: (path.stat().st_mtime_ns, path.stat().st_ino)
      for path in made.rglob('*')
    }
    make_random(made, BACKBONE, CONFIG, 7)
    after = {
      path: (path.stat().st_mtime_ns, path.stat().st_ino)
      for path in made.rglob('*')
    }
    assert after == before

  def test_same_again(self, made, tmp_path):
    make_random(tmp_path / 'again', BACKBONE, CONFIG, 7)
    again = critics.open_critic(tmp_path / 'again')
    assert again.fingerprint == critics.open_critic(made).fingerprint

  @pytest.mark.parametrize(
    ('changes', 'seed'),
    [
      ({}, 8),
      ({'llm': dataclasses.replace(CONFIG.llm, num_layers=3)}, 7),
      (
        {
          'vision_tower': dataclasses.replace(
            CONFIG.vision_tower, norm_eps=1e-4
          )
        },
        7,
      ),
    ],
  )
  def test_another_is_refused(self, made, changes, seed):
    with pytest.raises(UserError, match='other settings of model.random'):
      make_random(made, BACKBONE, dataclasses.replace(CONFIG, **changes), seed)

  def test_after_a_kill(self, tmp_path):
    """The partial folder of a killed run is deleted."""
    rest = tmp_path / '.model.partial' / 'llm'
    rest.mkdir(parents=True)
    (rest / 'model.safetensors').write_text('half')
    make_random(tmp_path / 'model', BACKBONE, CONFIG, 7)
    assert [path.name for path in tmp_path.iterdir()] == ['model']
    load(critics.open_critic(tmp_path / 'model'))


class TestWriteCritic:
  @pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
  def test_opens_again(self, published, tmp_path, dtype):
    source = critics.open_critic(published)
    model, params = load(source, fsdp=4, tensor=2)
    params = jax.tree.map(lambda leaf: leaf + 0.01, params)
    target = tmp_path / 'export'
    target.mkdir()
    (target / 'old').touch()
    source.write(target, params, dtype)
    assert [path.name for path in tmp_path.iterdir()] == ['export']
    assert not (target / 'old').exists()
    written = critics.open_critic(target)
    assert written.config == source.config
    _, again = load(written)
    jax.tree.map(
      lambda ours, theirs: np.testing.assert_array_equal(
        ours, np.asarray(theirs).astype(dtype).astype(np.float32)
      ),
      again,
      params,
    )
    for file in ('tokenizer.model', 'tokenizer_config.json'):
      before = (published / 'llm' / file).read_bytes()
      assert (target / 'llm' / file).read_bytes() == before
    root = json.loads((target / 'config.json').read_text())
    assert root == tiny_vila.ROOT | {'model_dtype': f'torch.{dtype}'}

  def test_same_fingerprint(self, tmp_path):
    """Unchanged weights have the same fingerprint."""
    make_random(tmp_path / 'model', BACKBONE, CONFIG, 0)
    source = critics.open_critic(tmp_path / 'model')
    _, params = load(source)
    source.write(tmp_path / 'again', params, 'float32')
    again = critics.open_critic(tmp_path / 'again')
    assert again.fingerprint == source.fingerprint

  def test_torch_loads_the_language_model(self, published, tmp_path):
    source = critics.open_critic(published)
    _, params = load(source)
    source.write(tmp_path / 'export', params, 'bfloat16')
    loaded, report = transformers.LlamaForCausalLM.from_pretrained(
      tmp_path / 'export' / 'llm', output_loading_info=True
    )
    assert not report['missing_keys'] and not report['unexpected_keys']
    assert loaded.dtype == torch.bfloat16
    for name, tensor in tiny_vila.shared().llm.state_dict().items():
      assert torch.equal(loaded.state_dict()[name], tensor.bfloat16()), name

  def test_with_adapters_added(self, published, adapter, adapted, tmp_path):
    source = open_adapted(published, adapter)
    _, params = load(source)
    source.write(tmp_path / 'export', params, 'float32')
    written = critics.open_critic(tmp_path / 'export')
    assert scaled_error(logits(*load(written)), torch_logits(adapted)) < 1e-5


def test_adapter_names_are_those_of_lift():
  """By facts published about LiFT-Critic-13b: seven layers, under `llm`."""
  names = {row.published for row in ADAPTER_TABLE}
  for half in 'AB':
    for layer in ('self_attn.q_proj', 'mlp.down_proj'):
      assert (
        f'base_model.model.llm.model.layers.{{i}}.{layer}.lora_{half}.weight'
        in names
      )
