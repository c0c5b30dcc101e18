"""LiFT's recipe for CogVideoX-2B with LoRA adapters instead of full blocks.

Adapters of rank 128 on the attention projections, as in the section `lora` of
align_cogvideox_2b.py. The authors of CogVideoX recommend learning rates from
1e-4 to 1e-3 for LoRA (zai-org/CogVideo, issue 116); with 5e-4 and 10 epochs
others saw blur (issue 458), hence the lowest.

  lift align --config=configs/align_cogvideox_2b_lora.py --workdir=DIR \
    --config.model.path=FOLDER --config.data.root=FOLDER
"""

from ml_collections import config_dict

from lift_jax import config_lib

base = config_lib.load_beside(__file__, 'align_cogvideox_2b.py')


def get_config(arg: str | None = None) -> config_dict.ConfigDict:
  """The 2B config with adapters; takes the same variants."""
  config = base.get_config(arg)
  config.train.trainable = 'lora'
  config.optimizer.learning_rate = 1e-4
  return config
