"""Tiny random models that train on a CPU: `model.random` of configs."""

from typing import Any


def video_model() -> dict[str, Any]:
  """A CogVideoX of two layers, with a byte tokenizer."""
  return {
    'family': 'cogvideox',
    'seed': 0,
    'transformer': {
      'num_layers': 2,
      'num_heads': 4,
      'head_dim': 32,
      'time_embed_dim': 64,
      'text_embed_dim': 64,
      'max_text_length': 160,
      'sample_height': 12,
      'sample_width': 20,
    },
    'vae': {
      'block_out_channels': (16, 16, 32, 32),
      'layers_per_block': 1,
      'norm_num_groups': 8,
      'sample_height': 96,
      'sample_width': 160,
    },
    'text_encoder': {
      'vocab_size': 384,  # of the byte tokenizer
      'd_model': 64,
      'd_kv': 16,
      'd_ff': 128,
      'num_layers': 2,
      'num_heads': 4,
    },
    'schedule': {},
  }


def critic() -> dict[str, Any]:
  """A VILA of two layers and three vision tower layers."""
  return {
    'backbone': 'vila',
    'seed': 0,
    'vision_tower': {
      'image_size': 56,
      'patch_size': 14,
      'width': 64,
      'num_layers': 3,
      'num_heads': 2,
      'mlp_width': 128,
    },
    'llm': {
      'vocab_size': 512,
      'width': 64,
      'num_layers': 2,
      'num_heads': 2,
      'num_kv_heads': 2,
      'head_dim': 32,
      'mlp_width': 192,
      'max_length': 1024,
    },
  }


def qwen_critic() -> dict[str, Any]:
  """A Qwen3-VL of two layers and three vision tower layers, on 8 frames."""
  return {
    'backbone': 'qwen3vl',
    'seed': 0,
    'vision_tower': {
      'width': 64,
      'num_layers': 3,
      'num_heads': 2,
      'mlp_width': 128,
      'out_width': 64,
      'num_positions': 64,
      'deepstack_layers': (1,),
    },
    'llm': {
      'vocab_size': 512,
      'width': 64,
      'num_layers': 2,
      'num_heads': 4,
      'num_kv_heads': 2,
      'head_dim': 32,
      'mlp_width': 192,
      'rope_theta': 10_000.0,
      'norm_eps': 1e-6,
      'max_length': 1024,
    },
    'rope_sections': (6, 5, 5),
    'tied_head': True,
    'video': {
      'fps': None,
      'num_frames': 8,
      'min_frames': 4,
      'max_frames': 768,
      'min_pixels': 65_536,
      'max_pixels': 131_072,
    },
  }
