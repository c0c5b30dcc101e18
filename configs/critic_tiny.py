"""A tiny critic, trained from scratch on a CPU.

Without data.root it uses clips of the toy world, with ratings by simulated
annotators; with it, it reads hra.json there:

  lift train_critic --config=configs/critic_tiny.py --workdir=runs/critic \
    --config.data.root=FOLDER
"""

from ml_collections import config_dict

from lift_jax import config_lib
from lift_jax.models import tiny

base = config_lib.load_beside(__file__, 'critic_vila_13b.py')


def get_config(arg: str | None = None) -> config_dict.ConfigDict:
  """The config of LiFT-Critic for a network that two slow cores can train.

  `:smoke` shrinks data and steps to about a minute; `:qwen` is a Qwen3-VL
  instead of a VILA; `:steps=N` trains for N steps.
  """
  variant = config_lib.parse_arg(arg, smoke=bool, qwen=bool, steps=int)
  is_smoke = variant.smoke
  config = base.get_config()

  config.model.random = tiny.qwen_critic() if variant.qwen else tiny.critic()
  config.model.published = ''
  config.model.template = 'qwen3-vl' if variant.qwen else 'vicuna_v1'
  config.model.compute_dtype = 'float32'
  config.data.hra = ('hra.json',)
  config.data.real = ()
  config.data.split.validation = 0.15
  config.data.split.test = 0.15
  # Toy clips fit the first; unused buckets cost nothing.
  config.data.text_buckets = (224, 384)
  config.data.num_threads = 2
  config.toy_clips = 40 if is_smoke else 400
  config.train.steps = 20 if is_smoke else 600
  config.train.epochs = config_dict.placeholder(float)
  config.train.batch_size = 8 if is_smoke else 16
  config.train.batch_per_device = config_dict.placeholder(int)
  config.train.grad_accum = 1
  config.train.trainable = 'all'
  config.train.remat = 'none'
  config.train.log_every = 5 if is_smoke else 20
  config.train.export_dtype = 'float32'
  config.lora.rank = 8
  config.lora.alpha = 16.0
  config.optimizer.learning_rate = 1e-3
  config.optimizer.warmup_steps = 10
  config.optimizer.beta2 = 0.95
  config.checkpoint.every_steps = 10 if is_smoke else 200
  config.checkpoint.keep = 2
  config.validation.every_steps = 10 if is_smoke else 100
  if variant.steps is not None:
    config.train.steps = variant.steps
  return config
