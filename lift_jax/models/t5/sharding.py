"""Sharding rules of the encoder.

Patterns are matched in full against parameter names. Each pair of projections
is split so that the activations between them, heads or the feed-forward layer,
stay on their 'tensor' shard.
"""

from jax.sharding import PartitionSpec as P

RULES = (
  (r'blocks/attn/to_[qkv]/kernel', P(None, 'fsdp', 'tensor')),
  (r'blocks/attn/to_out/kernel', P(None, 'tensor', 'fsdp')),
  (r'blocks/mlp/(gate|up)/kernel', P(None, 'fsdp', 'tensor')),
  (r'blocks/mlp/down/kernel', P(None, 'tensor', 'fsdp')),
  (r'token_embedding/embedding', P('tensor', 'fsdp')),
  (r'relative_bias/embedding', P()),
  (r'(blocks/(attn|mlp)_norm|final_norm)/scale', P()),
)
