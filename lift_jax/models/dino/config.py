"""Sizes of DINO, and its published config.json."""

from collections.abc import Mapping
import dataclasses
from typing import Any, Self

from lift_jax.models import vision
from lift_jax.weights.published_config import PublishedConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class DinoConfig(vision.TowerConfig):
  """Sizes; the defaults are facebook/dino-vitb16."""

  image_size: int = 224
  patch_size: int = 16
  width: int = 768
  num_layers: int = 12
  num_heads: int = 12
  mlp_width: int = 3072
  norm_eps: float = 1e-12
  feature_layer: int = -1

  @classmethod
  def from_json(
    cls, values: Mapping[str, Any], source: str = 'config.json'
  ) -> Self:
    """Reads the config.json of transformers' ViTModel.

    Args:
      values: the parsed file, of any version of transformers.
      source: how errors name the file.

    Raises:
      UserError: a size is invalid, or the file describes another network.
    """
    return _PUBLISHED.read(cls, values, source)

  def to_json(self) -> dict[str, Any]:
    """A config.json that any version of transformers loads."""
    return {'architectures': ['ViTModel'], **_PUBLISHED.write(self)}


_PUBLISHED = PublishedConfig(
  kind='a DINO vision transformer',
  optional={
    'image_size': 'image_size',
    'patch_size': 'patch_size',
    'hidden_size': 'width',
    'num_hidden_layers': 'num_layers',
    'num_attention_heads': 'num_heads',
    'intermediate_size': 'mlp_width',
    'layer_norm_eps': 'norm_eps',
  },
  fixed={
    'model_type': 'vit',
    'hidden_act': 'gelu',
    'num_channels': 3,
    'qkv_bias': True,
    'attention_probs_dropout_prob': 0.0,
    'hidden_dropout_prob': 0.0,
  },
  stated=('model_type',),
  # Of other heads than the class token.
  ignored=('encoder_stride', 'pooler_act', 'pooler_output_size'),
)
