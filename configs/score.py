"""Rating videos with LiFT-Critic 13b.

  lift score --config=configs/score.py --workdir=DIR \
    --config.model.path=VILA1.5-13b \
    --config.model.adapter=LiFT-Critic-13b-lora \
    --config.prompts.questions=prompts.json \
    --config.videos.root=FOLDER --config.videos.files='("test.json",)'

prompts.json holds the questions that this critic was trained on, as
{"questions": {"semantic consistency": " ...", ...}}; those of a critic of our
own lie beside it. Videos of `lift sample` are rated from their manifest:
videos.root=WORKDIR, videos.files='("manifest.jsonl",)'.
"""

from ml_collections import config_dict

from lift_jax import config_lib
from lift_jax.models import tiny


def get_config(arg: str | None = None) -> config_dict.ConfigDict:
  """`:smoke` rates clips of the toy world with a tiny critic.

  It is random unless model.path names one, as of configs/critic_tiny.py, and so
  its answers begin with no label; the ratings say so.
  """
  is_smoke = config_lib.parse_arg(arg, smoke=bool).smoke
  config = config_dict.ConfigDict()

  config.model = {
    'path': '',
    'adapter': '',
    'template': 'vicuna_v1',
    'compute_dtype': 'float32' if is_smoke else 'bfloat16',
    'attention': 'auto',
    'random': tiny.critic() if is_smoke else None,
    'published': 'VILA1.5-13b',
  }
  config.videos = {
    'root': '',
    'files': (),
    'on_bad_record': 'error',
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
  # Of the devices of one host.
  config.mesh = {'data': -1, 'fsdp': 1, 'context': 1, 'tensor': 1}
  config.run = {
    'batch_per_shard': 4,
    'num_readers': 2 if is_smoke else 16,
    'read_ahead': 2,
  }
  return config
