"""Sizes of CLIP, and its published config.json."""

from collections.abc import Mapping
import dataclasses
from typing import Any, Self

from lift_jax.errors import UserError
from lift_jax.models import vision
from lift_jax.weights.published_config import PublishedConfig


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipVisionConfig(vision.TowerConfig):
  """Sizes of the image encoder; the defaults are B/32."""

  image_size: int = 224
  patch_size: int = 32
  width: int = 768
  num_layers: int = 12
  num_heads: int = 12
  mlp_width: int = 3072
  norm_eps: float = 1e-5
  feature_layer: int = -1


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipTextConfig:
  """Sizes of the text encoder; the defaults are those of B/32.

  Attributes:
    vocab_size: number of tokens.
    max_length: tokens of a text, with the first and the last.
    width: of a token.
    num_layers: blocks.
    num_heads: attention heads.
    mlp_width: hidden width of the MLP.
    norm_eps: of every norm.
  """

  vocab_size: int = 49408
  max_length: int = 77
  width: int = 512
  num_layers: int = 12
  num_heads: int = 8
  mlp_width: int = 2048
  norm_eps: float = 1e-5

  def __post_init__(self):
    if self.width % self.num_heads:
      raise UserError(
        f'hidden_size {self.width} of the text encoder is not divisible by'
        f' num_attention_heads {self.num_heads}; use a divisor'
      )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ClipConfig:
  """Sizes; the defaults are openai/clip-vit-base-patch32.

  Attributes:
    vision: of the image encoder.
    text: of the text encoder.
    projection_dim: width of the space of images and texts.
  """

  vision: ClipVisionConfig = ClipVisionConfig()
  text: ClipTextConfig = ClipTextConfig()
  projection_dim: int = 512

  @classmethod
  def from_json(
    cls, values: Mapping[str, Any], source: str = 'config.json'
  ) -> Self:
    """Reads the config.json of transformers' CLIPModel.

    Args:
      values: the parsed file, of any version of transformers.
      source: how errors name the file.

    Raises:
      UserError: a size is invalid, or the file describes another network.
    """
    return _PUBLISHED.read(
      cls,
      values,
      source,
      vision=_VISION.read(
        ClipVisionConfig, *_part(values, 'vision_config', source)
      ),
      text=_TEXT.read(ClipTextConfig, *_part(values, 'text_config', source)),
    )

  def to_json(self) -> dict[str, Any]:
    """A config.json that any version of transformers loads."""
    return {
      'architectures': ['CLIPModel'],
      **_PUBLISHED.write(self),
      'vision_config': _VISION.write(self.vision),
      # As published: with 2, the largest id of a text is its last token.
      'text_config': {**_TEXT.write(self.text), 'eos_token_id': 2},
    }


# openai/clip-vit-large-patch14.
L14 = ClipConfig(
  vision=ClipVisionConfig(
    patch_size=14, width=1024, num_layers=24, num_heads=16, mlp_width=4096
  ),
  text=ClipTextConfig(width=768, num_heads=12, mlp_width=3072),
  projection_dim=768,
)


def _part(
  values: Mapping[str, Any], key: str, source: str
) -> tuple[dict[str, Any], str]:
  """The config of an encoder, and how errors name it.

  Older files have the sizes twice: `text_config_dict` takes precedence over
  `text_config`.
  """
  parts = [values.get(name) or {} for name in (key, f'{key}_dict')]
  if not all(isinstance(part, Mapping) for part in parts):
    raise UserError(f'{source}: {key} is not an object; use that of a CLIP')
  return {**parts[0], **parts[1]}, f'{key} of {source}'


_SIZES = {
  'hidden_size': 'width',
  'num_hidden_layers': 'num_layers',
  'num_attention_heads': 'num_heads',
  'intermediate_size': 'mlp_width',
  'layer_norm_eps': 'norm_eps',
}
_FIXED = {'hidden_act': 'quick_gelu', 'attention_dropout': 0.0}
# The projections are described at the top level; dropout is no longer read.
_IGNORED = ('projection_dim', 'dropout')

_VISION = PublishedConfig(
  kind='a CLIP image encoder',
  optional={'image_size': 'image_size', 'patch_size': 'patch_size', **_SIZES},
  fixed={'model_type': 'clip_vision_model', 'num_channels': 3, **_FIXED},
  ignored=_IGNORED,
)
_TEXT = PublishedConfig(
  kind='a CLIP text encoder',
  optional={
    'vocab_size': 'vocab_size',
    'max_position_embeddings': 'max_length',
    **_SIZES,
  },
  fixed={'model_type': 'clip_text_model', **_FIXED},
  ignored=_IGNORED,
)
_PUBLISHED = PublishedConfig(
  kind='CLIP',
  optional={'projection_dim': 'projection_dim'},
  fixed={'model_type': 'clip'},
  stated=('model_type',),
  ignored=(
    'logit_scale_init_value',
    *(f'{part}_config{more}' for part in ('text', 'vision')
      for more in ('', '_dict')),
  ),
)  # fmt: skip
