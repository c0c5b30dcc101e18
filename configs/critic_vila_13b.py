"""LiFT-Critic 13b: LoRA on the language model of VILA-1.5 13b.

Settings of the released training script (LiFT-Critic/train) and of the paper
(arXiv 2412.04814): rank 128, alpha 256 on every linear layer of the decoder but
the head, vision tower and projector frozen, 8 frames, AdamW at 1e-5 with a
cosine schedule after 3% of warm-up, no weight decay, 16 examples per chip, 20
epochs. The script differs from this in two ways: it has 25 epochs, and
lora.dropout is 0.05. Set warmup_steps to 3% of the number of steps, which is
logged at the start.

  lift train_critic --config=configs/critic_vila_13b.py --workdir=DIR \
    --config.model.path=VILA1.5-13b --config.data.root=FOLDER
"""

from ml_collections import config_dict

from lift_jax import config_lib
from lift_jax.models import tiny


def get_config(arg: str | None = None) -> config_dict.ConfigDict:
  """`:smoke` shrinks critic, clips and steps of the recipe.

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
    'template': 'vicuna_v1',
    'compute_dtype': 'bfloat16',
    'attention': 'auto',
    'random': None,  # requires a published model
    'published': 'VILA1.5-13b',
  }
  config.data = {
    'root': '',
    'hra': ('LiFT-HRA/LiFT-HRA-data.json',),
    'real': ('VIDGEN/vidgen-data.json',),
    'held_out': (),
    'pairs': (),
    'rated_pairs': True,
    'questions': '',
    'on_bad_record': 'error',
    'follow_links': 'hub',
    'skip_flagged': (),
    'max_undecodable': 0.2,
    # The paper holds out about 1,000 answers.
    'split': {
      'validation': 0.05,
      'test': 0.05,
      'seed': 0,
      'by_content': False,
    },
    'real_share': config_dict.placeholder(float),
    'with_rationale': True,
    'label_weight': 'none',
    'text_buckets': (256, 384, 640),
    'num_threads': 16,
  }
  config.toy_clips = 0
  config.mesh = {'data': 1, 'fsdp': -1, 'context': 1, 'tensor': 1}
  config.train = {
    'steps': config_dict.placeholder(int),
    'epochs': 20.0,
    'batch_size': config_dict.placeholder(int),
    'batch_per_device': 16,
    # Each micro-batch gathers the frozen weights again; 4 fit on a v5e, 1 on
    # 80 GB.
    'batch_by': 'clips',
    'grad_accum': 4,
    'seed': 0,
    'trainable': 'lora',
    'remat': 'full',
    'ema_decay': 0.0,
    'log_every': 10,
    'wandb_project': '',
    'profile': '',
    'export': True,
    'export_dtype': 'bfloat16',
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
    'overall': 0.0,
    'normalize_overall': True,
    'theta': 5.0,
    'pair_scale': 10.0,
  }
  config.lora = {
    'rank': 128,
    'alpha': 256.0,
    'targets': (
      'llm/blocks/attn/to_(q|k|v|out)',
      'llm/blocks/mlp/(gate|up|down)',
    ),
    'dropout': 0.0,
  }
  config.optimizer = {
    'learning_rate': 1e-5,
    'warmup_steps': 50,
    'cycles': 1,
    'beta1': 0.9,
    'beta2': 0.999,
    'eps': 1e-8,
    'weight_decay': 0.0,
    'clip_norm': 1.0,
  }
  config.checkpoint = {'every_steps': 200, 'keep': 3}
  config.validation = {'every_steps': 200}
  if variant.smoke:
    _shrink(config)
  if variant.steps is not None:
    config.train.steps = variant.steps
  return config


def _shrink(config: config_dict.ConfigDict) -> None:
  """Uses a random critic of two layers and clips of the toy world."""
  config.model.random = tiny.critic()
  config.data.hra = ('hra.json',)
  config.data.real = ()
  config.data.split.validation = 0.2
  config.data.split.test = 0.2
  config.data.text_buckets = (384,)
  config.data.num_threads = 2
  config.toy_clips = 20
  config.train.steps = 4
  config.train.batch_size = 8
  config.train.grad_accum = 1
  config.train.log_every = 2
  config.lora.rank = 4
  config.lora.alpha = 8.0
  config.optimizer.warmup_steps = 2
  config.checkpoint.every_steps = 2
  config.validation.every_steps = 2
