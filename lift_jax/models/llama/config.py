"""Sizes of a Llama decoder, and its published config.json."""

from collections.abc import Mapping
import dataclasses
from typing import Any, Self

from lift_jax import errors
from lift_jax.weights.published_config import PublishedConfig, make_config


@dataclasses.dataclass(frozen=True)
class LlamaConfig:
  """Sizes of the decoder; the defaults are Vicuna 13B, as in VILA-1.5 13b.

  Attributes:
    vocab_size: number of tokens.
    width: of the residual stream.
    num_layers: number of blocks.
    num_heads: query heads of a block.
    num_kv_heads: key heads; each is shared by num_heads / num_kv_heads
      consecutive query heads.
    head_dim: width of a head; num_heads * head_dim may differ from `width`.
    mlp_width: inner width of the feed-forward layer.
    rope_theta: the slowest pair of a rotary embedding turns by about
      1 / rope_theta radians for each token.
    norm_eps: added to the mean square before its root.
    max_length: tokens that the model was trained to handle.
  """

  vocab_size: int = 32000
  width: int = 5120
  num_layers: int = 40
  num_heads: int = 40
  num_kv_heads: int = 40
  head_dim: int = 128
  mlp_width: int = 13824
  rope_theta: float = 10_000.0
  norm_eps: float = 1e-5
  max_length: int = 4096

  def __post_init__(self):
    if self.num_heads % self.num_kv_heads:
      raise errors.UserError(
        f'{self.num_heads} query heads of the language model cannot share '
        f'{self.num_kv_heads} key heads; give a divisor of {self.num_heads}'
      )
    if self.head_dim % 2:
      raise errors.UserError(
        f'a head_dim of {self.head_dim} in the language model: rotary '
        'embeddings turn pairs; give an even number'
      )

  @classmethod
  def from_json(
    cls, values: Mapping[str, Any], source: str = 'llm/config.json'
  ) -> Self:
    """Reads the config.json of transformers' LlamaForCausalLM.

    Args:
      values: the parsed file, of any version of transformers.
      source: how errors name the file.

    Raises:
      UserError: a size is missing or invalid, or the file describes another
        network.
    """
    # A key without a value counts as absent.
    values = {
      key: value
      for key, value in values.items()
      if value is not None or key not in _PUBLISHED.optional
    }
    values['rope_theta'] = _rope_theta(values, source)
    fields = _PUBLISHED.read_fields(cls, values, source)
    width, heads = fields['width'], fields['num_heads']
    if 'head_dim' not in fields and width % heads:
      raise errors.UserError(
        f'{source}: hidden_size {width} is not divisible by {heads} heads; give'
        ' head_dim'
      )
    # Files older than shared key heads lack their number, and most files omit
    # the usual width of a head.
    fields = {'num_kv_heads': heads, 'head_dim': width // heads} | fields
    return make_config(cls, fields, source)

  def to_json(self) -> dict[str, Any]:
    """A config.json that any version of transformers loads."""
    return {
      'architectures': ['LlamaForCausalLM'],
      **_PUBLISHED.write(self),
      'rope_scaling': None,
    }


def _rope_theta(values: Mapping[str, Any], source: str) -> Any:
  """The base of the rotary embedding, in any of its published forms.

  Up to transformers 4 it is a key of its own, next to `rope_scaling`;
  transformers 5 writes both into `rope_parameters`.
  """
  found = {'rope_theta': values.get('rope_theta')}
  for key in ('rope_scaling', 'rope_parameters'):
    if (group := values.get(key)) is None:
      continue
    # Files use either of the two keys.
    plain = {'type': 'default', 'rope_type': 'default'}
    if not isinstance(group, Mapping) or any(
      plain.get(name) != value
      for name, value in group.items()
      if name != 'rope_theta'
    ):
      raise errors.UserError(
        f'{source}: {key} = {group!r} is not supported; use a Llama model'
        ' whose rotary embedding is not rescaled'
      )
    found[f'rope_theta of {key}'] = group.get('rope_theta')
  given = {key: value for key, value in found.items() if value is not None}
  theta, *others = given.values() or [_ROPE_THETA]
  if any(other != theta for other in others):
    listed = ', '.join(f'{key} = {value!r}' for key, value in given.items())
    raise errors.UserError(f'{source}: {listed}; keep the right one')
  return theta


# The default of transformers, for files older than 4.31.
_ROPE_THETA = 10_000.0


_PUBLISHED = PublishedConfig(
  kind='a Llama model',
  required={
    'vocab_size': 'vocab_size',
    'hidden_size': 'width',
    'num_hidden_layers': 'num_layers',
    'num_attention_heads': 'num_heads',
    'intermediate_size': 'mlp_width',
    'rms_norm_eps': 'norm_eps',
    'max_position_embeddings': 'max_length',
  },
  optional={
    'num_key_value_heads': 'num_kv_heads',
    'head_dim': 'head_dim',
    'rope_theta': 'rope_theta',
  },
  fixed={
    'model_type': 'llama',
    'hidden_act': 'silu',
    'attention_bias': False,
    'attention_dropout': 0.0,
    'mlp_bias': False,
    'tie_word_embeddings': False,
  },
  ignored=(
    'model_max_length',
    'pretraining_tp',
    'rope_parameters',  # `_rope_theta` reads it and the next one
    'rope_scaling',
    'tokenizer_model_max_length',
    'tokenizer_padding_side',
    'unk_token_id',
  ),
)

VILA_13B = LlamaConfig()
# Yi-34B, the language model of VILA-1.5 40b.
VILA_40B = LlamaConfig(
  vocab_size=64000,
  width=7168,
  num_layers=60,
  num_heads=56,
  num_kv_heads=8,
  mlp_width=20480,
  rope_theta=5_000_000.0,
)
