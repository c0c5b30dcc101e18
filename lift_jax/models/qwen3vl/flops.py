"""FLOPs of a critic, for throughput figures; see `models.vila.flops`."""

from lift_jax.models.qwen3vl.config import MERGE_SIZE, QwenTowerConfig
from lift_jax.models.qwen3vl.video import NUM_PIXEL_VALUES


def tower_flops(
  config: QwenTowerConfig, num_pairs: int, num_patches: int
) -> float:
  """FLOPs of the vision tower.

  Args:
    config: sizes.
    num_pairs: pairs of frames.
    num_patches: of each of them.
  """
  width = config.width
  layer = 2.0 * (4 * width**2 + 2 * width * config.mlp_width) * num_patches
  block = MERGE_SIZE**2 * width
  merger = 2.0 * block * (block + config.out_width)
  merger *= num_patches / MERGE_SIZE**2
  embedding = 2.0 * NUM_PIXEL_VALUES * width * num_patches
  num_mergers = 1 + len(config.deepstack_layers)
  linear = num_pairs * (
    embedding + config.num_layers * layer + num_mergers * merger
  )
  return linear + tower_attention_flops(config, num_pairs, num_patches)


def tower_attention_flops(
  config: QwenTowerConfig, num_pairs: int, num_patches: int
) -> float:
  """FLOPs of attention in the vision tower; arguments as in `tower_flops`."""
  layer = 4.0 * num_patches**2 * config.width
  return num_pairs * config.num_layers * layer
