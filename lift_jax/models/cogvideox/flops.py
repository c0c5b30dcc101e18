"""Arithmetic of a CogVideoX step, for throughput figures.

Only matrix products count: 2 P S + 4 S^2 d L for one video, with P the
parameters of the products that every token passes, S tokens of width d and L
layers. About 120 TFLOP for 2B at 49 x 480 x 720.
"""

from lift_jax.models.cogvideox.config import TransformerConfig


def forward_flops(config: TransformerConfig, num_tokens: int) -> float:
  """FLOPs of one forward pass of one video."""
  return _linear_flops(config, num_tokens) + attention_flops(config, num_tokens)


def training_flops(
  config: TransformerConfig, num_tokens: int, trains_kernels: bool
) -> float:
  """FLOPs of forward and backward of one video, recomputation not counted.

  The backward pass costs once the forward for activations, and once more for
  the gradient of the kernels where those train (adapters are not counted).
  """
  linear = _linear_flops(config, num_tokens)
  attention = attention_flops(config, num_tokens)
  return (3 if trains_kernels else 2) * linear + 3 * attention


def attention_flops(config: TransformerConfig, num_tokens: int) -> float:
  """Those of queries with keys and of weights with values, forward."""
  return 4.0 * num_tokens**2 * config.width * config.num_layers


def _linear_flops(config: TransformerConfig, num_tokens: int) -> float:
  # q, k, v, out: 4 d^2; up and down: 8 d^2.
  return 2.0 * 12 * config.width**2 * config.num_layers * num_tokens
