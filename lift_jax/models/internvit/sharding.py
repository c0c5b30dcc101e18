"""Sharding rules of the tower.

Kernels are (layer, in, out). Each pair of projections is split so that the
activations between them stay on their 'tensor' shard, as far as the heads
allow: 25 heads are divisible by 5 only. Any size of 'tensor' that divides the
widths works, see `vision.multi_head`; queries, keys and values are then moved
between shards. Patch and position embeddings are small and replicated.
"""

from jax.sharding import PartitionSpec as P

RULES = (
  (r'blocks/attn/to_qkv/kernel', P(None, 'fsdp', 'tensor')),
  (r'blocks/attn/to_out/kernel', P(None, 'tensor', 'fsdp')),
  (r'blocks/mlp/up/kernel', P(None, 'fsdp', 'tensor')),
  (r'blocks/mlp/down/kernel', P(None, 'tensor', 'fsdp')),
  (r'blocks/.+/(scale|bias)|blocks/(attn|mlp)_scale', P()),
  (r'patch_embedding/(kernel|bias)|class_token|positions', P()),
)
