"""Sharding rules of the decoder.

Kernels are (layer, in, out). Each pair of projections is split so that the
activations between them, heads or the feed-forward layer, stay on their
'tensor' shard. Query heads are on the same shard as their key heads, so
'tensor' must divide both numbers; `check_heads` raises otherwise, before
weights are read.
"""

import jax
from jax.sharding import PartitionSpec as P

from lift_jax import errors
from lift_jax.models.llama.config import LlamaConfig
from lift_jax.partitioning import BATCH_AXES

# Activations between blocks [B, N, D].
TOKENS = P(BATCH_AXES, 'context', None)
# Keys and values of a cache [L, B, S, G, K].
CACHE = P(None, BATCH_AXES, None, 'tensor', None)
# The token embedding [V, D] while tokens are looked up.
LOOKUP = P('tensor', None)

# Of a head that is not the token embedding.
HEAD_RULE = (r'head/kernel', P('fsdp', 'tensor'))
# Of norms on query and key heads.
QK_NORM_RULE = (r'blocks/attn/[qk]_norm/scale', P())
# Of what every decoder has.
BODY_RULES = (
  (r'blocks/attn/to_[qkv]/kernel', P(None, 'fsdp', 'tensor')),
  (r'blocks/attn/to_out/kernel', P(None, 'tensor', 'fsdp')),
  (r'blocks/mlp/(gate|up)/kernel', P(None, 'fsdp', 'tensor')),
  (r'blocks/mlp/down/kernel', P(None, 'tensor', 'fsdp')),
  (r'token_embedding/embedding', P('tensor', 'fsdp')),
  (r'(blocks/(attn|mlp)_norm|final_norm)/scale', P()),
)
RULES = (*BODY_RULES, HEAD_RULE)


def check_heads(config: LlamaConfig, mesh: jax.sharding.Mesh) -> None:
  """Raises UserError if the mesh would split a head."""
  parts = mesh.shape['tensor']
  if config.num_heads % parts or config.num_kv_heads % parts:
    raise errors.UserError(
      f'mesh.tensor is {parts}, which does not divide the {config.num_heads} '
      f'query heads and {config.num_kv_heads} key heads of the language model;'
      ' choose another mesh'
    )
