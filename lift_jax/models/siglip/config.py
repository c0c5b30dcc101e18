"""Sizes of a SigLIP vision tower, and its published config.json."""

from collections.abc import Mapping
import dataclasses
from typing import Any, Self

from lift_jax import errors
from lift_jax.models import published_config, vision


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

    That of a whole SiglipModel will do too: it holds the other one.

    Args:
      values: the parsed file, of any version of transformers.
      source: how errors name the file.
      feature_layer: see `TowerConfig`; it stands in VILA's own config.json.

    Raises:
      UserError: a size is missing or of no use, or the file describes another
        network than this one.
    """
    if values.get('model_type') == 'siglip':
      vision_values = values.get('vision_config')
      values = vision_values if isinstance(vision_values, Mapping) else {}
      source = f'vision_config of {source}'
    sizes = published_config.read_sizes(
      values,
      source,
      kind='a SigLIP vision tower',
      required=_REQUIRED,
      optional=_OPTIONAL,
      fixed=_FIXED,
      # The pooling head is not part of the tower.
      ignored=('vision_use_head',),
    )
    try:
      return cls(**{'norm_eps': 1e-6} | sizes, feature_layer=feature_layer)
    except errors.UserError as error:
      raise errors.UserError(f'{source}: {error}') from None

  def to_json(self) -> dict[str, Any]:
    """A config.json that any version of transformers loads."""
    return {
      'architectures': ['SiglipVisionModel'],
      **{
        key: getattr(self, field)
        for key, field in (_REQUIRED | _OPTIONAL).items()
      },
      **_FIXED,
    }


# Published keys that every file has: our field.
_REQUIRED = {
  'image_size': 'image_size',
  'patch_size': 'patch_size',
  'hidden_size': 'width',
  'num_hidden_layers': 'num_layers',
  'num_attention_heads': 'num_heads',
  'intermediate_size': 'mlp_width',
}

# Published keys that the file of a whole SiglipModel leaves out: our field.
_OPTIONAL = {'layer_norm_eps': 'norm_eps'}

_FIXED = {
  'model_type': 'siglip_vision_model',
  'hidden_act': 'gelu_pytorch_tanh',
  'num_channels': 3,
  'attention_dropout': 0.0,
}
