"""A small Qwen3-VL critic, with random frames and tokens, in a folder.

In the folder: critic/, inputs.npz, and settings.json with the size. The torch
sides read them without JAX.

B clips  N tokens of a sequence  Q questions  M tokens of a question
"""

from collections.abc import Mapping
import dataclasses
import pathlib

import numpy as np

from lift_jax.models import critic_config
from lift_jax.models.llama.config import LlamaConfig
from lift_jax.models.qwen3vl.backbone import BACKBONE
from lift_jax.models.qwen3vl.config import (
  PATCH_SIZE,
  Qwen3VLConfig,
  QwenTowerConfig,
  QwenVideoConfig,
)
from lift_jax.models.qwen3vl.tiny_tokenizer import VIDEO_ID
from lift_jax.models.qwen3vl.video import to_patches
from lift_jax.runtime.files import write_json

_NUM_QUESTIONS = 3
# Tokens of Good, Normal and Bad.
LABEL_IDS = (100, 101, 102)

Arrays = Mapping[str, np.ndarray]


@dataclasses.dataclass(frozen=True)
class Size:
  """What is measured.

  Attributes:
    config: of the network.
    grid: rows and columns of patches of a frame.
    num_pairs: pairs of frames of a clip.
    caption: tokens.
    question: tokens.
    answer: tokens, in training.
    num_clips: that are scored.
    batch: clips that are scored together.
    examples: of a training step.
  """

  config: Qwen3VLConfig
  grid: tuple[int, int]
  num_pairs: int
  caption: int
  question: int
  answer: int
  num_clips: int
  batch: int
  examples: int


def _config(width: int, num_layers: int, vocab_size: int) -> Qwen3VLConfig:
  """In the proportions of 4B, with a smaller vocabulary."""
  return Qwen3VLConfig(
    vision_tower=QwenTowerConfig(
      width=width // 2,
      num_layers=num_layers,
      num_heads=width // 128,
      mlp_width=2 * width,
      out_width=width,
      num_positions=256,
      deepstack_layers=(1,),
    ),
    llm=LlamaConfig(
      vocab_size=vocab_size,
      width=width,
      num_layers=num_layers,
      num_heads=width // 64,
      num_kv_heads=width // 256,
      head_dim=64,
      mlp_width=4 * width,
      rope_theta=5e6,
      norm_eps=1e-6,
      max_length=4096,
    ),
    rope_sections=(12, 10, 10),
    tied_head=True,
    video_token_id=VIDEO_ID,
    video=QwenVideoConfig(fps=None, num_frames=8),
  )


# 8 frames of 192 x 288 pixels.
MIDDLE = Size(
  config=_config(512, 4, 8192),
  grid=(12, 18),
  num_pairs=4,
  caption=60,
  question=40,
  answer=24,
  num_clips=16,
  batch=4,
  examples=4,
)
TINY = Size(
  config=_config(256, 2, 512),
  grid=(4, 6),
  num_pairs=2,
  caption=5,
  question=4,
  answer=3,
  num_clips=4,
  batch=2,
  examples=2,
)


def write(folder: pathlib.Path, tiny: bool) -> None:
  """Writes the critic, and what both sides read."""
  size = TINY if tiny else MIDDLE
  critic_config.make_random(folder / 'critic', BACKBONE, size.config, seed=0)
  np.savez(folder / 'inputs.npz', **_inputs(size))
  write_json(
    folder / 'settings.json',
    {
      'grid': [size.num_pairs, *size.grid],
      'batch': size.batch,
      'examples': size.examples,
      'answer': size.answer,
      'label_ids': LABEL_IDS,
      'video_id': VIDEO_ID,
    },
  )


def _inputs(size: Size) -> Arrays:
  rng = np.random.default_rng(0)
  height, width = (side * PATCH_SIZE for side in size.grid)
  frames = (2 * size.num_pairs, height, width, 3)
  clips = size.num_clips

  def text(*shape: int) -> np.ndarray:
    return rng.integers(10, 500, shape).astype(np.int32)

  patches = [
    to_patches(rng.integers(0, 256, frames, np.uint8)) for _ in range(clips)
  ]
  tokens_of_pair = size.grid[0] * size.grid[1] // 4
  pairs = [
    part
    for _ in range(size.num_pairs)
    for part in (
      text(clips, 4),  # its time
      np.full((clips, tokens_of_pair), VIDEO_ID, np.int32),
    )
  ]
  prefix_bn = np.concatenate([*pairs, text(clips, size.caption)], axis=1)
  question_bqm = text(clips, _NUM_QUESTIONS, size.question)
  trained = slice(size.examples)
  return {
    'patches': np.stack(patches),
    'grid': np.tile(np.int32(size.grid), (clips, 1)),
    'prefix_bn': prefix_bn,
    'question_bqm': question_bqm,
    # Of a training step: the last tokens are the answer's.
    'tokens_bn': np.concatenate(
      [
        prefix_bn[trained],
        question_bqm[trained, 0],
        text(size.examples, size.answer),
      ],
      axis=1,
    ),
  }


def frames_of(arrays: Arrays, clips: slice) -> dict[str, np.ndarray]:
  """What our critic takes."""
  return {name: arrays[name][clips] for name in ('patches', 'grid')}
