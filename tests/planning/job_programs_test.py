"""Programs of jobs, traced but not compiled."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from lift_jax import config_lib, partitioning
from lift_jax.cli import job_flags
from lift_jax.errors import UserError
from lift_jax.jobs.align_config import AlignConfig
from lift_jax.jobs.score import ScoreConfig
from lift_jax.jobs.train_critic import TrainCriticConfig
from lift_jax.planning import job_programs
from lift_jax.planning.memory import Memory
from tests.jobs import jobs


def _lowered(**settings):
  """The program of `lift score`."""
  path = jobs.REPOSITORY / 'configs' / 'score.py'
  source = config_lib.load_module(path).get_config('smoke')
  source.update_from_flattened_dict(settings)
  config = config_lib.resolve(source, ScoreConfig)
  (program,) = job_programs.score(config, jax.devices()[:1])
  return program.lower()


def _arguments(lowered):
  """Their shapes."""
  return jax.tree.leaves(lowered.args_info)


def _size(arguments, dtype):
  return sum(
    np.prod(leaf.shape) for leaf in arguments if leaf.dtype == jnp.dtype(dtype)
  )


def test_score_with_int8():
  """Kernels of the language model take a quarter of their fp32 bytes."""
  pytest.importorskip('qwix')
  plain = _arguments(_lowered())
  lowered = _lowered(**{'run.quantize': 'int8'})
  int8 = _arguments(lowered)
  assert _size(plain, 'int8') == 0
  kernels, scales = _size(int8, 'int8'), len(int8) - len(plain)
  assert kernels > 0.3 * _size(plain, 'float32')
  assert scales == 7
  saved = _size(plain, 'float32') - _size(int8, 'float32')
  assert 0.9 * kernels < saved < kernels
  # The compiled program takes them as they are.
  memory = Memory.of(lowered.compile())
  num_bytes = sum(np.prod(x.shape) * x.dtype.itemsize for x in int8)
  assert memory.arguments == pytest.approx(num_bytes, rel=0.01)


def _align(*settings):
  """Programs of `lift align`, not even traced."""
  config, _ = job_flags.read_config(
    f'{jobs.CONFIG}:smoke',
    [f'--config.{setting}' for setting in settings],
    AlignConfig,
  )
  return job_programs.align(config, jax.devices()[:2])


_SIZES = (
  'data.sizes=((48,64),(32,32))',
  'data.max_frames=12',
  'model.random.transformer.max_text_length=16',
)


@pytest.mark.fast
@pytest.mark.parametrize(('batch_by', 'size'), [('clips', 8), ('cost', 14)])
def test_align_on_each_size(batch_by, size):
  """Of clips as long as they may be: 12 frames are cut to 9, or 3 latents."""
  small, large = _align(*_SIZES, f'train.batch_by={batch_by}')
  assert large.name == 'training step on latents 3x6x8'
  assert small.name == 'training step on latents 3x4x4'
  assert (large.num_videos, small.num_videos) == (8, size)
  assert (small.model_flops < 0.6 * large.model_flops) == (batch_by == 'clips')
  assert small.kernel_flops < large.kernel_flops


@pytest.mark.fast
def test_align_on_each_bucket_of_a_cache(tmp_path, monkeypatch):
  """Its lengths are not those of the config, and neither is what is planned."""
  buckets = {(3, 6, 8): 40, (1, 6, 8): 2}
  seen = []
  monkeypatch.setattr(
    job_programs.cache, 'num_clips', lambda path: seen.append(path) or buckets
  )
  short, long = _align(f'data.cache={tmp_path}', 'train.batch_by=cost', *_SIZES)
  assert seen == [tmp_path]
  assert [p.name[-5:] for p in (short, long)] == ['1x6x8', '3x6x8']
  assert long.num_videos == 8 < short.num_videos
  assert 0.8 < short.model_flops / long.model_flops <= 1


@pytest.mark.fast
def test_train_critic_on_each_length():
  path = jobs.REPOSITORY / 'configs' / 'critic_tiny.py'
  source = config_lib.load_module(path).get_config()
  source.update_from_flattened_dict(
    {'train.batch_by': 'cost', 'data.text_buckets': (64, 512)}
  )
  config = config_lib.resolve(source, TrainCriticConfig)
  short, long = job_programs.train_critic(config, jax.devices()[:2])
  batch_size = config.train.batch_size
  assert long.num_videos == batch_size < short.num_videos
  assert 0.5 < short.model_flops / long.model_flops <= 1
  assert 'tokens' in short.name


def test_score_with_other_frames():
  lowered = _lowered(**{'frames.num_frames': 3})
  shapes = {leaf.shape for leaf in _arguments(lowered)}
  assert any(len(shape) == 5 and shape[1] == 3 for shape in shapes)


def _critic_config(**settings):
  path = jobs.REPOSITORY / 'configs' / 'critic_tiny.py'
  source = config_lib.load_module(path).get_config('smoke')
  source.update_from_flattened_dict(
    {
      'data.pairs': ('pairs.json',),
      'data.text_buckets': (224,),
      'losses.label': 1.0,
      'losses.pair': 1.0,
      'losses.overall': 1.0,
      'train.batch_size': 24,
      'train.grad_accum': 2,
    }
    | settings
  )
  return config_lib.resolve(source, TrainCriticConfig)


def test_losses_of_a_critic():
  """All of the config, of clips that lie side by side, and with dropout."""
  config = _critic_config(**{'lora.dropout': 0.1, 'train.trainable': 'lora'})
  (program,) = job_programs.train_critic(config, jax.devices()[:2])
  lowered = program.lower()
  _, _, batch = lowered.args_info[0]
  assert batch.ratings.shares.shape == (24, 3)
  assert (
    batch.ratings.preference.shape == batch.ratings.overall.shape == (24, 3)
  )
  _, metrics = lowered.out_info
  assert {'soft_label_loss', 'sum/pair_loss', 'sum/overall_loss'} < {*metrics}
  # Bits of the masks of dropped inputs.
  assert 'threefry' in lowered.as_text()
  plain = _critic_config(**{'losses.pair': 0.0, 'train.trainable': 'lora'})
  (program,) = job_programs.train_critic(plain, jax.devices()[:2])
  text = program.lower().as_text()
  assert 'threefry' not in text


def test_losses_that_need_another_batch():
  """A device must have all dimensions of two clips at a time."""
  config = _critic_config(**{'train.batch_size': 16})
  with pytest.raises(UserError, match='on 4 examples .* a multiple of 6'):
    job_programs.train_critic(config, jax.devices()[:2])
  config = _critic_config(**{'train.batch_size': 16, 'losses.overall': 0.0})
  assert job_programs.train_critic(config, jax.devices()[:2])


@pytest.mark.fast
@pytest.mark.parametrize(
  ('overall', 'expected'),
  [
    # Already the two clips in all three dimensions.
    (1.0, []),
    (0.0, ['train.grad_accum=6: a device works on 6 rows at a time']),
  ],
)
def test_parts_of_a_batch_keep_pairs(overall, expected):
  config = _critic_config(**{'losses.overall': overall})
  mesh = partitioning.make_mesh(config.mesh, jax.devices()[:2])
  knobs = job_programs.knobs('train_critic', config, mesh)
  assert [k for k in knobs if k.startswith('train.grad_accum')] == expected
