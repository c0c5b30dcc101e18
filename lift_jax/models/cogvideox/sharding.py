"""Layout of CogVideoX on a mesh.

Kernels are (layer, in, out). Parameters are split over 'fsdp' and 'context'
along the input and over 'tensor' along the output; what comes back to the width
of a token is the other way round.
"""

import jax
from jax.sharding import PartitionSpec as P

from lift_jax.errors import UserError
from lift_jax.models.cogvideox.config import TransformerConfig
from lift_jax.partitioning import BATCH_AXES, PARAM_AXES

# Activations between blocks [B, N, D].
TOKENS = P(BATCH_AXES, 'context', None)
# Latents, text embeddings, weights: everything with a leading batch axis.
BATCH = P(BATCH_AXES)

TRANSFORMER_RULES = (
  (r'patch/kernel', P(None, None, None, PARAM_AXES)),
  # Little work, whose results every device of 'tensor' needs whole.
  (
    r'(text_proj|time/linear_[12]|norm_out/linear|proj_out)/kernel',
    P(PARAM_AXES, None),
  ),
  (r'blocks/norm[12]/linear/kernel', P(None, PARAM_AXES, 'tensor')),
  (r'blocks/attn/to_[qkv]/kernel', P(None, PARAM_AXES, 'tensor')),
  (r'blocks/attn/to_out/kernel', P(None, 'tensor', PARAM_AXES)),
  (r'blocks/ff/up/kernel', P(None, PARAM_AXES, 'tensor')),
  (r'blocks/ff/down/kernel', P(None, 'tensor', PARAM_AXES)),
  (r'.*/(bias|scale)', P()),
)

# The video autoencoder is small: each device holds all of it.
VAE_RULES = ((r'.*', P()),)


def check_heads(config: TransformerConfig, mesh: jax.sharding.Mesh) -> None:
  """Raises UserError where the mesh would cut a head in parts."""
  parts = mesh.shape['tensor']
  if config.num_heads % parts:
    raise UserError(
      f'mesh.tensor is {parts}, which does not divide the {config.num_heads} '
      'attention heads; choose another mesh'
    )
