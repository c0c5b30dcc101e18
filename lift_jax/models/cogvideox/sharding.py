"""Layout of CogVideoX on a mesh.

Kernels are (layer, in, out). Parameters are split over 'fsdp' and 'context'
along the input and over 'tensor' along the output; what comes back to the width
of a token is the other way round. Devices that share the tokens of a video
share the optimizer, too: memory is why they do.
"""

from jax.sharding import PartitionSpec as P

from lift_jax.partitioning import BATCH_AXES

# Activations between blocks [B, N, D].
TOKENS = P(BATCH_AXES, 'context', None)

# What parameters are split over along the width of a token.
_WIDTH = ('fsdp', 'context')

TRANSFORMER_RULES = (
  (r'patch/kernel', P(None, None, None, _WIDTH)),
  # Little work, whose results every device of 'tensor' needs whole.
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

# The video autoencoder is small: each device holds all of it.
VAE_RULES = ((r'.*', P()),)
