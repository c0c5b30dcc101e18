"""Sharding rules of Qwen3-VL: those of its two networks.

Kernels of the tower are (layer, in, out), as in the other vision towers: each
pair of projections is split so that the activations between them stay on their
'tensor' shard.
"""

from jax.sharding import PartitionSpec as P

from lift_jax import partitioning
from lift_jax.models.llama import sharding as llama

_TOWER_RULES = (
  (r'blocks/attn/to_qkv/kernel', P(None, 'fsdp', 'tensor')),
  (r'blocks/attn/to_out/kernel', P(None, 'tensor', 'fsdp')),
  (r'blocks/mlp/up/kernel', P(None, 'fsdp', 'tensor')),
  (r'blocks/mlp/down/kernel', P(None, 'tensor', 'fsdp')),
  (r'merger/linear_in/kernel', P('fsdp', 'tensor')),
  (r'merger/linear_out/kernel', P('tensor', 'fsdp')),
  (r'deepstack_mergers/linear_in/kernel', P(None, 'fsdp', 'tensor')),
  (r'deepstack_mergers/linear_out/kernel', P(None, 'tensor', 'fsdp')),
  (r'(blocks|merger|deepstack_mergers)/.+/(scale|bias)', P()),
  # Small, and replicated.
  (r'patch_embedding/(kernel|bias)|positions', P()),
)


def rules(*, tied_head: bool) -> partitioning.Rules:
  """Rules for the parameters of a `Qwen3VL`."""
  head = () if tied_head else (llama.HEAD_RULE,)
  parts = {
    'vision_tower': _TOWER_RULES,
    'llm': (*llama.BODY_RULES, llama.QK_NORM_RULE, *head),
  }
  return tuple(
    (f'{part}/({regex})', spec)
    for part, part_rules in parts.items()
    for regex, spec in part_rules
  )
