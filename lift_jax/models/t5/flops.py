"""FLOPs of the text encoder's matrix products."""

from lift_jax.models.t5.config import T5Config


def forward_flops(config: T5Config, num_tokens: int) -> float:
  """FLOPs of encoding one text."""
  inner = config.num_heads * config.d_kv
  params = 4 * config.d_model * inner + 3 * config.d_model * config.d_ff
  linear = 2.0 * params * num_tokens
  attention = 4.0 * num_tokens**2 * inner
  return config.num_layers * (linear + attention)
