"""Conversion table of LlamaForCausalLM weights."""

from lift_jax.weights import conversion


def decoder_table(prefix: str) -> conversion.Table:
  """The table of a decoder without its head; published names begin with it."""
  layer = f'{prefix}layers.{{i}}'

  def linear(published: str, ours: str) -> conversion.Table:
    return conversion.linear(
      f'{layer}.{published}', f'blocks/{ours}', bias=False
    )

  def norm(published: str, ours: str) -> conversion.Table:
    return conversion.norm(f'{prefix}{published}', ours, bias=False)

  return (
    conversion.TensorRule(
      f'{prefix}embed_tokens.weight', 'token_embedding/embedding'
    ),
    *norm('layers.{i}.input_layernorm', 'blocks/attn_norm'),
    *linear('self_attn.q_proj', 'attn/to_q'),
    *linear('self_attn.k_proj', 'attn/to_k'),
    *linear('self_attn.v_proj', 'attn/to_v'),
    *linear('self_attn.o_proj', 'attn/to_out'),
    *norm('layers.{i}.post_attention_layernorm', 'blocks/mlp_norm'),
    *linear('mlp.gate_proj', 'mlp/gate'),
    *linear('mlp.up_proj', 'mlp/up'),
    *linear('mlp.down_proj', 'mlp/down'),
    *norm('norm', 'final_norm'),
  )


HEAD_TABLE = conversion.linear('lm_head', 'head', bias=False)

LLAMA_TABLE = (*decoder_table('model.'), *HEAD_TABLE)

# `ignored` of `published_tensors.load`: rates of the rotary embedding, which
# follow from the config; saved before transformers 4.32.
LLAMA_IGNORED = (r'model\.layers\.\d+\.self_attn\.rotary_emb\.inv_freq',)
