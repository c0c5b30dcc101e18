"""Conversion table of SigLIP weights."""

from collections.abc import Mapping

from lift_jax.models.siglip.config import SiglipConfig
from lift_jax.weights import conversion
from lift_jax.weights.safetensors_files import LazyTensor

_PREFIX = 'vision_model.'
_LAYER = f'{_PREFIX}encoder.layers.{{i}}'

SIGLIP_TABLE = (
  *conversion.conv(
    'vision_model.embeddings.patch_embedding',
    'patch_embedding',
    conversion.CONV2D,
  ),
  conversion.TensorRule(
    'vision_model.embeddings.position_embedding.weight', 'positions'
  ),
  *conversion.norm(f'{_LAYER}.layer_norm1', 'blocks/attn_norm'),
  *conversion.linear(f'{_LAYER}.self_attn.q_proj', 'blocks/attn/to_q'),
  *conversion.linear(f'{_LAYER}.self_attn.k_proj', 'blocks/attn/to_k'),
  *conversion.linear(f'{_LAYER}.self_attn.v_proj', 'blocks/attn/to_v'),
  *conversion.linear(f'{_LAYER}.self_attn.out_proj', 'blocks/attn/to_out'),
  *conversion.norm(f'{_LAYER}.layer_norm2', 'blocks/mlp_norm'),
  *conversion.linear(f'{_LAYER}.mlp.fc1', 'blocks/mlp/up'),
  *conversion.linear(f'{_LAYER}.mlp.fc2', 'blocks/mlp/down'),
)


def siglip_ignored(config: SiglipConfig) -> tuple[str, ...]:
  """Tensors that the tower does not need, for `published_tensors.load`.

  They are the layers after the feature layer, the final norm and the pooling
  head; and, in the weights of a complete SiglipModel, its text model.
  """
  layers = range(config.num_run_layers, config.num_layers)
  return (
    *(rf'vision_model\.encoder\.layers\.{layer}\..+' for layer in layers),
    r'vision_model\.post_layernorm\.(weight|bias)',
    r'vision_model\.head\..+',
    r'text_model\..+',
    r'logit_(scale|bias)',
  )


def with_prefix(tensors: Mapping[str, LazyTensor]) -> Mapping[str, LazyTensor]:
  """Tensors by the names of the table; transformers 5 saves no prefix."""
  if any(name.startswith(_PREFIX) for name in tensors):
    return tensors
  return {f'{_PREFIX}{name}': tensor for name, tensor in tensors.items()}
