"""Configs of critics, tiny and published, and inputs for the tiny one."""

import numpy as np

from lift_jax.models.internvit.config import InternViTConfig
from lift_jax.models.llama.config import VILA_13B, VILA_40B, LlamaConfig
from lift_jax.models.siglip.config import SiglipConfig
from lift_jax.models.vila.config import VilaConfig
from lift_jax.models.vila.projector import ProjectorConfig
from lift_jax.models.vila.tokenizer import IMAGE_TOKEN

# Sizes that eight devices can share, and large epsilons, so that wrong ones
# show. 3 x 3 patches of a frame become 4 tokens, with a padded edge.
CONFIG = VilaConfig(
  vision_tower=SiglipConfig(
    image_size=23,
    patch_size=7,
    width=32,
    num_layers=3,
    num_heads=4,
    mlp_width=48,
    norm_eps=1e-3,
  ),
  projector=ProjectorConfig(vision_width=32, width=48),
  llm=LlamaConfig(
    vocab_size=512,
    width=48,
    num_layers=2,
    num_heads=4,
    num_kv_heads=2,
    head_dim=16,
    mlp_width=64,
    rope_theta=50.0,
    norm_eps=1e-3,
    max_length=256,
  ),
)
TOKENS_PER_FRAME = 4
VILA_1_5_13B = VilaConfig(SiglipConfig(), ProjectorConfig(), VILA_13B)
VILA_1_5_40B = VilaConfig(
  InternViTConfig(), ProjectorConfig(vision_width=3200, width=7168), VILA_40B
)
SEVEN = ('q_proj', 'k_proj', 'v_proj', 'o_proj') + (
  'gate_proj', 'up_proj', 'down_proj',
)  # fmt: skip
# In the language model alone: the vision tower has a q_proj, too.
PEFT_TARGETS = rf'llm\..+\.({"|".join(SEVEN)})'
# config.json of a published projector.
PROJECTOR_JSON = {
  'architectures': ['MultimodalProjector'],
  'mm_projector_type': 'mlp_downsample',
  'model_type': 'v2l_projector',
  'torch_dtype': 'bfloat16',
  'transformers_version': '4.36.2',
}


def make_frames(batch: int, num_frames: int, seed: int = 0) -> np.ndarray:
  """uint8 [B, T, size, size, 3]."""
  size = CONFIG.vision_tower.image_size
  shape = (batch, num_frames, size, size, 3)
  return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def make_tokens(
  frames_b: list[int], length: int, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
  """Prompts with these numbers of frames: ids [B, N] and lengths [B].

  As in VILA a text goes first, and each frame is followed by a line break,
  here one token. Rows end at different places.
  """
  rng = np.random.default_rng(seed)
  tokens_bn = np.zeros((len(frames_b), length), np.int32)
  lengths_b = np.zeros(len(frames_b), np.int32)
  for row, num_frames in enumerate(frames_b):
    lead, tail = rng.integers(2, 5), rng.integers(3, 9)
    ids = [*rng.integers(3, 500, lead)]
    for _ in range(num_frames):
      ids += [IMAGE_TOKEN] * TOKENS_PER_FRAME + [13]
    ids += [*rng.integers(3, 500, tail)]
    tokens_bn[row, : len(ids)] = ids
    lengths_b[row] = len(ids)
  return tokens_bn, lengths_b
