"""How the tower's parameters lie on a mesh.

Kernels are (layer, in, out). Each pair of projections is split so that what
lies between them stays on its 'tensor' shard, as far as heads allow: 25 heads
divide by 5 only. Any size of 'tensor' that divides the widths works all the
same, see `vision.multi_head`; queries, keys and values then travel between
shards. Patches and positions are small enough for a copy on every device.
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
