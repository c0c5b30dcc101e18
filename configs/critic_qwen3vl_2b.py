"""A critic from Qwen3-VL-2B-Instruct; otherwise as critic_qwen3vl_4b.py.

  lift train_critic --config=configs/critic_qwen3vl_2b.py --workdir=DIR \
    --config.model.path=Qwen/Qwen3-VL-2B-Instruct --config.data.root=FOLDER
"""

from ml_collections import config_dict

from lift_jax import config_lib

base = config_lib.load_beside(__file__, 'critic_qwen3vl_4b.py')


def get_config(arg: str | None = None) -> config_dict.ConfigDict:
  """The 4B config for 2B; takes the same variants."""
  config = base.get_config(arg)
  config.model.published = 'Qwen3-VL-2B'
  return config
