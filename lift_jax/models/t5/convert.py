"""Conversion table of T5EncoderModel weights."""

from lift_jax.weights import conversion

_ATTENTION = 'encoder.block.{i}.layer.0'
_MLP = 'encoder.block.{i}.layer.1'

T5_TABLE = (
  conversion.TensorRule('shared.weight', 'token_embedding/embedding'),
  # All layers share the biases, which are published with the first.
  conversion.TensorRule(
    'encoder.block.0.layer.0.SelfAttention.relative_attention_bias.weight',
    'relative_bias/embedding',
  ),
  *conversion.norm(f'{_ATTENTION}.layer_norm', 'blocks/attn_norm', bias=False),
  *conversion.linear(
    f'{_ATTENTION}.SelfAttention.q', 'blocks/attn/to_q', bias=False
  ),
  *conversion.linear(
    f'{_ATTENTION}.SelfAttention.k', 'blocks/attn/to_k', bias=False
  ),
  *conversion.linear(
    f'{_ATTENTION}.SelfAttention.v', 'blocks/attn/to_v', bias=False
  ),
  *conversion.linear(
    f'{_ATTENTION}.SelfAttention.o', 'blocks/attn/to_out', bias=False
  ),
  *conversion.norm(f'{_MLP}.layer_norm', 'blocks/mlp_norm', bias=False),
  *conversion.linear(
    f'{_MLP}.DenseReluDense.wi_0', 'blocks/mlp/gate', bias=False
  ),
  *conversion.linear(
    f'{_MLP}.DenseReluDense.wi_1', 'blocks/mlp/up', bias=False
  ),
  *conversion.linear(
    f'{_MLP}.DenseReluDense.wo', 'blocks/mlp/down', bias=False
  ),
  *conversion.norm('encoder.final_layer_norm', 'final_norm', bias=False),
)

# (other name, name above): a checkpoint may hold the embedding under either
# name, or under both.
T5_ALIASES = (('encoder.embed_tokens.weight', 'shared.weight'),)

# `ignored` of `published_tensors.load`: the rest of a complete T5.
T5_IGNORED = (r'decoder\..+', r'lm_head\.weight')
