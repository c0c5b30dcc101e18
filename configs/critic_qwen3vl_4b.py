"""A critic from Qwen3-VL-4B-Instruct, with LiFT's recipe.

LoRA on every linear layer of the decoder but the head, vision tower and mergers
frozen, clips sampled at 2 frames per second at their own size, as the files of
the model say. Settings are those of critic_vila_13b.py except for the network.

  lift train_critic --config=configs/critic_qwen3vl_4b.py --workdir=DIR \
    --config.model.path=Qwen/Qwen3-VL-4B-Instruct --config.data.root=FOLDER
"""

from ml_collections import config_dict

from lift_jax import config_lib
from lift_jax.models import tiny

base = config_lib.load_beside(__file__, 'critic_vila_13b.py')


def get_config(arg: str | None = None) -> config_dict.ConfigDict:
  """The VILA config with the changes for Qwen3-VL; takes the same variants."""
  config = base.get_config(arg)
  config.model.published = 'Qwen3-VL-4B'
  config.model.template = 'qwen3-vl'
  if config.model.random is not None:
    with config.unlocked():
      config.model.random = tiny.qwen_critic()
  return config
