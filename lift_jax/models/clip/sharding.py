"""Sharding rules of CLIP.

Kernels are (layer, in, out). Each pair of projections is split so that the
activations between them stay on their 'tensor' shard.
"""

from jax.sharding import PartitionSpec as P

RULES = (
  (r'(vision|text)/blocks/attn/to_[qkv]/kernel', P(None, 'fsdp', 'tensor')),
  (r'(vision|text)/blocks/attn/to_out/kernel', P(None, 'tensor', 'fsdp')),
  (r'(vision|text)/blocks/mlp/up/kernel', P(None, 'fsdp', 'tensor')),
  (r'(vision|text)/blocks/mlp/down/kernel', P(None, 'tensor', 'fsdp')),
  (r'(vision|text)/(blocks/.+|first_norm|last_norm)/(scale|bias)', P()),
  (r'(vision|text)/projection/kernel', P('fsdp', None)),
  (r'text/tokens', P('fsdp', None)),
  (r'vision/patch_embedding/kernel|vision/class_token|logit_scale', P()),
  (r'(vision|text)/positions', P()),
)
