"""Arithmetic of a CogVideoX step, for throughput figures.

Only matrix products count: 2 P S + 4 S^2 d L for one video, with P the
parameters of the products that every token passes, S tokens of width d and L
layers. About 120 TFLOP for 2B at 49 x 480 x 720.
"""

from lift_jax.models.cogvideox.config import TransformerConfig


def forward_flops(config: TransformerConfig, num_tokens: int) -> float:
  """FLOPs of one forward pass of one video."""
  linear, attention = _parts(config, num_tokens)
  return linear + attention


def training_flops(
  config: TransformerConfig, num_tokens: int, trains_kernels: bool
) -> float:
  """FLOPs of forward and backward of one video, recomputation not counted.

  The backward pass costs once the forward for activations, and once more for
  the gradient of the kernels where those train (adapters are not counted).
  """
  linear, attention = _parts(config, num_tokens)
  return (3 if trains_kernels else 2) * linear + 3 * attention


def _parts(config: TransformerConfig, num_tokens: int) -> tuple[float, float]:
  # q, k, v, out: 4 d^2; up and down: 8 d^2.
  params_per_token = 12 * config.width**2 * config.num_layers
  linear = 2.0 * params_per_token * num_tokens
  attention = 4.0 * num_tokens**2 * config.width * config.num_layers
  return linear, attention
