"""Sampling from CogVideoX-2B at full size, as LiFT does.

49 frames at 480 x 720, 50 steps of the stochastic DPM solver with the published
dynamic guidance, in bfloat16. The authors of CogVideoX recommend that for 5B,
and for 2B sampler.name = ddim with sampler.dynamic_guidance = none.

  lift sample --config=configs/sample.py --workdir=DIR \
    --config.model.path=FOLDER --config.prompts.file=FILE

For VBench, `lift compare prompts` writes the prompts, with the number of clips
and the seed of each; it finds clips by the short form of their prompt:

    --config.prompts.file=PROMPTS.json --config.output.name='{prompt}-{index}'

`lift calibrate` with the same settings measures which steps may be skipped, for
sampler.cache.
"""

import pathlib

from ml_collections import config_dict

from lift_jax import config_lib
from lift_jax.models import tiny

PROMPTS = pathlib.Path(__file__).resolve().parents[1] / 'data' / 'prompts'


def get_config(arg: str | None = None) -> config_dict.ConfigDict:
  """`:smoke` samples small clips, of noise, from a tiny random model."""
  is_smoke = config_lib.parse_arg(arg, smoke=bool).smoke
  config = config_dict.ConfigDict()

  config.model = {
    'path': '',
    'adapter': '',
    'adapter_scale': 1.0,
    'adapter_alpha': config_dict.placeholder(float),
    'adapters': (),
    'compute_dtype': 'float32' if is_smoke else 'bfloat16',
    'attention': 'auto',
    'random': tiny.video_model() if is_smoke else None,
    'published': 'CogVideoX-2b',
  }
  config.prompts = {
    'file': str(PROMPTS / 'demo.txt'),
    'text_key': '',
    'name_key': '',
    'negative': '',
    'videos_per_prompt': 1,
    'seed': 0,
    'same_name': 'error',
    'initial_noise': '',
    'root': '',
  }
  config.video = {
    'height': 48 if is_smoke else 480,
    'width': 64 if is_smoke else 720,
    'num_frames': 9 if is_smoke else 49,
    'tiling': True,
  }
  config.sampler = {
    'name': 'dpm',
    'num_steps': 4 if is_smoke else 50,
    'guidance_scale': 6.0,
    'dynamic_guidance': 'timestep',
    'reference': False,
    'carry_dtype': 'float32',
    'guidance_range': (),
    'cache': 'none',
    'cache_curve': '',
    'cache_threshold': 0.06,
    'cache_max_skips': 3,
    'cache_retention': 0.2,
  }
  # Of the devices of each host.
  config.mesh = {'data': -1, 'fsdp': 1, 'context': 1, 'tensor': 1}
  config.run = {
    'batch_per_shard': 2 if is_smoke else 1,
    'batches_per_round': 2 if is_smoke else 4,
    'offload': True,
    'num_writers': 2 if is_smoke else 8,
    'verify': False,
  }
  config.output = {
    'name': '{id}-{index}',
    'fps': 8.0,
    'crf': 18,
    'keep_latents': False,
    'sheet_clips': 40,
  }
  return config
