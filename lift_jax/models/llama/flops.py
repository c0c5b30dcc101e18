"""FLOPs of a decoder, for throughput figures.

Counts matrix products only, as in `models.cogvideox.flops`: 2 P S for P kernel
parameters and S tokens, and half of 4 S^2 d for the causal attention of a
layer.
"""

from lift_jax.models.llama.config import LlamaConfig


def decoder_flops(
  config: LlamaConfig, num_tokens: int, num_logits: int
) -> float:
  """FLOPs of a sequence, with logits for `num_logits` of its tokens."""
  heads, key_heads = config.num_heads * config.head_dim, config.num_kv_heads
  params = config.width * (2 * heads + 2 * key_heads * config.head_dim)
  params += 3 * config.width * config.mlp_width
  linear = 2.0 * config.num_layers * params * num_tokens
  linear += 2.0 * config.width * config.vocab_size * num_logits
  return linear + attention_flops(config, num_tokens)


def attention_flops(config: LlamaConfig, num_tokens: int) -> float:
  """FLOPs of causal attention over a sequence, forward."""
  heads = config.num_heads * config.head_dim
  return 2.0 * config.num_layers * num_tokens**2 * heads
