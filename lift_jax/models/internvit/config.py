"""Sizes of an InternViT-6B tower, and its published config.json."""

from collections.abc import Mapping
import dataclasses
from typing import Any, Self

from lift_jax import errors
from lift_jax.models import vision
from lift_jax.weights.published_config import PublishedConfig

NORM_TYPES = ('rms_norm', 'layer_norm')


@dataclasses.dataclass(frozen=True, kw_only=True)
class InternViTConfig(vision.TowerConfig):
  """Sizes; the defaults are InternViT-6B-448px-V1-2, as in VILA-1.5 40b.

  Attributes:
    norm_type: of the norms before attention and feed-forward layer; queries
      and keys have RMS norms in any case.
  """

  image_size: int = 448
  patch_size: int = 14
  width: int = 3200
  num_layers: int = 45
  num_heads: int = 25
  mlp_width: int = 12800
  norm_eps: float = 1e-6
  feature_layer: int = -1  # VILA's scripts/v1_5/release/40b/3_sft.sh
  norm_type: str = 'rms_norm'

  def __post_init__(self):
    super().__post_init__()
    if self.norm_type not in NORM_TYPES:
      raise errors.UserError(
        f'norm_type {self.norm_type!r} of the vision tower is not one of'
        f' {NORM_TYPES}; use InternViT-6B'
      )

  @classmethod
  def from_json(
    cls,
    values: Mapping[str, Any],
    source: str = 'vision_tower/config.json',
    *,
    feature_layer: int = -1,
  ) -> Self:
    """Reads the config.json of OpenGVLab's InternVisionModel.

    Args:
      values: the parsed file.
      source: how errors name the file.
      feature_layer: see `TowerConfig`; it is in VILA's own config.json.

    Raises:
      UserError: a size is missing or invalid, or the file describes another
        network.
    """
    return _PUBLISHED.read(cls, values, source, feature_layer=feature_layer)

  def to_json(self) -> dict[str, Any]:
    """A config.json in OpenGVLab's format."""
    return {'architectures': ['InternVisionModel'], **_PUBLISHED.write(self)}


_PUBLISHED = PublishedConfig(
  kind='InternViT-6B',
  required={
    'image_size': 'image_size',
    'patch_size': 'patch_size',
    'hidden_size': 'width',
    'num_hidden_layers': 'num_layers',
    'num_attention_heads': 'num_heads',
    'intermediate_size': 'mlp_width',
    'layer_norm_eps': 'norm_eps',
  },
  # Early files omit it, as there was only one kind.
  optional={'norm_type': 'norm_type'},
  fixed={
    'model_type': 'intern_vit_6b',
    'hidden_act': 'gelu',
    'num_channels': 3,
    'qk_normalization': True,
    'qkv_bias': False,
    'attention_dropout': 0.0,
    'dropout': 0.0,
  },
  # Stochastic depth while the tower itself is trained, and the attention
  # kernel.
  ignored=('drop_path_rate', 'use_flash_attn'),
)
