"""LiFT's recipe for CogVideoX-5B with LoRA adapters instead of full blocks.

Rank, alpha, targets and learning rate are those that VideoGPA published for DPO
of CogVideoX-5B (github.com/Hongyang-Du/VideoGPA). At 1e-5 and above, adapters
of 5B were reported to over-saturate (zai-org/CogVideo, issue 750).

  lift align --config=configs/align_cogvideox_5b_lora.py --workdir=DIR \
    --config.model.path=FOLDER --config.data.root=FOLDER
"""

from ml_collections import config_dict

from lift_jax import config_lib

base = config_lib.load_beside(__file__, 'align_cogvideox_5b.py')


def get_config(arg: str | None = None) -> config_dict.ConfigDict:
  """The 5B config with adapters; takes the same variants."""
  config = base.get_config(arg)
  config.train.trainable = 'lora'
  config.lora.update(rank=64, alpha=128.0)  # on to_q, to_k, to_v and to_out
  config.optimizer.learning_rate = 5e-6
  return config
