"""Sizes of a T5 v1.1 encoder, and its published config.json."""

from collections.abc import Mapping
import dataclasses
from typing import Any, Self

from lift_jax.errors import UserError
from lift_jax.weights.published_config import PublishedConfig


@dataclasses.dataclass(frozen=True)
class T5Config:
  """Sizes of the encoder; the defaults are google/t5-v1_1-xxl.

  Attributes:
    vocab_size: number of tokens.
    d_model: width of the residual stream.
    d_kv: width of one attention head; num_heads * d_kv may differ from d_model.
    d_ff: width of the gated feed-forward layer.
    num_layers: number of blocks.
    num_heads: attention heads of a block.
    relative_attention_num_buckets: number of position biases of a head.
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

  def __post_init__(self):
    # Half of the buckets of each sign are exact distances.
    buckets = self.relative_attention_num_buckets
    distance = self.relative_attention_max_distance
    if buckets % 4 or distance <= buckets // 4:
      raise UserError(
        f'{buckets} relative attention buckets with maximal distance {distance}'
        '; give a multiple of 4, and a distance above a quarter of it'
      )

  @classmethod
  def from_json(
    cls, values: Mapping[str, Any], source: str = 'text_encoder/config.json'
  ) -> Self:
    """Reads the config.json of transformers' T5EncoderModel.

    Args:
      values: the parsed file.
      source: how errors name the file.

    Raises:
      UserError: a size is missing or invalid, or the file does not describe a
        T5 v1.1 encoder.
    """
    return _PUBLISHED.read(cls, values, source)

  def to_json(self) -> dict[str, Any]:
    """A config.json that transformers loads as T5EncoderModel."""
    return {
      'architectures': ['T5EncoderModel'],
      **_PUBLISHED.write(self),
      'pad_token_id': 0,
      'eos_token_id': 1,
      'decoder_start_token_id': 0,
      # As published with v1.1; the encoder does not use it.
      'tie_word_embeddings': False,
    }


def _same(*names: str) -> dict[str, str]:
  return {name: name for name in names}


_PUBLISHED = PublishedConfig(
  kind='a T5 v1.1 encoder',
  required=_same(
    'vocab_size', 'd_model', 'd_kv', 'd_ff', 'num_layers', 'num_heads'
  ),
  # Early files of v1.1 lack the maximal distance.
  optional=_same(
    'relative_attention_num_buckets',
    'relative_attention_max_distance',
    'layer_norm_epsilon',
  ),
  fixed={
    'model_type': 't5',
    'feed_forward_proj': 'gated-gelu',
    'dense_act_fn': 'gelu_new',
    'is_gated_act': True,
    # A decoder has causal attention, and buckets for one direction only.
    'is_decoder': False,
  },
  # Files without it are of T5 1.0, which has no gate.
  stated=('feed_forward_proj',),
  # `tie_word_embeddings`, which any file may have, affects decoders only.
  ignored=(
    'classifier_dropout',
    'dropout_rate',
    'n_positions',
    'num_decoder_layers',
    'scale_decoder_outputs',
  ),
)
