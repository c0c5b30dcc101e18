"""FLOPs of the CogVideoX transformer, for throughput figures.

Counts matrix products only: 2 P S + 4 S^2 d L for one video, with P kernel
parameters in the blocks, S tokens of width d and L layers. About 120 TFLOP for
2B at 49 x 480 x 720.
"""

from lift_jax.models.cogvideox.config import TransformerConfig
from lift_jax.models.generators import Flops


def forward_flops(config: TransformerConfig, num_tokens: int) -> Flops:
  """FLOPs of one forward pass of one video."""
  # q, k, v, out: 4 d^2; up and down: 8 d^2.
  linear = 2.0 * 12 * config.width**2 * config.num_layers * num_tokens
  attention = 4.0 * num_tokens**2 * config.width * config.num_layers
  return Flops(linear, attention)
