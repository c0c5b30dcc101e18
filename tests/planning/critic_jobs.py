"""Configs of `lift train_critic` to plan, at the smallest size."""

from lift_jax import config_lib
from lift_jax.jobs.train_critic import TrainCriticConfig
from tests.jobs import jobs


def config_of(**settings) -> TrainCriticConfig:
  """With all losses, and settings by dotted names."""
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
