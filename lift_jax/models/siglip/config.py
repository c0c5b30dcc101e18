"""Sizes of a SigLIP vision tower, and its published config.json."""

from collections.abc import Mapping
import dataclasses
from typing import Any, Self

from lift_jax.models import vision
from lift_jax.weights.published_config import PublishedConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class SiglipConfig(vision.TowerConfig):
  """Sizes; the defaults are so400m-patch14-384, as in VILA-1.5 13b."""

  image_size: int = 384
  patch_size: int = 14
  width: int = 1152
  num_layers: int = 27
  num_heads: int = 16
  mlp_width: int = 4304
  norm_eps: float = 1e-6
  feature_layer: int = -2  # VILA's scripts/v1_5/release/13b/3_sft.sh

  @classmethod
  def from_json(
    cls,
    values: Mapping[str, Any],
    source: str = 'vision_tower/config.json',
    *,
    feature_layer: int = -2,
  ) -> Self:
    """Reads the config.json of transformers' SiglipVisionModel.

    The config.json of a complete SiglipModel, which contains it, works too.

    Args:
      values: the parsed file, of any version of transformers.
      source: how errors name the file.
      feature_layer: see `TowerConfig`; it is in VILA's own config.json.

    Raises:
      UserError: a size is missing or invalid, or the file describes another
        network.
    """
    if values.get('model_type') == 'siglip':
      vision_values = values.get('vision_config')
      values = vision_values if isinstance(vision_values, Mapping) else {}
      source = f'vision_config of {source}'
    return _PUBLISHED.read(cls, values, source, feature_layer=feature_layer)

  def to_json(self) -> dict[str, Any]:
    """A config.json that any version of transformers loads."""
    return {'architectures': ['SiglipVisionModel'], **_PUBLISHED.write(self)}


_PUBLISHED = PublishedConfig(
  kind='a SigLIP vision tower',
  required={
    'image_size': 'image_size',
    'patch_size': 'patch_size',
    'hidden_size': 'width',
    'num_hidden_layers': 'num_layers',
    'num_attention_heads': 'num_heads',
    'intermediate_size': 'mlp_width',
  },
  # The file of a complete SiglipModel omits it.
  optional={'layer_norm_eps': 'norm_eps'},
  fixed={
    'model_type': 'siglip_vision_model',
    'hidden_act': 'gelu_pytorch_tanh',
    'num_channels': 3,
    'attention_dropout': 0.0,
  },
  # The pooling head is not part of the tower.
  ignored=('vision_use_head',),
)
