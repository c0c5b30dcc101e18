"""How the encoder's parameters lie on a mesh.

Pairs of a pattern, matched in full against a parameter's name, and its
layout. Each pair of projections is split so that what lies between them,
heads or the feed-forward layer, stays on its 'tensor' shard.
"""

from jax.sharding import PartitionSpec as P

from lift_jax.partitioning import PARAM_AXES

RULES = (
  (r'blocks/attn/to_[qkv]/kernel', P(None, PARAM_AXES, 'tensor')),
  (r'blocks/attn/to_out/kernel', P(None, 'tensor', PARAM_AXES)),
  (r'blocks/mlp/(gate|up)/kernel', P(None, PARAM_AXES, 'tensor')),
  (r'blocks/mlp/down/kernel', P(None, 'tensor', PARAM_AXES)),
  (r'token_embedding/embedding', P('tensor', PARAM_AXES)),
  (r'relative_bias/embedding', P()),
  (r'(blocks/(attn|mlp)_norm|final_norm)/scale', P()),
)
