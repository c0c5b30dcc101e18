"""Reward-weighted fine-tuning of a tiny, randomly initialised CogVideoX.

Runs every part of the pipeline within minutes on a CPU. Without data.root it
uses scored clips of the toy world; with it, it reads alignment.json there:

  lift align --config=configs/align_sample.py --workdir=runs/sample \
    --config.data.root=FOLDER
"""

from ml_collections import config_dict

from lift_jax import config_lib
from lift_jax.models import tiny


def get_config(arg: str | None = None) -> config_dict.ConfigDict:
  """`:smoke` shrinks clips and steps to about a minute on two slow cores.

  `:steps=N` trains for N steps.
  """
  variant = config_lib.parse_arg(arg, smoke=bool, steps=int)
  is_smoke = variant.smoke
  config = config_dict.ConfigDict()

  config.model = {
    'path': '',
    'adapter': '',
    'adapter_scale': 1.0,
    'adapter_alpha': config_dict.placeholder(float),
    'adapters': (),
    'compute_dtype': 'float32',
    'attention': 'auto',
    'random': tiny.video_model(),
  }
  config.data = {
    'root': '',
    'synthetic': ('alignment.json',),
    'real': (),
    'pairs': (),
    'on_bad_record': 'error',
    'follow_links': 'hub',
    'cache': '',
    'sizes': ((48, 64),) if is_smoke else ((96, 160),),
    'max_frames': 9 if is_smoke else 49,
    'fps': config_dict.placeholder(float),
    'resize': 'crop',
    'skip_flagged': (),
    'max_undecodable': 0.2,
  }
  config.toy_clips = 8
  config.prepare = {
    'batch_per_device': 2,
    'records_per_shard': 4,
    'num_threads': 2,
    'compute_dtype': 'float32',
    'keep_dtype': 'float32',
    'tiling': True,
    'verify': False,
  }
  config.mesh = {'data': 1, 'fsdp': -1, 'context': 1, 'tensor': 1}
  config.train = {
    'steps': 8 if is_smoke else 40,
    'epochs': config_dict.placeholder(float),
    'batch_size': 8,
    'batch_per_device': config_dict.placeholder(int),
    'batch_by': 'clips',
    'grad_accum': 1,
    'seed': 0,
    'trainable': 'blocks',
    'remat': 'none',
    'caption_dropout': 0.0,
    'ema_decay': 0.0,
    'log_every': 2,
    'num_threads': 2,
    'wandb_project': '',
    'profile': '',
    'export': True,
    'export_dtype': 'float32',
  }
  config.objective = {
    'name': 'reward_weighted',
    'anchor_weight': 0.0,
    'drift_window': 100,
    'sft': {},
    'rejection': {'min_reward': 0.9},
    'reward_weighted': {'real_weight': 1.0},
    'dpo': {
      'beta': 500.0,
      'convention': 'half',
      'form': 'sigmoid',
      'sft_weight': 0.0,
      'real_weight': 0.0,
    },
    'kto': {
      'beta': 500.0,
      'min_reward': 0.6,
      'desirable_weight': 1.0,
      'undesirable_weight': 1.0,
      'real_weight': 0.0,
    },
    'nft': {'beta': 0.1, 'scale': 5.0},
  }
  # Which clips of a prompt dpo compares.
  config.pairs = {
    'every_dimension': True,
    'min_gap': 0.01,
    'drop_share': 0.0,
    'min_motion': 0.001,
    'per_prompt': 1,
    'held_out': 0.0,
    'held_out_every_steps': 4,
  }
  config.lora = {
    'rank': 8,
    'alpha': 8.0,
    'targets': ('blocks/attn/to_(q|k|v|out)',),
  }
  config.optimizer = {
    'learning_rate': 1e-3,
    'warmup_steps': 2,
    'cycles': 1,
    'beta1': 0.9,
    'beta2': 0.95,
    'eps': 1e-8,
    'weight_decay': 1e-4,
    'clip_norm': 1.0,
  }
  config.checkpoint = {'every_steps': 4 if is_smoke else 20, 'keep': 2}
  height, width = config.data.sizes[0]
  config.validation = {
    'every_steps': 4 if is_smoke else 20,
    'prompts': ('a red disc moves to the right', 'a blue square'),
    'negative': '',
    'seed': 0,
    'fps': 8.0,
    'compare_to': '',
    'draws': 4,
    'critic': None,
    'video': {
      'height': height,
      'width': width,
      'num_frames': config.data.max_frames,
      'tiling': True,
    },
    'sampler': {
      'name': 'dpm',
      'num_steps': 4 if is_smoke else 20,
      'guidance_scale': 6.0,
      'dynamic_guidance': 'step',
      'reference': False,
      'carry_dtype': 'float32',
    },
  }
  if variant.steps is not None:
    config.train.steps = variant.steps
  return config
