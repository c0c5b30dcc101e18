"""FLOPs of Qwen3-VL's vision tower, computed by hand for 4B."""

import pytest

from lift_jax.models.qwen3vl import flops
from lift_jax.models.qwen3vl.config import PUBLISHED

pytestmark = pytest.mark.fast


def test_tower_of_4b():
  tower = PUBLISHED['Qwen3-VL-4B'].vision_tower
  # 12 frames of 30 x 44 patches.
  pairs, patches = 6, 1320
  attention = pairs * 24 * 4 * patches**2 * 1024
  found = flops.tower_attention_flops(tower, pairs, patches)
  assert found == pytest.approx(attention, rel=1e-12)
  # q, k, v, out, up and down; the final merger and three of deepstack.
  kernels = 24 * (4 * 1024**2 + 2 * 1024 * 4096)
  mergers = 4 * (4096 * 4096 + 4096 * 2560)
  embedding = 2 * 16 * 16 * 3 * 1024
  linear = 2 * pairs * patches * (kernels + embedding + mergers / 4)
  found = flops.tower_flops(tower, pairs, patches)
  assert found == pytest.approx(linear + attention, rel=1e-12)
