"""The whole pipeline in the toy world, on two cores.

Every stage is the job of the same name with the config that stands here; `lift
demo` fills in the paths, which are FILLED below, and runs one after the other.

  lift demo --workdir=DIR
"""

from ml_collections import config_dict

from lift_jax import config_lib
from lift_jax.toyworld import tokenizer

FILLED = 'filled in by lift demo'

_HEIGHT = _WIDTH = 32
_NUM_FRAMES = 9
_MESH = {'data': -1, 'fsdp': 1, 'context': 1, 'tensor': 1}


def get_config(arg: str | None = None) -> config_dict.ConfigDict:
  """`:smoke` does everything once, on a few clips; its numbers say nothing."""
  is_smoke = 'smoke' in config_lib.parse_arg(arg)
  config = config_dict.ConfigDict()

  # Draws clips, noise and the order of training alike.
  config.seed = 0
  config.clips = {
    'rated': 16 if is_smoke else 256,
    'scored': 16 if is_smoke else 512,
    'real': 16 if is_smoke else 512,
    'held_out': 8 if is_smoke else 182,
    'per_held_out': 1 if is_smoke else 2,
  }
  config.sample = _sample()
  config.train_critic = _train_critic(steps=4 if is_smoke else 160)
  config.score = _score()
  config.evaluate = _evaluate()
  config.align = _align(steps=4 if is_smoke else 240)
  config.bootstrap = {'draws': 2000, 'coverage': 0.95, 'seed': 0}
  config.shown_pairs = 4 if is_smoke else 18
  config.pretrain = {
    'model': _pretrain_model(is_smoke),
    'critic': _pretrain_critic(is_smoke),
  }
  return config


def _sample() -> dict:
  return {
    'model': {
      'path': FILLED,
      'adapter': '',
      'compute_dtype': 'float32',
      'attention': 'auto',
      'random': None,
    },
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
    'video': {
      'height': _HEIGHT,
      'width': _WIDTH,
      'num_frames': _NUM_FRAMES,
      'tiling': False,
    },
    'sampler': {
      'name': 'ddim',
      'num_steps': 20,
      'guidance_scale': 1.0,
      'dynamic_guidance': 'none',
      'reference': False,
      'carry_dtype': 'float32',
    },
    'mesh': dict(_MESH),
    'run': {
      'batch_per_shard': 32,
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


def _critic_model() -> dict:
  return {
    'path': FILLED,
    'adapter': '',
    'template': 'hermes-2',
    'compute_dtype': 'float32',
    'attention': 'auto',
    'random': None,
  }


def _train_critic(steps: int) -> dict:
  """Goes on from the critic that is shipped, which has seen no such clips."""
  return {
    'model': _critic_model(),
    'data': {
      'root': FILLED,
      'hra': (FILLED,),
      'real': (),
      'held_out': (),
      'questions': FILLED,
      'on_bad_record': 'error',
      'split': {
        'validation': 0.1,
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
    'sample_clips': {
      'num_clips': 0,
      'num_frames': _NUM_FRAMES,
      'height': _HEIGHT,
      'width': _WIDTH,
    },
    'mesh': dict(_MESH),
    'train': {
      'steps': steps,
      'epochs': config_dict.placeholder(float),
      'batch_size': 32,
      'batch_per_device': config_dict.placeholder(int),
      'grad_accum': 1,
      'seed': 0,
      'trainable': 'all',
      'remat': 'none',
      'ema_decay': 0.0,
      'log_every': 10,
      'wandb_project': '',
      'export': True,
      'export_dtype': 'float32',
    },
    'lora': {
      'rank': 8,
      'alpha': 16.0,
      'targets': ('llm/blocks/attn/to_(q|k|v|out)',),
    },
    'optimizer': _optimizer(3e-4, warmup_steps=10),
    'checkpoint': {'every_steps': 80, 'keep': 1},
    'validation': {'every_steps': 80},
  }


def _score() -> dict:
  return {
    'model': _critic_model(),
    'videos': {'root': FILLED, 'files': (FILLED,), 'on_bad_record': 'error'},
    'sample_clips': {
      'num_clips': 0,
      'num_frames': _NUM_FRAMES,
      'height': _HEIGHT,
      'width': _WIDTH,
    },
    'prompts': {
      'questions': '',
      'text_buckets': (64,),
      'max_answer_tokens': 0,
    },
    'reward': {
      'good': 0.9,
      'normal': 0.2,
      'bad': 0.05,
      'kind': 'labels',
      'decimals': 2,
    },
    'mesh': dict(_MESH),
    'run': {'batch_per_shard': 16, 'num_readers': 2, 'read_ahead': 2},
  }


def _evaluate() -> dict:
  """Of the critic, on clips that nobody has rated for it."""
  return {
    'scores': {'files': (FILLED,)},
    'labels': {
      'root': FILLED,
      'files': (FILLED,),
      'questions': FILLED,
      'on_bad_record': 'error',
    },
    'train': {'files': (FILLED,)},
    'calibration': {'files': (), 'fraction': 0.2, 'seed': 0},
    'reward': {'good': 0.9, 'normal': 0.2, 'bad': 0.05},
    'metrics': {
      'num_bins': 15,
      'temperature': 'dimension',
      'max_pairs': 10_000,
      'bootstrap': {'draws': 1000, 'coverage': 0.95, 'seed': 0},
    },
    'report': {'worst': 8, 'frames': 8, 'frame_width': 64},
    'synthetic': None,
  }


def _align(steps: int) -> dict:
  return {
    'model': {
      'path': FILLED,
      'adapter': '',
      'compute_dtype': 'float32',
      'attention': 'auto',
      'random': None,
    },
    'data': {
      'root': FILLED,
      'synthetic': (FILLED,),
      'real': (FILLED,),
      'on_bad_record': 'error',
      'cache': '',
      'sizes': ((_HEIGHT, _WIDTH),),
      'max_frames': _NUM_FRAMES,
      'fps': config_dict.placeholder(float),
      'resize': 'crop',
      'sample_clips': 0,
    },
    'prepare': {
      'batch_per_device': 32,
      'records_per_shard': 512,
      'num_threads': 2,
      'compute_dtype': 'float32',
      'keep_dtype': 'float32',
      'tiling': False,
    },
    'mesh': dict(_MESH),
    'train': {
      'steps': steps,
      'epochs': config_dict.placeholder(float),
      'batch_size': 32,
      'batch_per_device': config_dict.placeholder(int),
      'grad_accum': 1,
      'seed': 0,
      'trainable': 'blocks',
      'remat': 'none',
      'real_weight': 1.0,
      'caption_dropout': 0.1,
      'ema_decay': 0.0,
      'log_every': 10,
      'num_threads': 2,
      'wandb_project': '',
      'export': True,
      'export_dtype': 'float32',
    },
    'lora': {
      'rank': 8,
      'alpha': 8.0,
      'targets': ('blocks/attn/to_(q|k|v|out)',),
    },
    'optimizer': _optimizer(3e-4, warmup_steps=20),
    'checkpoint': {'every_steps': 120, 'keep': 1},
    'validation': {
      'every_steps': 0,
      'prompts': (),
      'negative': '',
      'seed': 0,
      'fps': 8.0,
      'video': {
        'height': _HEIGHT,
        'width': _WIDTH,
        'num_frames': _NUM_FRAMES,
        'tiling': False,
      },
      'sampler': _sample()['sampler'],
    },
  }


def _pretrain_model(is_smoke: bool) -> dict:
  """The tiny CogVideoX that comes with the package."""
  return {
    'seed': 0,
    'num_clips': 64 if is_smoke else 16384,
    'flawed_share': 0.5,
    'transformer': {
      'num_layers': 1 if is_smoke else 6,
      'num_heads': 4,
      'head_dim': 32,
      'time_embed_dim': 128,
      'text_embed_dim': 64,
      'max_text_length': tokenizer.MAX_LENGTH,
      'sample_height': 8,
      'sample_width': 8,
      'sample_frames': _NUM_FRAMES,
      'temporal_compression': 2,
      'spatial_scale': 1.0,
    },
    'vae': {
      'block_out_channels': (8, 16, 32),
      'layers_per_block': 1,
      'norm_num_groups': 4,
      'temporal_compression_ratio': 2,
      'sample_height': 64,
      'sample_width': 64,
    },
    'text_encoder': {
      'vocab_size': tokenizer.vocabulary_size(),
      'd_model': 64,
      'd_kv': 16,
      'd_ff': 128,
      'num_layers': 2,
      'num_heads': 4,
    },
    # As for 5B: small latents need less noise than large ones.
    'schedule': {'snr_shift_scale': 1.0},
    # After the first cycle small squares and crosses still come out as circles.
    'autoencoder': {
      'steps': 2 if is_smoke else 10_000,
      'batch_size': 4,
      'optimizer': _optimizer(2e-3, 0 if is_smoke else 100)
      | {'cycles': 1 if is_smoke else 2},
    },
    'kl_weight': 2e-3,
    'reading': {
      'steps': 2 if is_smoke else 2000,
      'batch_size': 16 if is_smoke else 64,
      'optimizer': _optimizer(2e-3, 0 if is_smoke else 100),
    },
    # Small batches: the error falls with the number of steps, and on two cores
    # a step takes as long as its batch is large.
    'draft': _transformer_stage(is_smoke, 2400, 2e-3),
    'outline': _transformer_stage(is_smoke, 8000, 1.5e-3),
    'clean': _transformer_stage(is_smoke, 12_000, 1.5e-3),
    'diffusion': _transformer_stage(is_smoke, 3500, 1e-3),
    'caption_dropout': 0.1,
    'dtype': 'bfloat16',
  }


def _transformer_stage(
  is_smoke: bool, steps: int, learning_rate: float
) -> dict:
  if is_smoke:  # one program for all stages
    steps, learning_rate = 2, 2e-3
  return {
    'steps': steps,
    'batch_size': 8,
    'optimizer': _optimizer(learning_rate, 0 if is_smoke else 100),
  }


def _pretrain_critic(is_smoke: bool) -> dict:
  """The tiny critic that comes with the package."""
  return {
    'seed': 0,
    'num_clips': 64 if is_smoke else 24_000,
    'soft_share': 0.5,
    'describe_share': (0.5, 0.05),
    'compare_share': (0.25, 0.15),
    'label_weight': 4.0,
    'text_places': 64,
    'vision_tower': {
      'image_size': 32,
      'patch_size': 8,
      'width': 96,
      'num_layers': 3,
      'num_heads': 4,
      'mlp_width': 384,
    },
    'llm': {
      'width': 128,
      'num_layers': 3,
      'num_heads': 4,
      'num_kv_heads': 4,
      'head_dim': 32,
      'mlp_width': 340,
      'max_length': 256,
    },
    'vision': {
      'steps': 2 if is_smoke else 4000,
      'batch_size': 16 if is_smoke else 32,
      'optimizer': _optimizer(2e-3, 0 if is_smoke else 100) | {'beta2': 0.98},
    },
    'training': {
      'steps': 2 if is_smoke else 3400,
      'batch_size': 16 if is_smoke else 64,
      # In the second cycle it learns to tell attributes apart.
      'optimizer': _optimizer(1.5e-3, 0 if is_smoke else 100)
      | {'beta2': 0.98, 'cycles': 1 if is_smoke else 2},
    },
    'num_eval_clips': 4 if is_smoke else 500,
    'dtype': 'bfloat16',
  }


def _optimizer(learning_rate: float, warmup_steps: int) -> dict:
  return {
    'learning_rate': learning_rate,
    'warmup_steps': warmup_steps,
    'cycles': 1,
    'beta1': 0.9,
    'beta2': 0.95,
    'eps': 1e-8,
    'weight_decay': 0.01,
    'clip_norm': 1.0,
  }
