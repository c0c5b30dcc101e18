"""`lift convert` on folders as diffusers writes them, and on runs."""

import json
import shutil

import jax
import numpy as np
import pytest

from lift_jax.cli import main as cli
from lift_jax.models import generator_folder
from lift_jax.models.generators import open_model
from tests.jobs import jobs
from tests.models.cogvideox.tiny_pipeline import make_pipeline
from tests.optional import diffusers, safetensors_torch, torch

STEMS = {
  'transformer': 'diffusion_pytorch_model',
  'vae': 'diffusion_pytorch_model',
  'text_encoder': 'model',
}


def convert(source, target, *flags):
  return cli.main(['convert', f'--from={source}', f'--to={target}', *flags])


def publish(path, max_shard_size='10GB', **dtypes):
  pipeline = make_pipeline(**dtypes)
  pipeline.save_pretrained(path, max_shard_size=max_shard_size)
  return path


def tensors_of(path):
  """{component/name: tensor} of a diffusers folder, read by safetensors."""
  return {
    f'{component}/{name}': tensor
    for component, stem in STEMS.items()
    for file in (path / component).glob(f'{stem}*.safetensors')
    for name, tensor in safetensors_torch.load_file(file).items()
  }


def select(tensors, component):
  """The tensors of a component, by their own names."""
  prefix = f'{component}/'
  return {
    name.removeprefix(prefix): tensor
    for name, tensor in tensors.items()
    if name.startswith(prefix)
  }


def assert_same_tensors(found, expected):
  assert found.keys() == expected.keys()
  for name, tensor in expected.items():
    assert found[name].dtype == tensor.dtype, name
    assert torch.equal(found[name], tensor), name


def files_of(path):
  return {
    str(file.relative_to(path)): file.read_bytes()
    for file in path.rglob('*')
    if file.is_file()
  }


@pytest.fixture(scope='module')
def published(tmp_path_factory):
  return publish(tmp_path_factory.mktemp('published'))


@pytest.fixture
def spoiled(published, tmp_path):
  """A published folder that a test may spoil."""
  return shutil.copytree(published, tmp_path / 'source')


class TestModels:
  # Each type in two of the components; float32 also in every other test.
  @pytest.mark.parametrize(
    'dtypes',
    [
      (torch.float16, torch.bfloat16, torch.float32),
      (torch.bfloat16, torch.float32, torch.float16),
    ],
  )
  def test_round_trip_is_bit_exact(self, tmp_path, dtypes):
    source, ours, back = (tmp_path / name for name in ('a', 'b', 'c'))
    dtypes = dict(zip(STEMS, dtypes, strict=True))
    publish(source, max_shard_size='20KB', **dtypes)
    for component, stem in STEMS.items():
      assert (source / component / f'{stem}.safetensors.index.json').exists()
    assert convert(source, ours) == 0
    assert convert(ours, back) == 0
    assert sorted(tmp_path.iterdir()) == [source, ours, back]
    assert not list(ours.rglob('*.safetensors'))

    expected = tensors_of(source)
    assert_same_tensors(tensors_of(back), expected)
    assert {
      name: {tensor.dtype for tensor in select(expected, name).values()}
      for name in STEMS
    } == {name: {dtype} for name, dtype in dtypes.items()}
    models = [open_model(path) for path in (source, ours, back)]
    for name in (*STEMS, 'tokenizer'):
      assert len({model.fingerprint(name) for model in models}) == 1, name

    pipeline = diffusers.CogVideoXPipeline.from_pretrained(back)
    for name in STEMS:
      state = getattr(pipeline, name).state_dict()
      for key, tensor in select(expected, name).items():
        # Diffusers and transformers widen some of what they load.
        assert torch.equal(state[key].to(tensor.dtype), tensor), key
    assert pipeline.scheduler.config.timestep_spacing == 'linspace'
    assert pipeline.tokenizer('a').input_ids == [ord('a') + 3, 1]

  def test_dtype(self, published, tmp_path):
    ours, back = tmp_path / 'ours', tmp_path / 'back'
    assert convert(published, ours, '--dtype=bfloat16') == 0
    model = open_model(ours)
    params = model.load('vae', model.declare('vae'), None)
    assert {str(x.dtype) for x in jax.tree.leaves(params)} == {'bfloat16'}
    assert convert(ours, back, '--dtype=float32') == 0
    rounded = {
      name: tensor.bfloat16().float()
      for name, tensor in tensors_of(published).items()
    }
    assert_same_tensors(tensors_of(back), rounded)
    for path, dtype in ((ours, 'bfloat16'), (back, 'float32')):
      config = json.loads((path / 'text_encoder/config.json').read_text())
      assert config['dtype'] == dtype


@pytest.fixture(scope='module')
def run(world, tmp_path_factory):
  """The workdir of a run that keeps a moving average, and exports it."""
  workdir = tmp_path_factory.mktemp('run')
  settings = {'train__steps': 2, 'train__ema_decay': 0.5, 'train__export': True}
  assert jobs.lift(*world.align(workdir, **settings)).status == 0
  return workdir


@pytest.fixture(scope='module')
def lora_run(world, tmp_path_factory):
  """The same of adapters, whose scale is not one."""
  workdir = tmp_path_factory.mktemp('lora_run')
  settings = {
    'train__steps': 2,
    'train__trainable': 'lora',
    'train__export': True,
    'train__export_dtype': 'bfloat16',
    'lora__rank': 2,
    'lora__alpha': 6.0,
  }
  assert jobs.lift(*world.align(workdir, **settings)).status == 0
  return workdir


def tensors_with(model, adapters):
  """Tensors of a transformer once diffusers has added adapters."""
  pipeline = diffusers.CogVideoXPipeline.from_pretrained(model)
  pipeline.load_lora_weights(adapters)
  pipeline.fuse_lora()
  pipeline.unload_lora_weights()
  return pipeline.transformer.state_dict()


def moved(run, workdir, model_path):
  """A copy of a run whose config names another folder for its model."""
  shutil.copytree(run / 'checkpoints', workdir / 'checkpoints')
  config = json.loads((run / 'align_config.json').read_text())
  config['model']['path'] = str(model_path)
  (workdir / 'align_config.json').write_text(json.dumps(config))
  return workdir


class TestRuns:
  def test_as_the_run_exports_itself(self, world, run, tmp_path):
    assert convert(run, tmp_path / 'out') == 0
    assert files_of(tmp_path / 'out') == files_of(run / 'export')
    found = tensors_of(tmp_path / 'out')
    base = tensors_of(world.workdir / 'model')
    changed = {
      name for name in base if not torch.equal(found[name], base[name])
    }
    blocks = {name for name in base if 'transformer_blocks.' in name}
    # Attention does not feel a shift of all keys: that bias may stand still.
    still = {name for name in blocks if name.endswith('norm_k.bias')}
    assert blocks - still <= changed <= blocks
    pipeline = diffusers.CogVideoXPipeline.from_pretrained(tmp_path / 'out')
    assert pipeline.transformer.config.num_layers == 1

    state = jobs.state_of(run, 2)
    ema, last = (
      state[field]['blocks']['attn']['to_q']['bias'][0]
      for field in ('ema', 'trainable')
    )
    written = found['transformer/transformer_blocks.0.attn1.to_q.bias']
    np.testing.assert_array_equal(written, ema)
    assert np.any(ema != last)

  def test_dtype(self, run, tmp_path):
    assert convert(run, tmp_path / 'out', '--dtype=bfloat16') == 0
    expected = tensors_of(run / 'export')
    for name, tensor in expected.items():
      if name.startswith('transformer/'):
        expected[name] = tensor.bfloat16()
    assert_same_tensors(tensors_of(tmp_path / 'out'), expected)

  def test_adapters(self, lora_run, tmp_path):
    assert convert(lora_run, tmp_path / 'out') == 0
    expected = files_of(lora_run / 'export')
    assert files_of(tmp_path / 'out') == expected
    (name,) = expected
    tensors = safetensors_torch.load_file(tmp_path / 'out' / name)
    assert {tensor.dtype for tensor in tensors.values()} == {torch.bfloat16}
    assert all(tensor.any() for tensor in tensors.values())
    pipeline = diffusers.CogVideoXPipeline.from_pretrained(
      json.loads((lora_run / 'align_config.json').read_text())['model']['path']
    )
    pipeline.load_lora_weights(tmp_path / 'out')

  def test_on_top_of_adapters(self, world, lora_run, tmp_path, capsys):
    """They are in what a run with them exports, whatever it trained."""
    settings = {
      'model__adapter': lora_run / 'export',
      'train__steps': 1,
      'train__export': True,
      'optimizer__learning_rate': 1e-9,
      'lora__rank': 3,
    }
    base = world.workdir / 'model'
    earlier = tensors_with(base, lora_run / 'export')
    for trainable in ('lora', 'blocks'):
      workdir = tmp_path / trainable
      call = world.align(workdir, train__trainable=trainable, **settings)
      assert jobs.lift(*call).status == 0
      out = tmp_path / f'{trainable}_out'
      assert convert(workdir, out) == 0
      assert files_of(out) == files_of(workdir / 'export')
    adapters = tensors_with(base, tmp_path / 'lora_out')
    whole = select(tensors_of(tmp_path / 'blocks_out'), 'transformer')
    for name, tensor in earlier.items():
      np.testing.assert_allclose(adapters[name], tensor, atol=1e-6)
      np.testing.assert_allclose(whole[name], tensor, atol=1e-6)
    name = 'transformer_blocks.0.attn1.to_q.weight'
    stored = tensors_of(base)[f'transformer/{name}']
    assert (earlier[name] - stored).abs().max() > 1e-4

    others = tmp_path / 'lora_out'
    workdir = moved(tmp_path / 'lora', tmp_path / 'run', base)
    file = workdir / 'align_config.json'
    model = json.loads(file.read_text())['model']
    change_json(file, model=model | {'adapter': str(others)})
    assert_refused(
      workdir,
      tmp_path / 'x',
      capsys,
      f'another model than {base} with the adapters {others}, which',
    )

  def test_of_our_checkpoint_format(self, world, run, tmp_path):
    """A run from a converted base exports its frozen networks unchanged."""
    base = tmp_path / 'base'
    published = open_model(world.workdir / 'model')
    shutil.copytree(published.path, base)
    for component in ('transformer', 'text_encoder'):
      (base / component / f'{STEMS[component]}.safetensors').unlink()
      generator_folder.write_orbax(published, component, base)
    workdir = moved(run, tmp_path / 'run', base)
    assert convert(workdir, tmp_path / 'out') == 0
    assert_same_tensors(
      tensors_of(tmp_path / 'out'), tensors_of(run / 'export')
    )

  def test_of_the_random_model(self, world, lora_run, tmp_path, capsys):
    """It lies in the workdir, and is not made anew if it is gone."""
    workdir = moved(lora_run, tmp_path / 'run', '')
    out = tmp_path / 'out'
    assert_refused(workdir, out, capsys, f'{workdir}/model/model_index.json')
    assert not (workdir / 'model').exists()
    shutil.copytree(world.workdir / 'model', workdir / 'model')
    assert convert(workdir, out) == 0
    assert files_of(out) == files_of(lora_run / 'export')

  def test_another_base(self, world, lora_run, tmp_path, capsys):
    base = shutil.copytree(world.workdir / 'model', tmp_path / 'base')
    file = base / 'transformer/diffusion_pytorch_model.safetensors'
    tensors = safetensors_torch.load_file(file)
    tensors['proj_out.bias'] += 1
    safetensors_torch.save_file(tensors, file)
    workdir = moved(lora_run, tmp_path / 'run', base)
    assert_refused(
      workdir, tmp_path / 'out', capsys, f'another model than {base}'
    )

  def test_no_checkpoint(self, run, tmp_path, capsys):
    source = tmp_path / 'run'
    source.mkdir()
    shutil.copy(run / 'align_config.json', source)
    assert_refused(source, tmp_path / 'out', capsys, 'no complete checkpoint')
    assert not (source / 'checkpoints').exists()

  @pytest.mark.parametrize('content', ['{}', '{"model": 1, "lora": []}', '[]'])
  def test_checkpoint_of_something_else(
    self, lora_run, tmp_path, capsys, content
  ):
    workdir = shutil.copytree(lora_run, tmp_path / 'run')
    for path in (workdir / 'checkpoints').glob('*/belongs_to/metadata'):
      path.write_text(content)
    assert_refused(workdir, tmp_path / 'out', capsys, 'checkpoint')

  def test_damaged_checkpoint(self, lora_run, tmp_path, capsys):
    source = shutil.copytree(lora_run, tmp_path / 'run')
    (source / 'checkpoints/2/state/_METADATA').write_text('{')
    assert_refused(source, tmp_path / 'out', capsys, 'checkpoints/2', 'read')


def assert_refused(source, target, capsys, *messages, flags=()):
  capsys.readouterr()
  beside = set(target.parent.iterdir())
  assert convert(source, target, *flags) == 2
  (line,) = capsys.readouterr().err.splitlines()
  assert line.startswith('lift convert: error: ')
  for message in messages:
    assert message in line
  assert set(target.parent.iterdir()) == beside


def change_json(path, **values):
  path.write_text(json.dumps({**json.loads(path.read_text()), **values}))


class TestErrors:
  def test_tensors(self, spoiled, tmp_path, capsys):
    file = spoiled / 'transformer/diffusion_pytorch_model.safetensors'
    tensors = safetensors_torch.load_file(file)
    del tensors['proj_out.bias']
    tensors['stranger'] = torch.zeros(1)
    tensors['norm_final.bias'] = torch.zeros(3)
    safetensors_torch.save_file(tensors, file)
    assert_refused(
      spoiled,
      tmp_path / 'out',
      capsys,
      f'{spoiled}/transformer: tensors 1 unknown: stranger',
      '1 missing: proj_out.bias',
      '1 of another shape: norm_final.bias [3] instead of [32]',
    )

  def test_late_error_leaves_nothing(self, spoiled, tmp_path, capsys):
    """The text encoder comes last, when the others are written."""
    file = spoiled / 'text_encoder/model.safetensors'
    file.write_bytes(file.read_bytes()[:-1])
    assert_refused(spoiled, tmp_path / 'out', capsys, str(file))

  def test_duplicate_tensor(self, tmp_path, capsys):
    source = publish(tmp_path / 'source', max_shard_size='20KB')
    first, second, *_ = sorted((source / 'vae').glob('*.safetensors'))
    tensors = safetensors_torch.load_file(first)
    name = next(iter(tensors))
    tensors = safetensors_torch.load_file(second) | {name: tensors[name]}
    safetensors_torch.save_file(tensors, second)
    assert_refused(
      source,
      tmp_path / 'out',
      capsys,
      f'{second}: contains {name}, which {first.name} contains too',
    )

  def test_beyond_float16(self, spoiled, tmp_path, capsys):
    file = spoiled / 'vae/diffusion_pytorch_model.safetensors'
    tensors = safetensors_torch.load_file(file)
    tensors['decoder.conv_out.conv.bias'][0] = 1e5
    safetensors_torch.save_file(tensors, file)
    assert_refused(
      spoiled,
      tmp_path / 'out',
      capsys,
      'decoder.conv_out.conv.bias: values beyond the range of float16',
      flags=['--dtype=float16'],
    )

  @pytest.mark.parametrize(
    ('file', 'values', 'message'),
    [
      (
        'model_index.json',
        {'_class_name': 'CogVideoXImageToVideoPipeline'},
        "_class_name is 'CogVideoXImageToVideoPipeline'; give the folder of a",
      ),
      ('transformer/config.json', {'patch_size_t': 2}, 'patch_size_t=2'),
      ('vae/config.json', {'_class_name': 'AutoencoderKL'}, 'AutoencoderKL'),
      ('text_encoder/config.json', {'model_type': 'umt5'}, 'umt5'),
    ],
  )
  def test_another_model(
    self, spoiled, tmp_path, capsys, file, values, message
  ):
    change_json(spoiled / file, **values)
    assert_refused(spoiled, tmp_path / 'out', capsys, str(spoiled), message)

  def test_some_networks_converted(self, spoiled, tmp_path, capsys):
    (spoiled / 'vae/params').mkdir()
    assert_refused(
      spoiled,
      tmp_path / 'out',
      capsys,
      'only vae are in our checkpoint format',
    )

  def test_none_of_the_three(self, tmp_path, capsys):
    (tmp_path / 'source').mkdir()
    assert_refused(
      tmp_path / 'source',
      tmp_path / 'out',
      capsys,
      'diffusers folder',
      'our checkpoint format',
      'workdir of a lift align run',
    )
    assert_refused(
      tmp_path / 'nowhere', tmp_path / 'out', capsys, 'no such folder'
    )

  def test_target_in_use(self, published, tmp_path, capsys):
    for name in ('file', 'folder/file'):
      (tmp_path / name).parent.mkdir(exist_ok=True)
      (tmp_path / name).write_text('kept')
    for name in ('file', 'folder'):
      assert_refused(published, tmp_path / name, capsys, 'exists and is not an')
    assert (tmp_path / 'folder/file').read_text() == 'kept'

  @pytest.mark.parametrize(
    ('flags', 'message'),
    [
      (['--to=x'], '--from=FOLDER is missing'),
      (['--from=x'], '--to=FOLDER is missing'),
      (['--from=x', '--to=y', '--dtype=int8'], 'dtype'),
      (['--from=x', '--to=y', '--tp=z'], 'tp'),
      (['x', '--from=x', '--to=y'], "'x' is not a flag"),
    ],
  )
  def test_flags(self, flags, message, capsys):
    assert cli.main(['convert', *flags]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line
