"""The config of `lift demo`: the full pipeline in the toy world, on two cores.

Every stage is a job, configured by the section of its name; `lift demo` fills
in the paths, which are FILLED below, and runs the stages in sequence.

  lift demo --config=:smoke --workdir=DIR
"""

import dataclasses

from ml_collections import config_dict

from lift_jax import config_lib
from lift_jax.errors import UserError
from lift_jax.jobs import evaluate, sample, score, train_critic
from lift_jax.jobs.align_config import AlignConfig
from lift_jax.jobs.compare_config import CompareConfig
from lift_jax.toyworld import compute_dtype, dataset, scenes
from lift_jax.toyworld.pretraining import config as pretraining_config

FILLED = 'filled in by lift demo'

# Settings that several stages share.
_VIDEO_MODEL = {
  'path': FILLED,
  'adapter': '',
  'compute_dtype': 'float32',
  'attention': 'auto',
  'random': None,
}
_CRITIC = _VIDEO_MODEL | {'template': 'hermes-2'}
_VIDEO = {'height': 32, 'width': 32, 'num_frames': 9, 'tiling': False}
_SAMPLER = {
  'name': 'ddim',
  'num_steps': 20,
  'guidance_scale': 1.0,
  'dynamic_guidance': 'none',
  'reference': False,
  'carry_dtype': 'float32',
}
_MESH = {'data': -1, 'fsdp': 1, 'context': 1, 'tensor': 1}
_OPTIMIZER = {
  'learning_rate': 3e-4,
  'cycles': 1,
  'beta1': 0.9,
  'beta2': 0.95,
  'eps': 1e-8,
  'weight_decay': 0.01,
  'clip_norm': 1.0,
}


@dataclasses.dataclass(frozen=True)
class ClipsConfig:
  """The number of clips of each kind.

  Attributes:
    rated_prompts: prompts whose clips annotators rate, to train the critic on.
    scored_prompts: prompts whose clips the critic scores, to train the model
      on.
    per_prompt: clips of each of these prompts.
    real: real clips, which are drawn, not generated; 0 trains without. `dpo`
      uses them only if its real_weight is above 0.
    real_kind: 'filmed', another domain than the prompts, as at full size; or
      'clean', flawless clips of what the prompts ask for.
    held_out: prompts that nothing is trained on.
    per_held_out: clips of each of these prompts and each model.
  """

  rated_prompts: int
  scored_prompts: int
  per_prompt: int
  real: int
  real_kind: str
  held_out: int
  per_held_out: int

  def __post_init__(self):
    config_lib.check_choice(
      'clips.real_kind', self.real_kind, dataset.REAL_KINDS
    )
    for name, value in dataclasses.asdict(self).items():
      if name not in ('real', 'real_kind') and value < 1:
        raise UserError(f'clips.{name} is {value}; it must be 1 or more')
    if self.real < 0:
      raise UserError(f'clips.real is {self.real}; it must not be below 0')
    known = len(scenes.training_scenes())
    asked = self.rated_prompts + self.scored_prompts
    if asked > known:
      raise UserError(
        f'clips.rated_prompts + clips.scored_prompts is {asked}; the toy world '
        f'has {known} prompts for training'
      )
    if self.held_out > len(scenes.held_out_scenes()):
      raise UserError(
        f'clips.held_out is {self.held_out}; the toy world holds out '
        f'{len(scenes.held_out_scenes())} prompts'
      )


@dataclasses.dataclass(frozen=True)
class DemoConfig:
  """Sections of the demo: those of the jobs, and its own settings.

  Attributes:
    seed: of everything random, in every stage.
    compute_dtype: of the networks, in place of that of each stage; 'auto' is
      'bfloat16' where this machine trains faster in it, and else 'float32'.
    shown_prompts: prompts in the report, with a clip of each model.
  """

  seed: int
  compute_dtype: str
  clips: ClipsConfig
  sample: sample.SampleConfig
  train_critic: train_critic.TrainCriticConfig
  score: score.ScoreConfig
  evaluate: evaluate.EvaluateConfig
  align: AlignConfig
  compare: CompareConfig
  shown_prompts: int
  pretrain: pretraining_config.PretrainingConfig

  def __post_init__(self):
    config_lib.check_choice(
      'compute_dtype', self.compute_dtype, compute_dtype.CHOICES
    )


def get_config(arg: str | None = None) -> config_dict.ConfigDict:
  """`:smoke` runs every stage on a few clips; its results mean nothing."""
  is_smoke = config_lib.parse_arg(arg, smoke=bool).smoke
  config = config_dict.ConfigDict()

  # Of prompts, noise and the order of training.
  config.seed = 0
  config.compute_dtype = 'float32' if is_smoke else 'auto'
  config.clips = {
    'rated_prompts': 10 if is_smoke else 32,
    'scored_prompts': 4 if is_smoke else 160,
    'per_prompt': 2 if is_smoke else 4,
    'real': 4 if is_smoke else 0,
    'real_kind': 'filmed',
    'held_out': 4 if is_smoke else 182,
    'per_held_out': 1 if is_smoke else 2,
  }
  config.sample = _sample(is_smoke)
  config.train_critic = _train_critic(is_smoke)
  config.score = _score(is_smoke)
  config.evaluate = _evaluate(is_smoke)
  config.align = _align(is_smoke)
  config.compare = _compare()
  config.shown_prompts = 2 if is_smoke else 12
  config.pretrain = pretraining_config.get_config(is_smoke)
  return config


def _sample(is_smoke: bool) -> dict:
  return {
    'model': _VIDEO_MODEL,
    'prompts': {
      'file': FILLED,
      'text_key': '',
      'name_key': '',
      'negative': '',
      'videos_per_prompt': 1,
      'seed': 0,
      'same_name': 'error',
      'initial_noise': '',
    },
    'video': _VIDEO,
    'sampler': _SAMPLER,
    'mesh': _MESH,
    'run': {
      'batch_per_shard': 1 if is_smoke else 32,
      'batches_per_round': 4,
      'offload': False,
      'num_writers': 2,
    },
    'output': {
      'name': '{id}-{index}',
      'fps': 8.0,
      'crf': 12,
      'keep_latents': False,
      'sheet_clips': 40,
    },
  }


def _train_critic(is_smoke: bool) -> dict:
  """Fine-tunes the shipped critic on the ratings of annotators."""
  return {
    'model': _CRITIC,
    'data': {
      'root': FILLED,
      'hra': (FILLED,),
      'real': (),
      'held_out': (),
      'questions': FILLED,
      'on_bad_record': 'error',
      'follow_links': 'hub',
      'split': {
        'validation': 0.5 if is_smoke else 0.2,
        'test': 0.0,
        'seed': 0,
        'by_content': False,
      },
      'real_share': config_dict.placeholder(float),
      'with_rationale': True,
      'label_weight': 'none',
      'text_buckets': (104,),
      'num_threads': 2,
    },
    'toy_clips': 0,
    'mesh': _MESH,
    'train': {
      'steps': 4 if is_smoke else 80,
      'epochs': config_dict.placeholder(float),
      'batch_size': 8 if is_smoke else 32,
      'batch_per_device': config_dict.placeholder(int),
      'grad_accum': 1,
      'seed': 0,
      'trainable': 'all',
      'remat': 'none',
      'ema_decay': 0.0,
      'log_every': 10,
      'wandb_project': '',
      'profile': '',
      'export': True,
      'export_dtype': 'float32',
    },
    'lora': {
      'rank': 8,
      'alpha': 16.0,
      'targets': ('llm/blocks/attn/to_(q|k|v|out)',),
    },
    'optimizer': _OPTIMIZER | {'warmup_steps': 10},
    'checkpoint': {'every_steps': 40, 'keep': 1},
    'validation': {'every_steps': 40},
  }


def _score(is_smoke: bool) -> dict:
  return {
    'model': _CRITIC,
    'videos': {
      'root': FILLED,
      'files': (FILLED,),
      'on_bad_record': 'error',
      'follow_links': 'hub',
    },
    'toy_clips': 0,
    'prompts': {
      'questions': '',
      'text_buckets': (64,),
      'max_answer_tokens': 0,
    },
    'reward': {
      'good': 0.9,
      'normal': 0.2,
      'bad': 0.05,
      # Clips with equal labels can still be compared.
      'kind': 'soft',
      'decimals': 6,
    },
    'mesh': _MESH,
    'run': {
      'batch_per_shard': 1 if is_smoke else 16,
      'num_readers': 2,
      'read_ahead': 2,
    },
  }


def _evaluate(is_smoke: bool) -> dict:
  """Evaluation of the critic, on clips that it was not trained on."""
  return {
    'scores': {'files': (FILLED,), 'others': ()},
    'labels': {
      'root': FILLED,
      'files': (FILLED,),
      'questions': FILLED,
      'on_bad_record': 'error',
      'follow_links': 'hub',
    },
    'preferences': {'files': (), 'tuning': ()},
    'normalization': {'critics': (), 'files': ()},
    'train': {'files': (FILLED,)},
    'calibration': {
      'files': (),
      'fraction': 0.5 if is_smoke else 0.2,
      'seed': 0,
    },
    'reward': {'good': 0.9, 'normal': 0.2, 'bad': 0.05},
    'metrics': {
      'num_bins': 15,
      'temperature': 'dimension',
      'max_pairs': 10_000,
      'bootstrap': {'draws': 1000, 'coverage': 0.95, 'seed': 0},
    },
    'report': {'worst': 8, 'frames': 8, 'frame_width': 64},
    'toy_clips': 0,
  }


def _align(is_smoke: bool) -> dict:
  return {
    'model': _VIDEO_MODEL,
    'data': {
      'root': FILLED,
      'synthetic': (FILLED,),
      'real': (FILLED,),
      'on_bad_record': 'error',
      'follow_links': 'hub',
      'cache': '',
      'sizes': ((32, 32),),
      'max_frames': 9,
      'fps': config_dict.placeholder(float),
      'resize': 'crop',
    },
    'toy_clips': 0,
    'prepare': {
      'batch_per_device': 1 if is_smoke else 32,
      'records_per_shard': 512,
      'num_threads': 2,
      'compute_dtype': 'float32',
      'keep_dtype': 'float32',
      'tiling': False,
    },
    'mesh': _MESH,
    'train': {
      'steps': 4 if is_smoke else 200,
      'epochs': config_dict.placeholder(float),
      'batch_size': 16 if is_smoke else 32,
      'batch_per_device': config_dict.placeholder(int),
      'grad_accum': 1,
      'seed': 0,
      'trainable': 'blocks',
      'remat': 'none',
      'caption_dropout': 0.1,
      'ema_decay': 0.0,
      'log_every': 10,
      'num_threads': 2,
      'wandb_project': '',
      'profile': '',
      'export': True,
      'export_dtype': 'float32',
    },
    'objective': {
      'name': 'dpo',
      'anchor_weight': 0.0,
      'sft': {},
      'rejection': {'min_reward': 0.9},
      'reward_weighted': {'real_weight': 1.0},
      'dpo': {
        'beta': 500.0,
        'convention': 'half',
        'form': 'sigmoid',
        'sft_weight': 0.0,
        'real_weight': 1.0 if is_smoke else 0.0,
      },
    },
    'pairs': {
      'every_dimension': not is_smoke,  # there are few pairs
      'min_gap': 1e-6 if is_smoke else 0.05,
      'drop_share': 0.0,
      'min_motion': 0.0,
      'per_prompt': 2,
    },
    'lora': {
      'rank': 8,
      'alpha': 8.0,
      'targets': ('blocks/attn/to_(q|k|v|out)',),
    },
    'optimizer': _OPTIMIZER | {'warmup_steps': 20},
    'checkpoint': {'every_steps': 120, 'keep': 1},
    'validation': {
      'every_steps': 0,
      'prompts': (),
      'negative': '',
      'seed': 0,
      'fps': 8.0,
      'video': _VIDEO,
      'sampler': _SAMPLER,
    },
  }


def _compare() -> dict:
  """Compares the models by the checkers' verdicts and by motion."""
  return {
    'models': {'names': (), 'folders': (), 'every_pair': True},
    'suite': {'file': '', 'allow_missing': False},
    'metrics': {'weights': {}, 'files': ()},
    'flow': {'folders': ()},
    'distance': {
      'models': (),
      'adapters': (),
      'compute_dtype': 'float32',
      'attention': 'auto',
      'draws': 1,
      'batch_per_shard': 1,
      'mesh': _MESH,
    },
    'critic': {
      'files': (),
      'held_out': (),
      'trained_on': (),
      'reward': {'good': 0.9, 'normal': 0.2, 'bad': 0.05},
    },
    'vbench': {'folders': (), 'submission': False},
    'people': {'root': '', 'files': (), 'follow_links': 'hub'},
    'statistics': {
      'bootstrap': {'draws': 2000, 'coverage': 0.95, 'seed': 0},
      'permutations': 2_000,
      'level': 0.05,
    },
    'report': {
      'pairs': 1,
      'frames': 9,
      'frame_width': 96,
      'max_bytes': 4_000_000,
      'seed': 0,
    },
    'run': {'num_readers': 2},
    'toy_prompts': 0,
  }
