"""Conversion table of CLIP weights, as transformers' CLIPModel has them."""

from lift_jax.weights import conversion


def _blocks(published: str, ours: str) -> conversion.Table:
  layer = f'{published}.encoder.layers.{{i}}'
  return (
    *conversion.norm(f'{layer}.layer_norm1', f'{ours}/attn_norm'),
    *conversion.linear(f'{layer}.self_attn.q_proj', f'{ours}/attn/to_q'),
    *conversion.linear(f'{layer}.self_attn.k_proj', f'{ours}/attn/to_k'),
    *conversion.linear(f'{layer}.self_attn.v_proj', f'{ours}/attn/to_v'),
    *conversion.linear(f'{layer}.self_attn.out_proj', f'{ours}/attn/to_out'),
    *conversion.norm(f'{layer}.layer_norm2', f'{ours}/mlp_norm'),
    *conversion.linear(f'{layer}.mlp.fc1', f'{ours}/mlp/up'),
    *conversion.linear(f'{layer}.mlp.fc2', f'{ours}/mlp/down'),
  )


_IMAGES, _TEXTS = 'vision_model.embeddings', 'text_model.embeddings'

CLIP_TABLE = (
  conversion.TensorRule(
    f'{_IMAGES}.patch_embedding.weight',
    'vision/patch_embedding/kernel',
    conversion.CONV2D,
  ),
  conversion.TensorRule(f'{_IMAGES}.class_embedding', 'vision/class_token'),
  conversion.TensorRule(
    f'{_IMAGES}.position_embedding.weight', 'vision/positions'
  ),
  *conversion.norm('vision_model.pre_layrnorm', 'vision/first_norm'),
  *_blocks('vision_model', 'vision/blocks'),
  *conversion.norm('vision_model.post_layernorm', 'vision/last_norm'),
  *conversion.linear('visual_projection', 'vision/projection', bias=False),
  conversion.TensorRule(f'{_TEXTS}.token_embedding.weight', 'text/tokens'),
  conversion.TensorRule(
    f'{_TEXTS}.position_embedding.weight', 'text/positions'
  ),
  *_blocks('text_model', 'text/blocks'),
  *conversion.norm('text_model.final_layer_norm', 'text/last_norm'),
  *conversion.linear('text_projection', 'text/projection', bias=False),
  conversion.TensorRule('logit_scale', 'logit_scale'),
)

# Numbers from 0, which older versions of transformers saved too.
CLIP_IGNORED = (r'(text|vision)_model\.embeddings\.position_ids',)
