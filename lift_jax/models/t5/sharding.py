"""How the encoder's parameters lie on a mesh.

Pairs of a pattern, matched in full against a parameter's name, and its
layout. Each pair of projections is split so that what lies between them,
heads or the feed-forward layer, stays on its 'tensor' shard.
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
