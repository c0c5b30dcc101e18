"""Conversion table of InternViT-6B weights."""

from lift_jax.models.internvit.config import InternViTConfig
from lift_jax.weights import conversion

_LAYER = 'encoder.layers.{i}'

INTERNVIT_TABLE = (
  *conversion.conv(
    'embeddings.patch_embedding', 'patch_embedding', conversion.CONV2D
  ),
  conversion.TensorRule('embeddings.class_embedding', 'class_token'),
  conversion.TensorRule('embeddings.position_embedding', 'positions'),
  *conversion.norm(f'{_LAYER}.norm1', 'blocks/attn_norm'),
  *conversion.linear(f'{_LAYER}.attn.qkv', 'blocks/attn/to_qkv', bias=False),
  *conversion.norm(f'{_LAYER}.attn.q_norm', 'blocks/attn/q_norm', bias=False),
  *conversion.norm(f'{_LAYER}.attn.k_norm', 'blocks/attn/k_norm', bias=False),
  *conversion.linear(f'{_LAYER}.attn.proj', 'blocks/attn/to_out'),
  conversion.TensorRule(f'{_LAYER}.ls1', 'blocks/attn_scale'),
  *conversion.norm(f'{_LAYER}.norm2', 'blocks/mlp_norm'),
  *conversion.linear(f'{_LAYER}.mlp.fc1', 'blocks/mlp/up'),
  *conversion.linear(f'{_LAYER}.mlp.fc2', 'blocks/mlp/down'),
  conversion.TensorRule(f'{_LAYER}.ls2', 'blocks/mlp_scale'),
)


def internvit_ignored(config: InternViTConfig) -> tuple[str, ...]:
  """Published layers after the feature layer, for `published_tensors.load`."""
  return tuple(
    rf'encoder\.layers\.{layer}\..+'
    for layer in range(config.num_run_layers, config.num_layers)
  )
