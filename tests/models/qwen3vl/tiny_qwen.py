"""A tiny Qwen3-VL: our config, the reference, and inputs of both."""

import functools
import pathlib

import jax
import numpy as np

from lift_jax.models import critics
from lift_jax.models.llama.config import LlamaConfig
from lift_jax.models.qwen3vl import folder as folder_lib
from lift_jax.models.qwen3vl import tiny_tokenizer
from lift_jax.models.qwen3vl.config import (
  PATCH_FRAMES,
  PATCH_SIZE,
  Qwen3VLConfig,
  QwenTowerConfig,
  QwenVideoConfig,
)
from lift_jax.models.qwen3vl.video import to_patches
from tests.optional import torch, transformers

VIDEO = tiny_tokenizer.VIDEO_ID
# Rows and columns of patches, and pairs of frames of a clip.
GRID, NUM_PAIRS = (4, 6), 4
TOKENS = GRID[0] * GRID[1] // 4
# Sequences are padded to it, so that all tests share a program.
LENGTH = 64


def tiny_config(**changes) -> Qwen3VLConfig:
  """Odd sizes: 4 heads share 2, and are wider than the residual stream."""
  fields = {
    'vision_tower': QwenTowerConfig(
      width=32,
      num_layers=4,
      num_heads=2,
      mlp_width=48,
      out_width=40,
      num_positions=25,
      deepstack_layers=(1, 2),
    ),
    'llm': LlamaConfig(
      vocab_size=tiny_tokenizer.VOCAB_SIZE,
      width=40,
      num_layers=3,
      num_heads=4,
      num_kv_heads=2,
      head_dim=16,
      mlp_width=56,
      rope_theta=5000.0,
      norm_eps=1e-6,
      max_length=1024,
    ),
    'rope_sections': (4, 2, 2),
    'tied_head': True,
    'video_token_id': tiny_tokenizer.VIDEO_ID,
    'video': QwenVideoConfig(fps=None, num_frames=4),
  }
  return Qwen3VLConfig(**fields | changes)


@functools.cache
def reference(tied_head: bool):
  """Qwen3VLForConditionalGeneration; its weights are far from the initial."""
  config = transformers.Qwen3VLConfig.from_dict(
    tiny_config(tied_head=tied_head).to_json()
  )
  config._attn_implementation = 'eager'
  torch.manual_seed(0)
  model = transformers.Qwen3VLForConditionalGeneration(config).eval()
  with torch.no_grad():
    for name, tensor in model.named_parameters():
      if 'norm' in name and name.endswith('weight'):
        tensor.copy_(1 + 0.3 * torch.randn(tensor.shape))
      elif tensor.ndim > 1 and 'embed' not in name:
        fan_in = tensor[0].numel()
        tensor.copy_(torch.randn(tensor.shape) * 1.5 / fan_in**0.5)
      else:
        tensor.copy_(0.5 * torch.randn(tensor.shape))
  return model


def write_published(
  path: pathlib.Path, *, tied_head: bool = True, **save
) -> critics.Critic:
  """Writes the folder of a published model, by transformers, and opens it.

  Args:
    path: of the folder.
    tied_head: whether the head is the token embedding.
    **save: options of `save_pretrained`.
  """
  config = tiny_config(tied_head=tied_head)
  folder_lib.write_draft(path, config, seed=0)
  (path / 'config.json').unlink()
  reference(tied_head).save_pretrained(path, **save)
  return critics.open_critic(path)


def make_frames(seed: int, grid=GRID) -> dict[str, np.ndarray]:
  height, width = (side * PATCH_SIZE for side in grid)
  shape = (PATCH_FRAMES * NUM_PAIRS, height, width, 3)
  pixels = np.random.default_rng(seed).integers(0, 256, shape, np.uint8)
  return {'patches': to_patches(pixels), 'grid': np.array(grid, np.int32)}


def stacked(*clips):
  return jax.tree.map(lambda *each: np.stack(each), *clips)


def reference_pixels(frames) -> 'torch.Tensor':
  """As transformers has them: colour, frame, row, column."""
  values = frames['patches'].astype(np.float32) / 127.5 - 1
  sizes = PATCH_FRAMES, PATCH_SIZE, PATCH_SIZE, 3
  split = values.reshape(-1, *sizes).transpose(0, 4, 1, 2, 3)
  return torch.from_numpy(split.reshape(len(split), -1).copy())


def reference_grid(frames, num_videos=1) -> 'torch.Tensor':
  pairs = len(frames['patches']) // num_videos
  return torch.tensor([[pairs, *frames['grid'].tolist()]] * num_videos)


def reference_inputs(frames, tokens_n, num_videos=1):
  ids = torch.tensor(tokens_n)[None]
  return {
    'input_ids': ids,
    'pixel_values_videos': reference_pixels(frames),
    'video_grid_thw': reference_grid(frames, num_videos),
    'mm_token_type_ids': 2 * (ids == VIDEO).int(),
  }


def text(seed: int, num: int) -> list[int]:
  return np.random.default_rng(seed).integers(10, 400, num).tolist()


def video_tokens(num_pairs: int = NUM_PAIRS) -> list[int]:
  """Pairs of frames with text between them, as timestamps are."""
  return sum(
    (text(pair, 3) + [VIDEO] * TOKENS for pair in range(num_pairs)), []
  )


MIXED = text(5, 4) + video_tokens() + text(6, 9)


def padded(tokens_n: list[int]) -> np.ndarray:
  return np.array([tokens_n + [0] * (LENGTH - len(tokens_n))])
