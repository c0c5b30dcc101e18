"""Scoring videos with LiFT-Critic 13b.

  lift score --config=configs/score.py --workdir=DIR \
    --config.model.path=VILA1.5-13b \
    --config.model.adapter=LiFT-Critic-13b-lora \
    --config.prompts.questions=prompts.json \
    --config.videos.root=FOLDER --config.videos.files='("test.json",)'

prompts.json contains the questions that this critic was trained on, as
{"questions": {"semantic consistency": " ...", ...}}; a critic trained with lift
has them in its own folder. For videos of `lift sample` use their manifest:
videos.root=WORKDIR, videos.files='("manifest.jsonl",)'.
"""

from ml_collections import config_dict

from lift_jax import config_lib
from lift_jax.models import tiny


def get_config(arg: str | None = None) -> config_dict.ConfigDict:
  """`:smoke` rates clips of the toy world with a tiny critic.

  Its weights are random unless model.path names a model, such as one of
  configs/critic_tiny.py. A random critic gives no label at the start of an
  answer, so records have errors instead of scores.
  """
  is_smoke = config_lib.parse_arg(arg, smoke=bool).smoke
  config = config_dict.ConfigDict()

  config.model = {
    'path': '',
    'adapter': '',
    'adapter_scale': 1.0,
    'adapter_alpha': config_dict.placeholder(float),
    'adapters': (),
    'template': '',  # of the critic's training
    'compute_dtype': 'float32' if is_smoke else 'bfloat16',
    'attention': 'auto',
    'random': tiny.critic() if is_smoke else None,
    'published': 'VILA1.5-13b',
  }
  config.videos = {
    'root': '',
    'files': (),
    'on_bad_record': 'error',
    'follow_links': 'hub',
    'skip_flagged': (),
    'max_undecodable': 0.2,
  }
  config.toy_clips = 8 if is_smoke else 0
  config.prompts = {
    'questions': '',
    'text_buckets': (256,) if is_smoke else (192, 320, 512),
    'max_answer_tokens': 0,
  }
  config.reward = {
    'good': 0.9,
    'normal': 0.2,
    'bad': 0.05,
    'kind': 'labels',
    'decimals': 2,
  }
  # Of the devices of each host.
  config.mesh = {'data': -1, 'fsdp': 1, 'context': 1, 'tensor': 1}
  config.run = {
    'batch_per_shard': 4,
    'num_readers': 2 if is_smoke else 16,
    'read_ahead': 2,
    'quantize': 'none',
  }
  # None keeps what the critic's folder says.
  config.frames = {
    'num_frames': config_dict.placeholder(int),
    'fps': config_dict.placeholder(float),
    'min_pixels': config_dict.placeholder(int),
    'max_pixels': config_dict.placeholder(int),
  }
  return config
