"""Sharding rules of the tower; see `siglip.sharding`."""

from jax.sharding import PartitionSpec as P

RULES = (
  (r'blocks/attn/to_[qkv]/kernel', P(None, 'fsdp', 'tensor')),
  (r'blocks/attn/to_out/kernel', P(None, 'tensor', 'fsdp')),
  (r'blocks/mlp/up/kernel', P(None, 'fsdp', 'tensor')),
  (r'blocks/mlp/down/kernel', P(None, 'tensor', 'fsdp')),
  (r'(blocks/.+|last_norm)/(scale|bias)', P()),
  (r'patch_embedding/(kernel|bias)|class_token|positions', P()),
)
