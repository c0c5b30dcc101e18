"""Steps of `lift align` and `lift train_critic`, traced but not compiled."""

import jax
import pytest

from lift_jax import config_lib
from lift_jax.cli import job_flags
from lift_jax.errors import UserError
from lift_jax.jobs.align_config import AlignConfig
from lift_jax.jobs.train_critic import TrainCriticConfig
from lift_jax.planning import training_programs
from tests.jobs import jobs
from tests.planning import critic_jobs


def _align(*settings):
  """Programs of `lift align`, not even traced."""
  config, _ = job_flags.read_config(
    f'{jobs.CONFIG}:smoke',
    [f'--config.{setting}' for setting in settings],
    AlignConfig,
  )
  return training_programs.align(config, jax.devices()[:2])


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
    training_programs.cache,
    'num_clips',
    lambda path: seen.append(path) or buckets,
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
  short, long = training_programs.train_critic(config, jax.devices()[:2])
  batch_size = config.train.batch_size
  assert long.num_videos == batch_size < short.num_videos
  assert 0.5 < short.model_flops / long.model_flops <= 1
  assert 'tokens' in short.name


def test_losses_of_a_critic():
  """All of the config, of clips that lie side by side, and with dropout."""
  config = critic_jobs.config_of(
    **{'lora.dropout': 0.1, 'train.trainable': 'lora'}
  )
  (program,) = training_programs.train_critic(config, jax.devices()[:2])
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
  plain = critic_jobs.config_of(
    **{'losses.pair': 0.0, 'train.trainable': 'lora'}
  )
  (program,) = training_programs.train_critic(plain, jax.devices()[:2])
  text = program.lower().as_text()
  assert 'threefry' not in text


def test_losses_that_need_another_batch():
  """A device must have all dimensions of two clips at a time."""
  config = critic_jobs.config_of(**{'train.batch_size': 16})
  with pytest.raises(UserError, match='on 4 examples .* a multiple of 6'):
    training_programs.train_critic(config, jax.devices()[:2])
  config = critic_jobs.config_of(
    **{'train.batch_size': 16, 'losses.overall': 0.0}
  )
  assert training_programs.train_critic(config, jax.devices()[:2])
