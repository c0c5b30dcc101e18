"""How the tower's parameters lie on a mesh.

Kernels are (layer, in, out). Each pair of projections is split so that what
lies between them, heads or the feed-forward layer, stays on its 'tensor'
shard. Patches and positions are small enough for a copy on every device.
"""

from jax.sharding import PartitionSpec as P

RULES = (
  (r'blocks/attn/to_[qkv]/kernel', P(None, 'fsdp', 'tensor')),
  (r'blocks/attn/to_out/kernel', P(None, 'tensor', 'fsdp')),
  (r'blocks/mlp/up/kernel', P(None, 'fsdp', 'tensor')),
  (r'blocks/mlp/down/kernel', P(None, 'tensor', 'fsdp')),
  (r'blocks/.+/(scale|bias)', P()),
  (r'patch_embedding/(kernel|bias)|positions', P()),
)
