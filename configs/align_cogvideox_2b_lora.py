"""LoRA adapters for CogVideoX-2B by LiFT's recipe, which trains whole blocks.

Adapters of rank 128 on the attention's projections, as the section `lora` of
align_cogvideox_2b.py says. The authors of CogVideoX advise learning rates from
1e-4 to 1e-3 for LoRA (zai-org/CogVideo, issue 116); at 5e-4 and 10 epochs
others saw blur (issue 458), so it is the lowest.

  lift align --config=configs/align_cogvideox_2b_lora.py --workdir=DIR \
    --config.model.path=FOLDER --config.data.root=FOLDER
"""

from ml_collections import config_dict

from lift_jax import config_lib

base = config_lib.load_beside(__file__, 'align_cogvideox_2b.py')


def get_config(arg: str | None = None) -> config_dict.ConfigDict:
  """That of 2B with adapters, also of its `:smoke`."""
  config = base.get_config(arg)
  config.train.trainable = 'lora'
  config.optimizer.learning_rate = 1e-4
  return config
