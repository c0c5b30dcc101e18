"""What `critic_cpu` measures: sizes, and random frames and tokens.

B clips  N tokens of a sequence  Q questions
"""

import dataclasses

import numpy as np

from lift_jax.models.llama.config import LlamaConfig
from lift_jax.models.qwen3vl.config import (
  PATCH_SIZE,
  Qwen3VLConfig,
  QwenTowerConfig,
  QwenVideoConfig,
)
from lift_jax.models.qwen3vl.tiny_tokenizer import VIDEO_ID
from lift_jax.models.qwen3vl.video import to_patches

NUM_QUESTIONS = 3


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


class Data:
  """Random frames and tokens, the same for both sides."""

  def __init__(self, size: Size):
    rng = np.random.default_rng(0)
    self.size = size
    height, width = (side * PATCH_SIZE for side in size.grid)
    self.patches = np.stack(
      [
        to_patches(
          rng.integers(0, 256, (2 * size.num_pairs, height, width, 3), np.uint8)
        )
        for _ in range(size.num_clips)
      ]
    )
    self.grid = np.tile(np.int32(size.grid), (size.num_clips, 1))
    tokens_of_pair = size.grid[0] * size.grid[1] // 4

    def text(*shape: int) -> np.ndarray:
      return rng.integers(10, 500, shape).astype(np.int32)

    clips = size.num_clips
    pair = [
      part
      for _ in range(size.num_pairs)
      for part in (
        text(clips, 4),  # its time
        np.full((clips, tokens_of_pair), VIDEO_ID, np.int32),
      )
    ]
    self.prefix_bn = np.concatenate([*pair, text(clips, size.caption)], axis=1)
    self.question_bqm = text(clips, NUM_QUESTIONS, size.question)
    self.answer_bn = text(size.examples, size.answer)

  def frames(self, clips: slice) -> dict[str, np.ndarray]:
    return {'patches': self.patches[clips], 'grid': self.grid[clips]}

  def batches(self) -> list[slice]:
    size = self.size
    return [
      slice(first, first + size.batch)
      for first in range(0, size.num_clips, size.batch)
    ]

  def examples(self) -> tuple[slice, np.ndarray, np.ndarray]:
    """Clips of a training step, their tokens, and which are the answer's."""
    clips = slice(self.size.examples)
    tokens_bn = np.concatenate(
      [self.prefix_bn[clips], self.question_bqm[clips, 0], self.answer_bn],
      axis=1,
    )
    is_target_bn = np.zeros(tokens_bn.shape, bool)
    is_target_bn[:, -self.size.answer :] = True
    return clips, tokens_bn, is_target_bn
