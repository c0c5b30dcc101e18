"""FLOPs of the frames of a critic, for throughput figures.

Counts matrix products only, as in `models.cogvideox.flops`: 2 P S for P kernel
parameters and S tokens, and 4 S^2 d for the attention of a layer.
"""

from lift_jax.models.vila.config import VilaConfig


def vision_flops(config: VilaConfig, num_frames: int) -> float:
  """FLOPs of encoding frames: vision tower and projector."""
  tower, size = config.vision_tower, config.vision_tower.num_patches
  width = tower.width
  layer = 2.0 * (4 * width**2 + 2 * width * tower.mlp_width) * size
  projector = config.projector
  projected = 2.0 * projector.width * (4 * projector.vision_width)
  projected += 2.0 * projector.width**2
  tokens = config.tokens_per_frame
  linear = num_frames * (tower.num_run_layers * layer + tokens * projected)
  return linear + vision_attention_flops(config, num_frames)


def vision_attention_flops(config: VilaConfig, num_frames: int) -> float:
  """FLOPs of attention in the vision tower."""
  tower = config.vision_tower
  layer = 4.0 * tower.num_patches**2 * tower.width
  return num_frames * tower.num_run_layers * layer
