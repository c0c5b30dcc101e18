"""Sharding rules of CogVideoX.

Kernels are (layer, in, out). They are sharded over 'fsdp' and 'context' along
the input and over 'tensor' along the output; projections back to the width of a
token are the other way round. 'context' also shards parameters and optimizer
state, to save memory.
"""

from jax.sharding import PartitionSpec as P

from lift_jax.partitioning import BATCH_AXES

# Activations between blocks [B, N, D].
TOKENS = P(BATCH_AXES, 'context', None)

# Mesh axes that shard the token width of kernels.
_WIDTH = ('fsdp', 'context')

TRANSFORMER_RULES = (
  (r'patch/kernel', P(None, None, None, _WIDTH)),
  # Cheap layers, whose full results all devices along 'tensor' need.
  (
    r'(text_proj|time/linear_[12]|norm_out/linear|proj_out)/kernel',
    P(_WIDTH, None),
  ),
  (r'blocks/norm[12]/linear/kernel', P(None, _WIDTH, 'tensor')),
  (r'blocks/attn/to_[qkv]/kernel', P(None, _WIDTH, 'tensor')),
  (r'blocks/attn/to_out/kernel', P(None, 'tensor', _WIDTH)),
  (r'blocks/ff/up/kernel', P(None, _WIDTH, 'tensor')),
  (r'blocks/ff/down/kernel', P(None, 'tensor', _WIDTH)),
  (r'.*/(bias|scale)', P()),
)

# The video autoencoder is small: it is replicated.
VAE_RULES = ((r'.*', P()),)
