"""Sharding rules of the tower.

Kernels are (layer, in, out). Each pair of projections is split so that the
activations between them, heads or the feed-forward layer, stay on their
'tensor' shard. Patch and position embeddings are small and replicated.
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
