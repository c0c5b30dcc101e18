"""Config for pretraining the demo's two models: `lift demo --from_scratch`.

The weights that `lift demo` starts from were made with it.
"""

import dataclasses

from lift_jax.toyworld.pretraining import (
  critic_model,
  refinement,
  tokenizer,
  video_model,
)


@dataclasses.dataclass(frozen=True)
class PretrainingConfig:
  """Pretraining of the text-to-video model and of the critic.

  Attributes:
    model: of the text-to-video model.
    critic: of the critic, on drawn clips.
    refinement: then on clips of that model.
  """

  model: video_model.PretrainConfig
  critic: critic_model.CriticPretrainConfig
  refinement: refinement.RefinementConfig


def get_config(is_smoke: bool) -> dict:
  """The section `pretrain` of the demo's config; tiny if `is_smoke`."""
  return {
    'model': _model(is_smoke),
    'critic': _critic(is_smoke),
    'refinement': _refinement(is_smoke),
  }


def _model(is_smoke: bool) -> dict:
  """The tiny CogVideoX that comes with the package."""
  return {
    'sizes': {
      'family': 'cogvideox',
      'seed': 0,
      'transformer': {
        'num_layers': 1 if is_smoke else 6,
        'num_heads': 4,
        'head_dim': 32,
        'time_embed_dim': 128,
        'text_embed_dim': 64,
        'max_text_length': tokenizer.MAX_LENGTH,
        'sample_height': 8,
        'sample_width': 8,
        'sample_frames': 9,
        'temporal_compression': 2,
        'spatial_scale': 1.0,
      },
      'vae': {
        'block_out_channels': (4, 4, 4) if is_smoke else (8, 16, 32),
        'layers_per_block': 1,
        'norm_num_groups': 2 if is_smoke else 4,
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
      # As for 5B: small latents need less noise.
      'schedule': {'snr_shift_scale': 1.0},
    },
    'num_clips': 32 if is_smoke else 16384,
    'flawed_share': 0.5,
    # After the first cycle small squares and crosses are still decoded as
    # circles.
    'autoencoder': {
      'steps': 12 if is_smoke else 10_000,
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
    # Small batches: the error depends on the number of steps, and on two cores
    # the time of a step is proportional to its batch size.
    'draft': _transformer_training(is_smoke, 2400, 2e-3),
    'outline': _transformer_training(is_smoke, 8000, 1.5e-3),
    'clean': _transformer_training(is_smoke, 12_000, 1.5e-3),
    'diffusion': _transformer_training(is_smoke, 3500, 1e-3),
    'caption_dropout': 0.1,
    'dtype': 'bfloat16',
  }


def _transformer_training(
  is_smoke: bool, steps: int, learning_rate: float
) -> dict:
  if is_smoke:  # all stages share a program
    steps, learning_rate = 2, 2e-3
  return {
    'steps': steps,
    'batch_size': 8,
    'optimizer': _optimizer(learning_rate, 0 if is_smoke else 100),
  }


def _critic(is_smoke: bool) -> dict:
  """The tiny critic that comes with the package."""
  return {
    'seed': 0,
    'num_clips': 32 if is_smoke else 24_000,
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
      'steps': 20 if is_smoke else 4000,
      'batch_size': 8 if is_smoke else 32,
      'optimizer': _optimizer(2e-3, 0 if is_smoke else 100) | {'beta2': 0.98},
    },
    'training': {
      'steps': 2 if is_smoke else 3400,
      'batch_size': 16 if is_smoke else 64,
      # In the second cycle it learns to distinguish attributes.
      'optimizer': _optimizer(1.5e-3, 0 if is_smoke else 100)
      | {'beta2': 0.98, 'cycles': 1 if is_smoke else 2},
    },
    'num_eval_clips': 4 if is_smoke else 500,
    'dtype': 'bfloat16',
  }


def _refinement(is_smoke: bool) -> dict:
  """The critic, on clips of the video model as the demo samples them."""
  return {
    'seed': 0,
    'num_generated': 32 if is_smoke else 12_288,
    'num_autoencoded': 32 if is_smoke else 2048,
    'sampler': {
      'name': 'ddim',
      'num_steps': 2 if is_smoke else 20,
      'guidance_scale': 1.0,
      'dynamic_guidance': 'none',
      'reference': False,
      'carry_dtype': 'float32',
    },
    'text_places': 68,
    'vision': {
      'steps': 2 if is_smoke else 5000,
      'batch_size': 8 if is_smoke else 128,
      'optimizer': _optimizer(1e-3, 0 if is_smoke else 200) | {'beta2': 0.98},
    },
    'ratings': {
      'steps': 2 if is_smoke else 6000,
      'batch_size': 8 if is_smoke else 64,
      'optimizer': _optimizer(8e-4, 0 if is_smoke else 200)
      | {'beta2': 0.98, 'weight_decay': 0.05},
    },
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
