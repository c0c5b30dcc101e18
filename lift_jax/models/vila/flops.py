"""FLOPs of a critic, for throughput figures.

Counts matrix products only, as in `models.cogvideox.flops`: 2 P S for P kernel
parameters and S tokens, and 4 S^2 d for the attention of a layer, half of that
for causal attention.
"""

from lift_jax.models.vila.config import VilaConfig


def vision_flops(config: VilaConfig, num_frames: int) -> float:
  """FLOPs of encoding frames: vision tower and projector."""
  tower, size = config.vision_tower, config.vision_tower.num_patches
  width = tower.width
  layer = 2.0 * (4 * width**2 + 2 * width * tower.mlp_width) * size
  layer += 4.0 * size**2 * width
  projector = config.projector
  projected = 2.0 * projector.width * (4 * projector.vision_width)
  projected += 2.0 * projector.width**2
  tokens = config.tokens_per_frame
  return num_frames * (tower.num_run_layers * layer + tokens * projected)


def decoder_flops(
  config: VilaConfig, num_tokens: int, num_logits: int
) -> float:
  """FLOPs of a sequence, with logits for `num_logits` of its tokens."""
  linear, attention = _decoder_parts(config, num_tokens, num_logits)
  return linear + attention


def attention_flops(config: VilaConfig, num_tokens: int) -> float:
  """FLOPs of the language model's causal attention over a sequence, forward."""
  llm = config.llm
  heads = llm.num_heads * llm.head_dim
  return 2.0 * llm.num_layers * num_tokens**2 * heads


def _decoder_parts(
  config: VilaConfig, num_tokens: int, num_logits: int
) -> tuple[float, float]:
  llm = config.llm
  heads, key_heads = llm.num_heads * llm.head_dim, llm.num_kv_heads
  params = llm.width * (2 * heads + 2 * key_heads * llm.head_dim)
  params += 3 * llm.width * llm.mlp_width
  linear = 2.0 * llm.num_layers * params * num_tokens
  linear += 2.0 * llm.width * llm.vocab_size * num_logits
  return linear, attention_flops(config, num_tokens)
