"""Conversion table of LlamaForCausalLM weights."""

from lift_jax.weights import conversion

_LAYER = 'model.layers.{i}'


def _linear(published: str, ours: str) -> conversion.Table:
  return conversion.linear(
    f'{_LAYER}.{published}', f'blocks/{ours}', bias=False
  )


LLAMA_TABLE = (
  conversion.TensorRule(
    'model.embed_tokens.weight', 'token_embedding/embedding'
  ),
  *conversion.norm(f'{_LAYER}.input_layernorm', 'blocks/attn_norm', bias=False),
  *_linear('self_attn.q_proj', 'attn/to_q'),
  *_linear('self_attn.k_proj', 'attn/to_k'),
  *_linear('self_attn.v_proj', 'attn/to_v'),
  *_linear('self_attn.o_proj', 'attn/to_out'),
  *conversion.norm(
    f'{_LAYER}.post_attention_layernorm', 'blocks/mlp_norm', bias=False
  ),
  *_linear('mlp.gate_proj', 'mlp/gate'),
  *_linear('mlp.up_proj', 'mlp/up'),
  *_linear('mlp.down_proj', 'mlp/down'),
  *conversion.norm('model.norm', 'final_norm', bias=False),
  *conversion.linear('lm_head', 'head', bias=False),
)

# `ignored` of `conversion.load`: the rates of the rotary embedding, which
# follow from the config; saved before transformers 4.32.
LLAMA_IGNORED = (r'model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq',)
