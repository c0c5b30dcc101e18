"""Conversion table of Qwen3VLForConditionalGeneration weights."""

from lift_jax.models import lora
from lift_jax.models.adapter_names import PEFT_PREFIX
from lift_jax.models.llama.convert import HEAD_TABLE, decoder_table
from lift_jax.weights import conversion
from lift_jax.weights.conversion import within

_LLM = 'model.language_model.'
_HEAD = 'lm_head.weight'
_EMBEDDING = f'{_LLM}embed_tokens.weight'


def _tower_table(prefix: str) -> conversion.Table:
  layer = f'{prefix}blocks.{{i}}'
  deepstack = f'{prefix}deepstack_merger_list.{{i}}'
  return (
    *conversion.conv(
      f'{prefix}patch_embed.proj', 'patch_embedding', conversion.CONV3D
    ),
    conversion.TensorRule(f'{prefix}pos_embed.weight', 'positions'),
    *conversion.norm(f'{layer}.norm1', 'blocks/attn_norm'),
    *conversion.linear(f'{layer}.attn.qkv', 'blocks/attn/to_qkv'),
    *conversion.linear(f'{layer}.attn.proj', 'blocks/attn/to_out'),
    *conversion.norm(f'{layer}.norm2', 'blocks/mlp_norm'),
    *conversion.linear(f'{layer}.mlp.linear_fc1', 'blocks/mlp/up'),
    *conversion.linear(f'{layer}.mlp.linear_fc2', 'blocks/mlp/down'),
    *_merger_table(f'{prefix}merger', 'merger'),
    *_merger_table(deepstack, 'deepstack_mergers'),
  )


def _merger_table(published: str, ours: str) -> conversion.Table:
  return (
    *conversion.norm(f'{published}.norm', f'{ours}/norm'),
    *conversion.linear(f'{published}.linear_fc1', f'{ours}/linear_in'),
    *conversion.linear(f'{published}.linear_fc2', f'{ours}/linear_out'),
  )


_LLM_TABLE = within(
  'llm',
  (
    *decoder_table(_LLM),
    *(
      rule
      for name in ('q_norm', 'k_norm')
      for rule in conversion.norm(
        f'{_LLM}layers.{{i}}.self_attn.{name}',
        f'blocks/attn/{name}',
        bias=False,
      )
    ),
  ),
)

TIED_TABLE = (
  *within('vision_tower', _tower_table('model.visual.')),
  *_LLM_TABLE,
)
UNTIED_TABLE = (*TIED_TABLE, *within('llm', HEAD_TABLE))

# Files may have a tied head nevertheless.
TIED_ALIASES = ((_HEAD, _EMBEDDING),)

ADAPTER_TABLE = lora.adapter_table(TIED_TABLE, prefix=PEFT_PREFIX)
