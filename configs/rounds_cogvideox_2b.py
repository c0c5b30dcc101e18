"""Three rounds of preference optimisation for CogVideoX-2B.

What is published about it: adapters of rank 64 and alpha 128 and beta 500 at a
learning rate of 5e-6 (Flow-DPO, arXiv 2501.13918); four clips of a prompt,
pairs whose winner is at least as good in every dimension, 32 pairs a step, and
500 steps with 100 of warm-up (MPO of VisionReward for this model, arXiv
2412.21059). The thresholds of the stop rules are our own: they let good runs of
the toy world pass (docs/rounds.md), so set them from your own first round.

  lift rounds --config=configs/rounds_cogvideox_2b.py --workdir=DIR \
    --config.sample.model.path=CogVideoX-2b \
    --config.sample.prompts.file=prompts.txt \
    --config.score.model.path=VILA1.5-13b \
    --config.score.model.adapter=LiFT-Critic-13b-lora \
    --config.score.prompts.questions=prompts.json
"""

from ml_collections import config_dict

from lift_jax import config_lib
from lift_jax.toyworld import feedback, weights

_sample, _score, _align, _critic = (
  config_lib.load_beside(__file__, f'{name}.py')
  for name in (
    'sample',
    'score',
    'align_cogvideox_2b_lora',
    'critic_vila_13b',
  )
)


def get_config(arg: str | None = None) -> config_dict.ConfigDict:
  """`:smoke` runs two rounds with the models of the toy world, on a few clips.

  Its results mean nothing.
  """
  is_smoke = config_lib.parse_arg(arg, smoke=bool).smoke
  config = config_dict.ConfigDict()

  config.seed = 0
  # Of all rounds together; each has an equal part.
  config.budget = {'rounds': 3, 'clips': 96_000, 'steps': 1_500}
  config.correction = {
    'share': 0.1,
    'critics': (),
    'people': '',
    'questions': '',
    'wait': False,
  }
  config.critic_training = {
    'enabled': False,
    'agreement': 'temperatures',
    'temperatures': (0.7, 1.0),
  }
  config.guards = {
    'prompts': 100,
    'clips_per_prompt': 4,
    'seed': 0,
    'critic': None,
    'draws': 4,
    'on_break': 'stop',
    'rules': {
      'held_out_falls': True,
      'max_motion_loss': 0.1,
      'max_motion_rise': 0.15,
      'max_static_rise': 0.1,
      'max_diversity_loss': 0.6,
      'max_anchor_distance': 0.04,
      'max_implicit_accuracy': 0.95,
      'max_winner_change': 0.03,
      'winner_window': 10,
      'bootstrap': {'draws': 2000, 'coverage': 0.95, 'seed': 0},
    },
  }
  config.real = {'root': '', 'files': ()}
  config.sample = _sample.get_config(arg)
  config.sample.prompts.videos_per_prompt = 4
  config.score = _score.get_config(arg)
  config.train_critic = _critic.get_config(arg)
  config.align = _align.get_config(arg)
  _use_preferences(config.align)
  if is_smoke:
    _shrink(config)
  return config


def _use_preferences(align: config_dict.ConfigDict) -> None:
  align.objective.name = 'dpo'
  with align.train.ignore_type():
    align.train.batch_size = 64  # 32 pairs
    align.train.batch_per_device = None
  align.train.grad_accum = 8
  align.lora.rank = 64
  align.lora.alpha = 128.0
  align.optimizer.learning_rate = 5e-6
  align.optimizer.warmup_steps = 100
  # The guards see more than a few videos do.
  align.validation.every_steps = 0


def _shrink(config: config_dict.ConfigDict) -> None:
  """Makes it small enough for two slow cores, with models of the package."""
  config.budget = {'rounds': 2, 'clips': 16, 'steps': 4}
  config.guards.prompts = 2
  config.guards.clips_per_prompt = 2
  config.guards.draws = 1
  config.guards.rules.bootstrap.draws = 100
  config.sample.model.path = str(weights.T2V)
  config.score.model.path = str(weights.CRITIC)
  for section in (config.score, config.train_critic):
    section.model.template = 'hermes-2'
  for section in (config.sample, config.score):
    section.model.random = None
  config.guards.critic = config.score.model.to_dict()
  video = {'height': 32, 'width': 32, 'num_frames': 9, 'tiling': False}
  config.sample.prompts.file = str(_sample.PROMPTS / 'toyworld.txt')
  config.sample.video = video
  config.sample.sampler.name = 'ddim'
  config.sample.sampler.dynamic_guidance = 'none'
  config.sample.sampler.guidance_scale = 1.0
  config.sample.run.batch_per_shard = 4
  config.score.prompts.questions = str(feedback.questions_path())
  config.score.prompts.text_buckets = (64,)
  # Labels alone may be equal.
  config.score.reward.kind = 'soft'
  config.score.reward.decimals = None
  config.train_critic.data.text_buckets = (104,)
  config.align.data.sizes = ((32, 32),)
  config.align.data.max_frames = 9
  config.align.prepare.tiling = False
  config.align.train.batch_size = 16  # a pair for each of eight devices
  config.align.train.grad_accum = 1
  config.align.lora.rank = 4
  config.align.lora.alpha = 8.0
  config.align.optimizer.warmup_steps = 1
  config.align.pairs.every_dimension = False
  config.align.pairs.min_motion = 0.0
  config.align.pairs.min_gap = 1e-6
  config.align.pairs.held_out = 0.0
  config.align.validation.video = video
