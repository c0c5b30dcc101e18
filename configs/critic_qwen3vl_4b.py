"""A critic from Qwen3-VL-4B-Instruct, trained end to end.

LoRA with dropout on every linear layer of the decoder but the head and of the
vision tower, and the mergers in full. To LiFT's loss of the answers come the
distribution of labels, and pairs of clips of one prompt. Clips are sampled at 2
frames per second at their own size, as the files of the model say. Other
settings are those of critic_vila_13b.py; train.trainable = 'lora', losses.label
= 0 and losses.pair = 0 is LiFT's recipe.

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
  config.train.trainable = 'parts'
  config.parts.projector.training = 'full'
  config.parts.vision_tower.training = 'lora'
  # Adapted faster, a tower forgets what it was trained on.
  config.parts.vision_tower.learning_rate = 2e-6
  config.losses.label = 1.0
  # Data of one clip per prompt need 0.
  config.losses.pair = 1.0
  config.lora.dropout = 0.05
  if config.model.random is not None:
    with config.unlocked():
      config.model.random = tiny.qwen_critic()
    config.toy_clips = 40
  return config
