"""LiFT's recipe for CogVideoX-5B, which the paper did not fine-tune.

The settings are those of align_cogvideox_2b.py except for memory: the fp32
parameters, gradients and moments of 5.6 billion parameters take 83 GiB over all
chips, so each chip processes its eight videos one at a time.

  lift align --config=configs/align_cogvideox_5b.py --workdir=DIR \
    --config.model.path=FOLDER --config.data.root=FOLDER
"""

from ml_collections import config_dict

from lift_jax import config_lib

base = config_lib.load_beside(__file__, 'align_cogvideox_2b.py')


def get_config(arg: str | None = None) -> config_dict.ConfigDict:
  """The 2B config with the changes for 5B; takes the same variants."""
  config = base.get_config(arg)
  config.model.published = 'CogVideoX-5b'
  config.train.grad_accum = 8
  if config.model.random is not None:
    config.model.random.transformer.use_rotary = True
    config.model.random.vae.scaling_factor = 0.7
    config.model.random.schedule.snr_shift_scale = 1.0
  return config
