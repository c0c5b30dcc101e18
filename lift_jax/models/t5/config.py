"""The shape of a T5 v1.1 encoder, and its published config.json."""

from collections.abc import Mapping
import dataclasses
from typing import Any

from lift_jax import errors


@dataclasses.dataclass(frozen=True)
class T5Config:
  """Sizes of the encoder; the defaults are google/t5-v1_1-xxl.

  Attributes:
    vocab_size: rows of the token embedding.
    d_model: width of the residual stream.
    d_kv: width of one attention head; num_heads * d_kv may differ from d_model.
    d_ff: width of the gated feed-forward layer.
    num_layers: number of blocks.
    num_heads: attention heads of a block.
    relative_attention_num_buckets: rows of the table of position biases.
    relative_attention_max_distance: distance in tokens from which all
      positions share the last bucket.
    layer_norm_epsilon: added to the mean square before its root.
  """

  vocab_size: int = 32128
  d_model: int = 4096
  d_kv: int = 64
  d_ff: int = 10240
  num_layers: int = 24
  num_heads: int = 64
  relative_attention_num_buckets: int = 32
  relative_attention_max_distance: int = 128
  layer_norm_epsilon: float = 1e-6

  @classmethod
  def from_json(
    cls, values: Mapping[str, Any], source: str = 'text_encoder/config.json'
  ) -> 'T5Config':
    """Reads the config.json of transformers' T5EncoderModel.

    Args:
      values: the parsed file.
      source: how errors name the file.

    Raises:
      UserError: a size is missing or is no positive number, or the file
        describes another network than a T5 v1.1 encoder.
    """
    known = set(_REQUIRED) | set(_DEFAULTS) | set(_FIXED) | _IGNORED
    if unknown := set(values) - known:
      raise errors.UserError(
        f'{source}: unknown keys {errors.listing(unknown)}; use the config of'
        ' a T5 v1.1 encoder'
      )
    for key, (default, supported) in _FIXED.items():
      if values.get(key, default) != supported:
        raise errors.UserError(
          f'{source}: {key} = {values.get(key, default)!r} is not supported;'
          f' use a T5 v1.1 encoder, which has {supported!r}'
        )
    if missing := set(_REQUIRED) - set(values):
      raise errors.UserError(
        f'{source}: no {errors.listing(missing)}; copy the file from the'
        ' published model again'
      )
    fields = {key: values[key] for key in _REQUIRED}
    fields |= {key: values.get(key, value) for key, value in _DEFAULTS.items()}
    for key, value in fields.items():
      kinds = (int, float) if key == 'layer_norm_epsilon' else (int,)
      if type(value) not in kinds or value <= 0:
        raise errors.UserError(
          f'{source}: {key} = {value!r}; give a positive'
          f' {"number" if float in kinds else "integer"}'
        )
    # The buckets of both signs each start with a half of exact distances.
    buckets = fields['relative_attention_num_buckets']
    distance = fields['relative_attention_max_distance']
    if buckets % 4 or distance <= buckets // 4:
      raise errors.UserError(
        f'{source}: {buckets} relative attention buckets up to distance'
        f' {distance}; give a multiple of 4, and a distance above a quarter'
        ' of it'
      )
    return cls(**fields)

  def to_json(self) -> dict[str, Any]:
    """A config.json that transformers loads as T5EncoderModel."""
    return {
      'architectures': ['T5EncoderModel'],
      **dataclasses.asdict(self),
      **{key: supported for key, (_, supported) in _FIXED.items()},
      'pad_token_id': 0,
      'eos_token_id': 1,
      'decoder_start_token_id': 0,
      # What v1.1 publishes; nothing in the encoder reads it.
      'tie_word_embeddings': False,
    }


_REQUIRED = (
  'vocab_size', 'd_model', 'd_kv', 'd_ff', 'num_layers', 'num_heads',
)  # fmt: skip

# What transformers takes where a file says nothing: early files of v1.1 have
# no maximal distance.
_DEFAULTS = {
  'relative_attention_num_buckets': 32,
  'relative_attention_max_distance': 128,
  'layer_norm_epsilon': 1e-6,
}

# {key: (what transformers takes where a file says nothing, what we support)}.
_FIXED = {
  'model_type': ('t5', 't5'),
  # Without the gate it is T5 1.0, whose default is relu.
  'feed_forward_proj': ('relu', 'gated-gelu'),
  'dense_act_fn': ('gelu_new', 'gelu_new'),
  'is_gated_act': (True, True),
  # A decoder's attention is causal, and its buckets count backwards only.
  'is_decoder': (False, False),
}

# Keys that do not change what an encoder computes at inference. Tied word
# embeddings only rescale the logits of a decoder, and transformers 5 writes
# `true` for every T5; an encoder has one embedding whatever the key says.
_IGNORED = frozenset({
  '_name_or_path', 'architectures', 'bos_token_id', 'classifier_dropout',
  'decoder_start_token_id', 'dropout_rate', 'dtype', 'eos_token_id',
  'initializer_factor', 'is_encoder_decoder', 'n_positions',
  'num_decoder_layers', 'output_past', 'pad_token_id',
  'scale_decoder_outputs', 'task_specific_params', 'tie_word_embeddings',
  'torch_dtype', 'transformers_version', 'use_cache',
})  # fmt: skip
