"""Adapters in every form that is in the wild; docs/inputs.md lists them."""

import json
import pathlib

import jax.numpy as jnp
import numpy as np
import pytest

from lift_jax.errors import UserError
from lift_jax.models import adapter_files, adapters, lora
from lift_jax.models.adapter_config import AdapterConfig
from lift_jax.models.adapter_names import PEFT_PREFIX
from lift_jax.models.functional import functional
from lift_jax.weights import param_paths, safetensors_files
from tests import doc_tables
from tests.models.adapted_network import TABLE, Network, random_like

pytestmark = pytest.mark.fast

RANK, ALPHA = 2, 6.0
NETWORK = functional(Network)
SITES = adapter_files.sites_of(
  lora.adapter_table(TABLE, f'{PEFT_PREFIX}llm.'),
  NETWORK.abstract_params,
  {'layers.{i}.attention.dense': ('layer.{i}.up',)},
)
# The layers that are adapted, (outputs, inputs).
SHAPES = {'layer.0.up': (8, 4), 'layer.2.up': (8, 4), 'head': (5, 4)}
CONFIG = {'peft_type': 'LORA', 'r': RANK, 'lora_alpha': ALPHA}


def matrices(rank=RANK) -> dict[str, tuple[np.ndarray, np.ndarray]]:
  """A and B of each layer."""
  rng = np.random.default_rng(0)
  return {
    layer: (
      rng.normal(size=(rank, inputs)).astype(np.float32),
      rng.normal(size=(outputs, rank)).astype(np.float32),
    )
    for layer, (outputs, inputs) in SHAPES.items()
  }


def named(form, **others):
  """Tensors under names such as '{layer}.lora_{half}.weight'.

  Args:
    form: name of a matrix; {half} is A or B, {way} down or up, {flat} the layer
      with underscores.
    **others: name of a scalar to its value, such as {'{layer}.alpha': 6}.
  """
  tensors = {}
  for layer, pair in matrices().items():
    words = {'layer': layer, 'flat': layer.replace('.', '_')}
    for half, way, matrix in zip('AB', ('down', 'up'), pair, strict=True):
      tensors[form.format(half=half, way=way, **words)] = matrix
    for name, value in others.items():
      tensors[name.format(**words)] = np.float32(value)
  return tensors


PEFT = named('base_model.model.llm.{layer}.lora_{half}.weight')
UP = 'base_model.model.llm.layer.2.up'


def write(path, tensors, config=None) -> pathlib.Path:
  """Writes a file, and next to it adapter_config.json if one is given."""
  path.parent.mkdir(parents=True, exist_ok=True)
  if config is not None:
    (path.parent / 'adapter_config.json').write_text(json.dumps(config))
  safetensors_files.write(
    path,
    [
      (name, np.shape(x), np.asarray(x).dtype, lambda x=x: np.asarray(x))
      for name, x in tensors.items()
    ],
  )
  return path


def write_peft(folder, tensors=PEFT, **changes) -> pathlib.Path:
  write(folder / 'adapter_model.safetensors', tensors, CONFIG | changes)
  return folder


def open_adapter(path, **settings):
  return adapter_files.open_adapter(AdapterConfig(str(path), **settings), SITES)


def merge(*opened, dtype=jnp.float32):
  """The network's parameters with adapters."""
  return {
    name: np.asarray(
      adapters.merged(opened, jnp.dtype(dtype), name, jnp.asarray(leaf))
    )
    for name, leaf in base().items()
  }


def base():
  return param_paths.flatten(random_like(NETWORK.abstract_params, 1))


def expected(pairs=None, factor=ALPHA / RANK):
  """The sum in NumPy; `factor` is that of all layers, or by layer."""
  params = {name: leaf.copy() for name, leaf in base().items()}
  for layer, (a, b) in (pairs or matrices()).items():
    own = factor[layer] if isinstance(factor, dict) else factor
    update = own * (b @ a).T
    if layer == 'head':
      params['head/kernel'] += update
    else:
      params['blocks/up/kernel'][int(layer.split('.')[1])] += update
  return params


def assert_reads(path, **settings):
  """The sum is right, and bit for bit that of the form of diffusers."""
  reference = write(
    path.parent / 'reference' / 'x.safetensors',
    named('transformer.{layer}.lora_{half}.weight', **{'{layer}.alpha': ALPHA}),
  )
  found, known = (
    merge(open_adapter(path, **settings)),
    merge(open_adapter(reference)),
  )
  for name, leaf in expected().items():
    np.testing.assert_allclose(known[name], leaf, rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(found[name], known[name], name)


def assert_merges(path, pairs=None, factor=ALPHA / RANK, **settings):
  found = merge(open_adapter(path, **settings))
  for name, leaf in expected(pairs, factor).items():
    np.testing.assert_allclose(found[name], leaf, rtol=1e-5, atol=1e-5)


def assert_refused(path, message, **settings):
  with pytest.raises(UserError, match=message) as raised:
    open_adapter(path, **settings)
  assert str(path) in str(raised.value)
  assert len(str(raised.value).splitlines()) == 1


def reads(form, alpha='{layer}.alpha'):
  """A check that a form is read, from a file of any name."""

  def check(folder):
    tensors = named(form, **{alpha: ALPHA})
    assert_reads(write(folder / 'any.safetensors', tensors))

  return check


def refuses(extra, message):
  """A check that a tensor next to good ones is refused."""

  def check(folder):
    tensors = PEFT | {extra: np.zeros(3, np.float32)}
    assert_refused(write_peft(folder, tensors), message)

  return check


def peft_folder(folder):
  assert_reads(write_peft(folder / 'x'))


def peft_file(folder):
  """Its config lies beside it."""
  name = 'adapter_model.safetensors'
  write_peft(folder / 'x')
  assert_reads(folder / 'x' / name)
  # As in a download cache.
  (folder / 'blobs').mkdir()
  (folder / 'x' / name).rename(folder / 'blobs' / '1')
  (folder / 'x' / name).symlink_to(folder / 'blobs' / '1')
  assert_reads(folder / 'x' / name)


def without_llm(folder):
  tensors = named('base_model.model.{layer}.lora_{half}.weight')
  assert_reads(write_peft(folder / 'x', tensors))


def sat(folder):
  names = {'layer.0.up': 0, 'layer.2.up': 2}
  pairs = {layer: matrices()[layer] for layer in names}
  tensors = {}
  for layer, number in names.items():
    prefix = f'model.diffusion_model.transformer.layers.{number}.attention'
    for half, matrix in zip('AB', pairs[layer], strict=True):
      tensors[f'{prefix}.dense.matrix_{half}.0'] = matrix
  path = write(folder / 'sat.safetensors', tensors)
  assert_merges(path, pairs, alpha=ALPHA)
  assert_refused(path, r'SAT, .* give .* as model\.adapter_alpha')


def other_ranks(folder):
  """By a pattern in the config; or without a config, of each layer."""
  pairs = matrices() | {'layer.2.up': matrices(3)['layer.2.up']}
  tensors = dict(PEFT)
  for half, matrix in zip('AB', pairs['layer.2.up'], strict=True):
    tensors[f'{UP}.lora_{half}.weight'] = matrix
  write_peft(folder / 'x', tensors, rank_pattern={'layer.2.up': 3})
  factors = {layer: ALPHA / len(pair[0]) for layer, pair in pairs.items()}
  assert_merges(folder / 'x', pairs, factors)
  assert_merges(write(folder / 'y.safetensors', tensors), pairs, 1)
  for pattern in ({}, {'^layer.2': 3}, {'other|down': 3}):
    write_peft(folder / 'x', tensors, rank_pattern=pattern)
    assert_refused(folder / 'x', rf'r is 2 for {UP}, whose .* rank 3')


def other_alphas(folder):
  factors = dict.fromkeys(SHAPES, ALPHA / RANK) | {'layer.2.up': 0.5}
  write_peft(folder / 'x', alpha_pattern={r'layer\.2\.(up|down)': 1})
  assert_merges(folder / 'x', factor=factors)
  tensors = named('{layer}.lora_{half}.weight', **{'{layer}.alpha': ALPHA})
  tensors['layer.2.up.alpha'] = np.float32(1).reshape(1)
  assert_merges(write(folder / 'y.safetensors', tensors), factor=factors)


def rank_stabilized(folder):
  write_peft(folder / 'x', use_rslora=True)
  assert_merges(folder / 'x', factor=ALPHA / RANK**0.5)


def defaults(folder):
  write_peft(
    folder / 'x',
    use_dora=False,
    rank_pattern=None,
    alpha_pattern={},
    modules_to_save=[],
    bias='none',
    lora_bias=None,
    a_key_of_the_future=None,
    lora_dropout=0.05,
    target_modules='all-linear',
    layers_to_transform=[0, 2],
  )
  assert_reads(folder / 'x')


def short_floats(folder):
  for dtype in (jnp.float16, jnp.bfloat16, jnp.float8_e4m3fn):
    tensors = {name: x.astype(dtype) for name, x in PEFT.items()}
    pairs = {
      layer: tuple(half.astype(dtype).astype(np.float32) for half in pair)
      for layer, pair in matrices().items()
    }
    assert_merges(write_peft(folder / 'x', tensors), pairs)


def several(folder):
  paths = [write_peft(folder / name) for name in 'xy']
  opened = [
    open_adapter(path, scale=scale)
    for path, scale in zip(paths, (0.5, -2.0), strict=True)
  ]
  found = merge(*opened)
  for name, leaf in expected(factor=-1.5 * ALPHA / RANK).items():
    np.testing.assert_allclose(found[name], leaf, rtol=1e-5, atol=1e-5)


def without_alpha(folder):
  path = write(folder / 'x.safetensors', PEFT)
  assert_merges(path, factor=1)
  assert 'alpha not stated' in open_adapter(path).describe()


def given_alpha(folder):
  assert_reads(write(folder / 'x.safetensors', PEFT), alpha=ALPHA)
  path = write_peft(folder / 'y', lora_alpha=None)
  assert_reads(path, alpha=ALPHA)
  assert_refused(path, r'adapter_config\.json: lora_alpha is missing; give it')


def given_scale(folder):
  path = write_peft(folder)
  for scale in (0.25, -1.0):
    assert_merges(path, factor=scale * ALPHA / RANK, scale=scale)


def another_alpha(folder):
  path = write_peft(folder)
  open_adapter(path, alpha=ALPHA)
  assert_refused(path, 'more than one alpha: 6 in .*, 8 in model.adapter_alpha',
                 alpha=8.0)  # fmt: skip


def another_r(folder):
  write_peft(folder, r=4)
  assert_refused(folder, r'adapter_config\.json: r is 4 for .* have rank 2')


def another_network(folder):
  tensors = named('unet.{layer}.lora_{half}.weight')
  assert_refused(
    write(folder / 'x.safetensors', tensors),
    r'none of its tensors \(unet\.head.* is an adapter of this network',
  )


def no_such_layer(folder):
  tensors = PEFT | {
    f'base_model.model.llm.layer.3.up.lora_{half}.weight': x
    for half, x in zip('AB', matrices()['layer.2.up'], strict=True)
  }
  assert_refused(
    write_peft(folder, tensors), r'2 tensors .*: .*layer\.3\.up\.lora_A'
  )


def incomplete(folder):
  tensors = dict(PEFT)
  del tensors[f'{UP}.lora_B.weight']
  assert_refused(write_peft(folder, tensors), f'{UP}.lora_A.weight lacks .* b')
  tensors = named('{layer}.lora_{half}.weight')
  tensors['layer.1.up.alpha'] = np.float32(2)
  assert_refused(
    write(folder / 'x.safetensors', tensors), 'up.alpha lacks .* a and b'
  )
  tensors = named('{layer}.lora_{half}.weight') | {'head.alpha': np.float32(2)}
  assert_refused(
    write(folder / 'x.safetensors', tensors), 'state an alpha and others do not'
  )


def another_shape(folder):
  for half, shape, wanted in (
    ('B', (7, RANK), r'\[7, 2\] instead of \[8, 2\]'),
    ('A', (RANK, 5), r'\[2, 5\] instead of \[2, 4\]'),
    ('A', (RANK, 4, 1), 'is not a matrix'),
    ('A', (), 'is not a matrix'),
  ):
    name = f'{UP}.lora_{half}.weight'
    write_peft(folder, PEFT | {name: np.zeros(shape, np.float32)})
    assert_refused(folder, rf'{name} .*{wanted}')


def twice(folder):
  for form in (
    'base_model.model.llm.{layer}.lora_{half}.other.weight',
    'lora_unet_{flat}.lora_{way}.weight',
  ):
    write_peft(folder, PEFT | named(form))
    assert_refused(folder, 'are of the same layer; give adapters in a file')


def pickle(folder):
  path = write_peft(folder) / 'adapter_model.safetensors'
  path.rename(path.with_suffix('.bin'))
  assert_refused(folder, 'in safetensors format')


def methods(folder):
  for change, message in (
    ({'peft_type': 'LOHA'}, "peft_type is 'LOHA'"),
    ({'use_dora': True}, 'use_dora = True cannot be merged'),
    ({'lora_bias': True}, 'lora_bias = True cannot be merged'),
    ({'bias': 'all'}, "bias = 'all' cannot"),
    ({'modules_to_save': ['head']}, r"modules_to_save = \['head'\] cannot"),
    ({'init_lora_weights': 'pissa'}, "init_lora_weights = 'pissa' cannot"),
    ({'a_key_of_the_future': 1}, 'a_key_of_the_future = 1 cannot'),
  ):
    write_peft(folder, **change)
    assert_refused(folder, rf'adapter_config\.json: {message}')


CASES = {
  '`transformer.LAYER.lora_A.weight` (diffusers)': reads(
    'transformer.{layer}.lora_{half}.weight', 'transformer.{layer}.alpha'
  ),
  '`LAYER.lora_A.weight`': reads('{layer}.lora_{half}.weight'),
  '`diffusion_model.LAYER.lora_down.weight` (ComfyUI)': reads(
    'diffusion_model.{layer}.lora_{way}.weight', 'diffusion_model.{layer}.alpha'
  ),
  '`LAYER.lora.down.weight` (older diffusers)': reads(
    'transformer.{layer}.lora.{way}.weight', 'transformer.{layer}.alpha'
  ),
  '`lora_unet__LAYER.lora_down.weight`, `.alpha` (kohya)': reads(
    'lora_unet__{flat}.lora_{way}.weight', 'lora_unet__{flat}.alpha'
  ),
  '`base_model.model.LAYER.lora_A.weight` (PEFT), a folder': peft_folder,
  'the `adapter_model.safetensors` of such a folder': peft_file,
  '`LAYER.lora_A.NAME.weight` (state dict of PEFT)': reads(
    'base_model.model.llm.{layer}.lora_{half}.default.weight',
    'base_model.model.llm.{layer}.alpha',
  ),
  'critic: names without `llm.`': without_llm,
  '`layers.0.attention.dense.matrix_A.0` (SAT)': sat,
  'ranks that differ by layer, `rank_pattern`': other_ranks,
  'alphas that differ by layer, `alpha_pattern`': other_alphas,
  '`use_rslora`': rank_stabilized,
  'other keys at their defaults or null': defaults,
  'matrices in float16, bfloat16 or float8': short_floats,
  'several adapters with scales, `model.adapters`': several,
  '`model.adapter_scale`': given_scale,
  'no alpha': without_alpha,
  '`model.adapter_alpha` for a file without one': given_alpha,
  '`model.adapter_alpha` unlike that of the file': another_alpha,
  '`r` unlike the rank of the matrices': another_r,
  'DoRA': refuses(f'{UP}.lora_magnitude_vector', 'DoRA .*magnitude_vector'),
  'biases of adapters (`lora_bias`)': refuses(
    f'{UP}.lora_B.bias', 'lora_bias .*lora_B.bias.* cannot be merged'
  ),
  'adapters of embeddings': refuses(
    'base_model.model.llm.words.lora_embedding_A', 'an embedding .*words'
  ),
  'whole parameters (`modules_to_save`)': refuses(
    'base_model.model.llm.head.weight', 'whole parameters .*head.weight'
  ),
  'LoHa, LoKr and other methods': refuses(
    f'{UP}.hada_w1_a', 'another method than LoRA .*hada_w1_a'
  ),
  'a key of `adapter_config.json` that changes the sum': methods,
  'adapters of another network': another_network,
  'a layer that the network lacks': no_such_layer,
  'a matrix without its other half': incomplete,
  'matrices of another shape': another_shape,
  'two adapters of a layer in one file': twice,
  'pickled weights (`.bin`)': pickle,
}


@pytest.mark.parametrize('case', CASES)
def test_case(case, tmp_path):
  CASES[case](tmp_path)


def test_documented():
  table = doc_tables.rows('inputs.md', 'Adapters')
  assert list(table) == list(CASES)
  refused = list(CASES).index('`model.adapter_alpha` unlike that of the file')
  for number, (case, result) in enumerate(table.items()):
    word = 'refused' if number >= refused else 'read'
    assert result.startswith('flagged' if case == 'no alpha' else word), case
