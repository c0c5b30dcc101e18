"""A tiny critic, trained from scratch on a CPU.

Without data.root it uses clips of the toy world, with ratings by simulated
annotators; with it, it reads hra.json there:

  lift train_critic --config=configs/critic_tiny.py --workdir=runs/critic \
    --config.data.root=FOLDER
"""

from ml_collections import config_dict

from lift_jax import config_lib
from lift_jax.models import tiny


def get_config(arg: str | None = None) -> config_dict.ConfigDict:
  """`:smoke` shrinks data and steps to about a minute on two slow cores.

  `:qwen` is a Qwen3-VL instead of a VILA; `:steps=N` trains for N steps.
  """
  variant = config_lib.parse_arg(arg, smoke=bool, qwen=bool, steps=int)
  is_smoke = variant.smoke
  config = config_dict.ConfigDict()

  config.model = {
    'path': '',
    'adapter': '',
    'adapter_scale': 1.0,
    'adapter_alpha': config_dict.placeholder(float),
    'adapters': (),
    'template': 'qwen3-vl' if variant.qwen else 'vicuna_v1',
    'compute_dtype': 'float32',
    'attention': 'auto',
    'random': tiny.qwen_critic() if variant.qwen else tiny.critic(),
  }
  config.data = {
    'root': '',
    'hra': ('hra.json',),
    'real': (),
    'held_out': (),
    'pairs': (),
    'rated_pairs': True,
    'questions': '',
    'on_bad_record': 'error',
    'follow_links': 'hub',
    'skip_flagged': (),
    'max_undecodable': 0.2,
    'split': {
      'validation': 0.15,
      'test': 0.15,
      'seed': 0,
      'by_content': False,
    },
    'real_share': config_dict.placeholder(float),
    'with_rationale': True,
    'label_weight': 'none',
    # Toy clips fit the first; unused buckets cost nothing.
    'text_buckets': (224, 384),
    'num_threads': 2,
  }
  config.toy_clips = 40 if is_smoke else 400
  config.mesh = {'data': 1, 'fsdp': -1, 'context': 1, 'tensor': 1}
  config.train = {
    'steps': 20 if is_smoke else 600,
    'epochs': config_dict.placeholder(float),
    'batch_size': 8 if is_smoke else 16,
    'batch_per_device': config_dict.placeholder(int),
    'batch_by': 'clips',
    'grad_accum': 1,
    'seed': 0,
    'trainable': 'all',
    'remat': 'none',
    'ema_decay': 0.0,
    'log_every': 5 if is_smoke else 20,
    'wandb_project': '',
    'profile': '',
    'export': True,
    'export_dtype': 'float32',
  }
  # Read if train.trainable is 'parts'.
  config.parts = {
    'decoder': {
      'training': 'lora',
      'learning_rate': config_dict.placeholder(float),
    },
    'projector': {
      'training': 'frozen',
      'learning_rate': config_dict.placeholder(float),
    },
    'vision_tower': {
      'training': 'frozen',
      'learning_rate': config_dict.placeholder(float),
    },
  }
  config.losses = {
    'answer': 1.0,
    'label': 0.0,
    'pair': 0.0,
    'theta': 5.0,
    'pair_scale': 10.0,
  }
  config.lora = {
    'rank': 8,
    'alpha': 16.0,
    'targets': (
      'llm/blocks/attn/to_(q|k|v|out)',
      'llm/blocks/mlp/(gate|up|down)',
    ),
    'dropout': 0.0,
  }
  config.optimizer = {
    'learning_rate': 1e-3,
    'warmup_steps': 10,
    'cycles': 1,
    'beta1': 0.9,
    'beta2': 0.95,
    'eps': 1e-8,
    'weight_decay': 0.0,
    'clip_norm': 1.0,
  }
  config.checkpoint = {'every_steps': 10 if is_smoke else 200, 'keep': 2}
  config.validation = {'every_steps': 10 if is_smoke else 100}
  if variant.steps is not None:
    config.train.steps = variant.steps
  return config
