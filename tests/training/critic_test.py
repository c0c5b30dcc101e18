"""Trainable parameters of a critic, shardings and fingerprints of runs."""

import dataclasses
import pathlib

import jax
import numpy as np
import pytest

from lift_jax import partitioning
from lift_jax.data.critic_examples import CriticDataConfig, Example
from lift_jax.data.critic_records import SplitConfig
from lift_jax.data.critic_units import Unit
from lift_jax.data.hra import HRARecord
from lift_jax.data.video import ClipInfo
from lift_jax.errors import UserError
from lift_jax.models import adapters, critics
from lift_jax.models.adapter_config import AdapterConfig
from lift_jax.models.adapters import Adapter
from lift_jax.models.critic_config import CriticModelConfig
from lift_jax.models.functional import functional
from lift_jax.models.llama.flops import decoder_flops
from lift_jax.models.lora import LoRAConfig, is_adapter
from lift_jax.models.vila import flops
from lift_jax.models.vila.backbone import VilaCritic
from lift_jax.training import critic, critic_parts
from lift_jax.training import setup as setup_lib
from lift_jax.training.config import TrainConfig
from lift_jax.training.critic_losses import LossConfig
from lift_jax.training.critic_parts import LIFT_PARTS, PartConfig, PartsConfig
from lift_jax.training.critic_step import CriticBatch
from lift_jax.weights import param_paths
from tests.models.selections import first_frames
from tests.models.vila import tiny_vila
from tests.models.vila.critics import CONFIG, VILA_1_5_13B, VILA_1_5_40B

MODEL = CriticModelConfig(
  path='',
  adapter='',
  random=None,
  template='vicuna_v1',
  compute_dtype='bfloat16',
  attention='auto',
)
TRAIN = TrainConfig(
  steps=1,
  epochs=None,
  batch_size=8,
  batch_per_device=None,
  grad_accum=1,
  seed=0,
  trainable='lora',
  remat='none',
  ema_decay=0.0,
  log_every=1,
  wandb_project='',
  profile='',
  export=False,
  export_dtype='bfloat16',
)
# Every linear layer of the language model but the head, as LiFT.
TARGETS = (r'llm/blocks/attn/to_(q|k|v|out)', r'llm/blocks/mlp/(gate|up|down)')
LORA = LoRAConfig(rank=4, alpha=8.0, targets=TARGETS)
DATA = CriticDataConfig(
  root='',
  hra=('hra.json',),
  real=(),
  held_out=(),
  questions='',
  on_bad_record='error',
  follow_links='hub',
  split=SplitConfig(validation=0.1, test=0.1, seed=0, by_content=False),
  real_share=None,
  with_rationale=True,
  label_weight='none',
  text_buckets=(384,),
  num_threads=1,
)


def setup_of(config, trainable='lora', lora=LORA, adapters=(), **axes):
  mesh = partitioning.make_mesh(
    partitioning.MeshConfig(**{'fsdp': 1} | axes) if axes
    else partitioning.MeshConfig()
  )  # fmt: skip
  folder = VilaCritic(pathlib.Path('critic'), config, adapters)
  train = dataclasses.replace(TRAIN, trainable=trainable)
  return critic.make_setup(folder, MODEL, train, lora, mesh)


@pytest.mark.parametrize(
  ('config', 'rank', 'num_adapters', 'num_base'),
  [
    # Of published adapters: 1.0 GB and 983 MB of 16 bits.
    (VILA_1_5_13B, 128, 500_695_040, 13_463_436_576),
    (VILA_1_5_40B, 64, 491_520_000, 40_068_583_808),
  ],
)
def test_what_trains_at_full_size(config, rank, num_adapters, num_base):
  setup = setup_of(config, lora=dataclasses.replace(LORA, rank=rank), fsdp=8)
  trainable, frozen = setup.split(setup.model.abstract_params)
  assert setup_lib.count(trainable) == num_adapters
  assert setup_lib.count(frozen) == num_base
  whole = setup_of(config, 'all', fsdp=4, tensor=2)
  trainable, frozen = whole.split(whole.model.abstract_params)
  assert (setup_lib.count(trainable), frozen) == (num_base, {})


def test_layout_of_adapters():
  setup = setup_of(CONFIG, fsdp=4, tensor=2)
  trainable, _ = setup.split(setup.shardings)
  specs = {n: s.spec for n, s in param_paths.flatten(trainable).items()}
  assert len(specs) == 14
  assert specs['llm/blocks/mlp/up/lora_a'] == jax.P(None, 'fsdp', None)
  assert specs['llm/blocks/mlp/up/lora_b'] == jax.P(None, None, 'fsdp')


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    ({'trainable': 'blocks'}, r"one of \['lora', 'all', 'parts'\]"),
    ({'fsdp': 2, 'tensor': 4}, 'mesh.tensor is 4'),
    (
      {'lora': LoRAConfig(targets=('llm/blocks/attn/query',))},
      'match no linear layer',
    ),
    # They could be trained, but not be written as PEFT names them.
    (
      {'lora': LoRAConfig(targets=(*TARGETS, 'vision_tower/blocks/mlp/up'))},
      'lora.targets: vision_tower/blocks/mlp/up are not part of the '
      'language model',
    ),
    (
      {'adapters': (Adapter(pathlib.Path('liftA'), 1.0, {}),)},
      'model.adapter is liftA: new adapters cannot be trained on top',
    ),
  ],
)
def test_what_cannot_train(changes, message):
  with pytest.raises(UserError, match=message):
    setup_of(CONFIG, **changes)


def test_adapters_may_be_added_and_all_trained():
  adapter = Adapter(pathlib.Path('liftA'), 1.0, {})
  assert setup_of(CONFIG, 'all', adapters=(adapter,)).trainable == 'all'


def test_step_flops():
  """Of two sequences with 8 frames each, for VILA-1.5 13b."""
  num_tokens, num_answer = 8 * 196 + 384, 100
  vision = flops.vision_flops(VILA_1_5_13B, 8)
  decoder = decoder_flops(VILA_1_5_13B.llm, num_tokens, num_answer)
  attention = 40 * 2 * num_tokens**2 * 5120
  batch = CriticBatch(
    frames=jax.ShapeDtypeStruct((2, 8, 384, 384, 3), np.uint8),
    tokens=jax.ShapeDtypeStruct((2, num_tokens), np.int32),
    is_target=None,
    segment_ids=None,
    weight=None,
  )
  vila = VilaCritic(pathlib.Path(), VILA_1_5_13B)

  def training(trainable, parts=LIFT_PARTS):
    train = dataclasses.replace(TRAIN, trainable=trainable)
    chosen = critic_parts.chosen(train, parts)
    return critic.step_flops(vila, chosen, batch, num_answer) / 2

  assert training('all') == pytest.approx(3 * (vision + decoder))
  # Nothing goes back through the tower; frozen kernels have no gradient, but
  # both factors of attention's products do.
  assert training('lora') == pytest.approx(
    vision + 2 * (decoder - attention) + 3 * attention
  )
  # Back through a tower with adapters, but none of its kernels.
  full, adapted = PartConfig('full'), PartConfig('lora')
  assert training('parts', PartsConfig(full, full, adapted)) == pytest.approx(
    2 * vision + 3 * decoder
  )


@pytest.mark.fast
@pytest.mark.parametrize(
  ('unit_size', 'expected'), [(1, [16, 22, 22]), (2, [16, 20, 20])]
)
def test_buckets(unit_size, expected):
  """Sequences of VILA-1.5 13b: shorter ones have larger batches."""
  vila = VilaCritic(pathlib.Path(), VILA_1_5_13B)
  frames = first_frames(8)
  lengths = [8 * 196 + num_text for num_text in (1152, 384, 256)]
  buckets = critic.make_buckets(
    vila,
    dataclasses.replace(TRAIN, batch_by='cost'),
    critic_parts.chosen(TRAIN, LIFT_PARTS),
    {length: critic.Sequences(frames, length, 2.5, 0.1) for length in lengths},
    100,
    16,
    2,
    unit_size,
  )
  assert [steps.batch_size for steps in buckets.values()] == expected
  for steps in buckets.values():
    assert (steps.num_examples, steps.padding) == (2.5, 0.1)
  batch = CriticBatch(
    frames=jax.ShapeDtypeStruct((1, 8, 384, 384, 3), np.uint8),
    tokens=jax.ShapeDtypeStruct((1, lengths[0]), np.int32),
    is_target=None,
    segment_ids=None,
    weight=None,
  )
  parts = critic_parts.chosen(TRAIN, LIFT_PARTS)
  longest = buckets[lengths[0]]
  assert longest.cost == critic.step_flops(vila, parts, batch, 100)
  assert longest.name == f'{lengths[0]} tokens, frames 0'


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  path = tmp_path_factory.mktemp('vila') / 'vila'
  return critics.open_critic(tiny_vila.write(path, tiny_vila.shared()))


def test_first_parameters_of_parts(folder):
  """What is trained is fp32, and the rest has the compute dtype."""
  mesh = partitioning.make_mesh(partitioning.MeshConfig())
  train = dataclasses.replace(TRAIN, trainable='parts')
  full, adapted = PartConfig('full'), PartConfig('lora')
  parts = PartsConfig(adapted, full, adapted)
  setup = critic.make_setup(folder, MODEL, train, LORA, mesh, parts)
  trained, frozen = critic.load_base(
    setup, folder, 'bfloat16', jax.random.key(0)
  )
  merged = param_paths.merge(trained, frozen)
  assert jax.tree.map(lambda leaf: leaf.sharding, merged) == setup.shardings
  names = param_paths.flatten(trained)
  assert {name for name in names if not is_adapter(name)} == {
    f'projector/{name}' for name in param_paths.flatten(merged['projector'])
  }
  assert 'vision_tower/blocks/mlp/up/lora_b' in names
  assert {leaf.dtype.name for leaf in names.values()} == {'float32'}
  assert {leaf.dtype.name for leaf in jax.tree.leaves(frozen)} == {'bfloat16'}


def test_adapters_of_decoder_and_tower(folder, tmp_path):
  """As written and read again, they are what was trained."""
  mesh = partitioning.make_mesh(partitioning.MeshConfig(), jax.devices()[:1])
  train = dataclasses.replace(TRAIN, trainable='parts')
  adapted = PartConfig('lora')
  parts = PartsConfig(adapted, vision_tower=adapted)
  setup = critic.make_setup(folder, MODEL, train, LORA, mesh, parts)
  trained, frozen = critic.load_base(
    setup, folder, 'float32', jax.random.key(0)
  )
  rng = np.random.default_rng(0)
  trained = jax.tree.map(
    lambda x: jax.numpy.asarray(rng.normal(size=x.shape), x.dtype), trained
  )
  folder.write_adapter(tmp_path / 'export', trained, LORA, 'float32')
  again = critics.open_critic(
    folder.path, [AdapterConfig(str(tmp_path / 'export'))]
  )
  plain = functional(folder.build())
  shardings = partitioning.param_shardings(
    folder.rules, plain.abstract_params, mesh
  )
  found = again.load(plain, shardings, np.float32)
  expected = adapters.merged_trained(
    param_paths.merge(trained, frozen), LORA.scale, 'float32'
  )
  base = folder.load(plain, shardings, np.float32)
  changed = set()
  for name, leaf in param_paths.flatten(found).items():
    wanted = param_paths.flatten(expected)[name]
    np.testing.assert_allclose(leaf, wanted, rtol=1e-5, atol=1e-5)
    if not np.array_equal(leaf, param_paths.flatten(base)[name]):
      changed.add(name)
  assert 'vision_tower/blocks/attn/to_k/kernel' in changed
  assert 'llm/blocks/mlp/down/kernel' in changed
  assert not any(name.startswith('projector/') for name in changed)


@pytest.mark.parametrize('trainable', ['lora', 'all'])
def test_first_parameters(folder, trainable):
  """Trainable parameters are fp32; with LoRA the base has the compute dtype."""
  mesh = partitioning.make_mesh(partitioning.MeshConfig(tensor=2))
  train = dataclasses.replace(TRAIN, trainable=trainable)
  setup = critic.make_setup(folder, MODEL, train, LORA, mesh)
  trained, frozen = critic.load_base(
    setup, folder, 'bfloat16', jax.random.key(0)
  )
  merged = param_paths.merge(trained, frozen)
  assert jax.tree.map(lambda leaf: leaf.sharding, merged) == setup.shardings
  assert {leaf.dtype.name for leaf in jax.tree.leaves(trained)} == {'float32'}
  table = tiny_vila.shared().llm.get_input_embeddings().weight.detach().numpy()
  ours = merged['llm']['token_embedding']['embedding']
  np.testing.assert_array_equal(ours, table.astype(ours.dtype))
  if trainable == 'all':
    assert frozen == {}
    return
  assert {leaf.dtype.name for leaf in jax.tree.leaves(frozen)} == {'bfloat16'}
  for name, leaf in param_paths.flatten(trained).items():
    assert is_adapter(name)
    assert np.any(leaf) == name.endswith('/lora_a'), name


def example(video='a.mp4', is_real=False, token=5, num_frames=8):
  record = HRARecord(
    video, pathlib.Path('/data') / video, 'A cat.', ' Why?', 'motion', 'Good',
    'Fine.', 'hra.json', 'record 0',
  )  # fmt: skip
  return Example(
    record=record,
    is_real=is_real,
    clip=ClipInfo(num_frames, 8.0, 32, 32),
    selection=first_frames(num_frames),
    tokens=np.array([1, token, 7], np.int32),
    is_target=np.array([False, True, True]),
    length=400,
  )


def fingerprint(
  folder, examples, model=MODEL, train=TRAIN, lora=LORA, data=DATA
):
  return critic.fingerprint(folder, model, train, lora, examples, data, 8)


def test_fingerprint_of_a_run(folder):
  one = fingerprint(folder, [example(), example('b.mp4')])
  assert fingerprint(folder, [example(), example('b.mp4')]) == one
  others = [
    fingerprint(folder, [example()]),
    fingerprint(folder, [example('b.mp4'), example()]),
    fingerprint(folder, [example(), example('b.mp4', is_real=True)]),
    fingerprint(folder, [example(), example('b.mp4', token=6)]),
    fingerprint(folder, [example(), example('b.mp4', num_frames=7)]),
  ]
  for other in others:
    assert {key for key in one if one[key] != other[key]} == {'data'}
  for changes, keys in (
    ({'lora': dataclasses.replace(LORA, rank=8)}, {'lora'}),
    (
      {'train': dataclasses.replace(TRAIN, trainable='all')},
      {'trainable', 'lora'},
    ),
    ({'train': dataclasses.replace(TRAIN, ema_decay=0.5)}, {'has_ema'}),
    ({'model': dataclasses.replace(MODEL, template='hermes-2')}, {'template'}),
    # Length and dtype may change between runs.
    ({'train': dataclasses.replace(TRAIN, steps=7)}, set()),
    ({'model': dataclasses.replace(MODEL, compute_dtype='float32')}, set()),
  ):
    other = fingerprint(folder, [example(), example('b.mp4')], **changes)
    assert {key for key in one if one[key] != other[key]} == keys
  losses = LossConfig(pair=1.0)
  units = [Unit((0, 1), (1.0, 0.0, 0.0))]
  paired = critic.fingerprint(
    folder, MODEL, TRAIN, LORA, [example(), example('b.mp4')], DATA, 8,
    losses=losses, units=units,
  )  # fmt: skip
  assert {key for key in paired if one.get(key) != paired[key]} == {
    'data',
    'losses',
  }
  # Settings of adapters that are not trained do not count.
  whole = dataclasses.replace(TRAIN, trainable='all')
  assert fingerprint(folder, [example()], train=whole) == fingerprint(
    folder, [example()], train=whole, lora=dataclasses.replace(LORA, rank=8)
  )
