"""Conversion table of DINO weights, as transformers' ViTModel has them."""

from lift_jax.weights import conversion

_LAYER = 'encoder.layer.{i}'
_ATTENTION = f'{_LAYER}.attention'

DINO_TABLE = (
  *conversion.conv(
    'embeddings.patch_embeddings.projection',
    'patch_embedding',
    conversion.CONV2D,
  ),
  conversion.TensorRule('embeddings.cls_token', 'class_token'),
  conversion.TensorRule('embeddings.position_embeddings', 'positions'),
  *conversion.norm(f'{_LAYER}.layernorm_before', 'blocks/attn_norm'),
  *conversion.linear(f'{_ATTENTION}.attention.query', 'blocks/attn/to_q'),
  *conversion.linear(f'{_ATTENTION}.attention.key', 'blocks/attn/to_k'),
  *conversion.linear(f'{_ATTENTION}.attention.value', 'blocks/attn/to_v'),
  *conversion.linear(f'{_ATTENTION}.output.dense', 'blocks/attn/to_out'),
  *conversion.norm(f'{_LAYER}.layernorm_after', 'blocks/mlp_norm'),
  *conversion.linear(f'{_LAYER}.intermediate.dense', 'blocks/mlp/up'),
  *conversion.linear(f'{_LAYER}.output.dense', 'blocks/mlp/down'),
  *conversion.norm('layernorm', 'last_norm'),
)
