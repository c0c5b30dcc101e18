"""FLOPs of critics, computed by hand for VILA-1.5."""

import pytest

from lift_jax.models.llama.flops import decoder_flops
from lift_jax.models.vila import flops
from tests.models.vila.critics import VILA_1_5_13B, VILA_1_5_40B

# 8 frames of 196 tokens, and a caption, a question and an answer.
NUM_TOKENS = 8 * 196 + 384
NUM_ANSWER = 100

# Of Llama's 13,015,864,320 parameters: without the table of embeddings and the
# head (32000 x 5120 each) and 81 norms of 5120.
KERNELS_13B = 13_015_864_320 - 2 * 32_000 * 5120 - 81 * 5120
# Of SigLIP's 26 layers up to the feature: q, k, v, out; up and down.
TOWER_13B = 26 * (4 * 1152**2 + 2 * 1152 * 4304)


def test_tower_of_13b():
  # 729 patches through the kernels, and 4 S^2 d for each layer's attention.
  tower = 2 * TOWER_13B * 729 + 26 * 4 * 729**2 * 1152
  # 196 tokens through the projector: 4608 x 5120 and 5120 x 5120.
  projector = 2 * 196 * (4608 * 5120 + 5120 * 5120)
  found = flops.vision_flops(VILA_1_5_13B, 1)
  assert found == pytest.approx(tower + projector, rel=1e-12)
  # Kernels, attention, projector.
  assert found == pytest.approx(0.577e12 + 0.064e12 + 0.020e12, rel=0.002)
  assert flops.vision_flops(VILA_1_5_13B, 8) == 8 * found
  attention = flops.vision_attention_flops(VILA_1_5_13B, 2)
  assert attention == 2 * 26 * 4 * 729**2 * 1152


def test_decoder_of_13b():
  linear = 2 * KERNELS_13B * NUM_TOKENS
  # Half of 4 S^2 d: attention is causal.
  attention = 40 * 2 * NUM_TOKENS**2 * 5120
  found = decoder_flops(VILA_1_5_13B.llm, NUM_TOKENS, 0)
  assert found == pytest.approx(linear + attention, rel=1e-12)
  assert found == pytest.approx(49.5e12 + 1.56e12, rel=0.002)
  with_logits = decoder_flops(VILA_1_5_13B.llm, NUM_TOKENS, NUM_ANSWER)
  assert with_logits - found == pytest.approx(2 * 5120 * 32_000 * 100)


def test_decoder_with_shared_key_heads():
  """Of 40b: 8 key heads, and attention as wide as 56 query heads."""
  kernels = 60 * (2 * 7168 * 7168 + 2 * 7168 * 1024 + 3 * 7168 * 20480)
  # Of Yi's 34,388,917,248: without embeddings, head and 121 norms.
  assert kernels == 34_388_917_248 - 2 * 64_000 * 7168 - 121 * 7168
  found = decoder_flops(VILA_1_5_40B.llm, 1000, 0)
  assert found == pytest.approx(2 * kernels * 1000 + 60 * 2 * 1e6 * 7168)
