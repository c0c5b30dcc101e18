"""LiFT's fine-tuning of CogVideoX-2B at full size.

Settings of the released training script (LiFT, CogVideo/finetune): 49 frames at
480 x 720, 8 videos per chip, every parameter of the transformer blocks, AdamW
at 1e-5 after 200 steps of warm-up, 20 epochs. Its 60,000 clips are about 40,000
generated clips with scores and 20,000 real ones.

  lift align --config=configs/align_cogvideox_2b.py --workdir=DIR \
    --config.model.path=FOLDER --config.data.root=FOLDER
"""

from ml_collections import config_dict

from lift_jax import config_lib
from lift_jax.models import tiny


def get_config(arg: str | None = None) -> config_dict.ConfigDict:
  """`:smoke` shrinks model, clips and steps of the recipe.

  `:steps=N` trains for N steps.
  """
  variant = config_lib.parse_arg(arg, smoke=bool, steps=int)
  config = config_dict.ConfigDict()

  config.model = {
    'path': '',
    'adapter': '',
    'adapter_scale': 1.0,
    'adapter_alpha': config_dict.placeholder(float),
    'adapters': (),
    'compute_dtype': 'bfloat16',
    'attention': 'auto',
    'random': None,  # requires a published model
    'published': 'CogVideoX-2b',
  }
  config.data = {
    'root': '',
    'synthetic': ('alignment.json',),
    'real': (),
    'pairs': (),
    'on_bad_record': 'error',
    'follow_links': 'hub',
    'cache': '',
    'sizes': ((480, 720),),
    'max_frames': 49,
    'fps': config_dict.placeholder(float),
    'resize': 'crop',
    'skip_flagged': (),
    'max_undecodable': 0.2,
  }
  config.toy_clips = 0
  config.prepare = {
    'batch_per_device': 1,
    'records_per_shard': 16,
    'num_threads': 16,
    'compute_dtype': 'bfloat16',
    'keep_dtype': 'bfloat16',
    'tiling': True,
    'verify': False,
  }
  config.mesh = {'data': 1, 'fsdp': -1, 'context': 1, 'tensor': 1}
  config.train = {
    'steps': config_dict.placeholder(int),
    'epochs': 20.0,
    'batch_size': config_dict.placeholder(int),
    'batch_per_device': 8,
    'batch_by': 'clips',
    'grad_accum': 4,  # two videos per chip and micro-batch
    'seed': 42,
    'trainable': 'blocks',
    'remat': 'save_attention',
    'caption_dropout': 0.0,
    'ema_decay': 0.0,
    'log_every': 10,
    'num_threads': 16,
    'wandb_project': '',
    'profile': '',
    'export': True,
    'export_dtype': 'bfloat16',
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
    'held_out': 0.02,
    'held_out_every_steps': 100,
  }
  config.lora = {
    'rank': 128,
    'alpha': 128.0,
    'targets': ('blocks/attn/to_(q|k|v|out)',),
  }
  config.optimizer = {
    'learning_rate': 1e-5,
    'warmup_steps': 200,
    'cycles': 1,
    'beta1': 0.9,
    'beta2': 0.95,
    'eps': 1e-8,
    'weight_decay': 1e-4,
    'clip_norm': 1.0,
  }
  config.checkpoint = {'every_steps': 500, 'keep': 3}
  config.validation = {
    'every_steps': 500,
    'prompts': (
      'A red fox trots through fresh snow at dawn, its breath white in the air',
      'A potter shapes a clay bowl on a turning wheel, hands wet, soft light',
      'Waves roll onto a stony beach under a grey sky, seen from above',
      'Two children fly a yellow kite on a green hill in the wind',
    ),
    'negative': '',
    'seed': 0,
    'fps': 8.0,
    'compare_to': '',
    'draws': 4,
    'critic': None,
    'video': {'height': 480, 'width': 720, 'num_frames': 49, 'tiling': True},
    'sampler': {
      'name': 'dpm',
      'num_steps': 50,
      'guidance_scale': 6.0,
      'dynamic_guidance': 'timestep',
      'reference': False,
      'carry_dtype': 'float32',
    },
  }
  if variant.smoke:
    _shrink(config)
  if variant.steps is not None:
    config.train.steps = variant.steps
  return config


def _shrink(config: config_dict.ConfigDict) -> None:
  """Uses a random model of two layers and clips of the toy world."""
  config.model.random = tiny.video_model()
  config.toy_clips = 8
  config.data.sizes = ((48, 64),)
  config.data.max_frames = 9
  config.prepare.num_threads = 2
  config.train.steps = 6
  config.train.num_threads = 2
  config.train.log_every = 2
  config.optimizer.warmup_steps = 2
  config.checkpoint.every_steps = 3
  config.validation.every_steps = 3
  config.validation.prompts = config.validation.prompts[:1]
  config.validation.video.update(height=48, width=64, num_frames=9)
  config.validation.sampler.num_steps = 2
