"""Sizes of the CogVideoX transformer, from the published config.json."""

from collections.abc import Mapping
import dataclasses
from typing import Any, Self

from lift_jax.errors import UserError
from lift_jax.weights.published_config import PublishedConfig


@dataclasses.dataclass(frozen=True)
class TransformerConfig:
  """CogVideoX transformer; the defaults are the 2B model (from its model card).

  Attributes:
    max_text_length: text tokens of every prompt, padding included.
    sample_height: latent height of the training videos.
    sample_width: latent width of the training videos.
    sample_frames: video frames of the training videos.
    spatial_scale: divides row and column positions of the sin-cos table.
    temporal_scale: divides frame positions of the sin-cos table.
    use_rotary: rotary embeddings (5B) instead of the sin-cos table (2B).
  """

  num_layers: int = 30
  num_heads: int = 30
  head_dim: int = 64
  in_channels: int = 16
  out_channels: int = 16
  time_embed_dim: int = 512
  text_embed_dim: int = 4096
  max_text_length: int = 226
  patch_size: int = 2
  sample_height: int = 60
  sample_width: int = 90
  sample_frames: int = 49
  temporal_compression: int = 4
  norm_eps: float = 1e-5
  spatial_scale: float = 1.875
  temporal_scale: float = 1.0
  use_rotary: bool = False

  def __post_init__(self):
    if self.width % 4:
      raise UserError(
        f'transformer width {self.width} is not divisible by 4; change '
        'num_heads or head_dim'
      )
    if self.use_rotary and self.head_dim % 16:
      raise UserError(
        f'head_dim is {self.head_dim}; rotary embeddings need a multiple of 16'
      )

  @property
  def width(self) -> int:
    """Width of a token."""
    return self.num_heads * self.head_dim

  def num_tokens(self, frames: int, height: int, width: int) -> int:
    """Tokens, text included, of latents [frames, height, width, C]."""
    patches = (height // self.patch_size) * (width // self.patch_size)
    return self.max_text_length + frames * patches

  @classmethod
  def from_json(cls, published: Mapping[str, Any]) -> Self:
    """Reads transformer/config.json of a diffusers folder.

    Raises:
      UserError: an unknown key, or a value not supported by CogVideoX 1.0.
    """
    return _PUBLISHED.read(cls, published, 'transformer/config.json')

  def to_json(self) -> dict[str, Any]:
    """The published transformer/config.json."""
    return {
      '_class_name': 'CogVideoXTransformer3DModel',
      **_PUBLISHED.write(self),
    }


_PUBLISHED = PublishedConfig(
  kind='a CogVideoX 1.0 text-to-video transformer',
  optional={
    'num_layers': 'num_layers',
    'num_attention_heads': 'num_heads',
    'attention_head_dim': 'head_dim',
    'in_channels': 'in_channels',
    'out_channels': 'out_channels',
    'time_embed_dim': 'time_embed_dim',
    'text_embed_dim': 'text_embed_dim',
    'max_text_seq_length': 'max_text_length',
    'patch_size': 'patch_size',
    'sample_height': 'sample_height',
    'sample_width': 'sample_width',
    'sample_frames': 'sample_frames',
    'temporal_compression_ratio': 'temporal_compression',
    'norm_eps': 'norm_eps',
    'spatial_interpolation_scale': 'spatial_scale',
    'temporal_interpolation_scale': 'temporal_scale',
    'use_rotary_positional_embeddings': 'use_rotary',
  },
  fixed={
    'activation_fn': 'gelu-approximate',
    'attention_bias': True,
    'dropout': 0.0,
    'flip_sin_to_cos': True,
    'freq_shift': 0,
    'norm_elementwise_affine': True,
    'ofs_embed_dim': None,
    'patch_bias': True,
    'patch_size_t': None,
    'timestep_activation_fn': 'silu',
    'use_learned_positional_embeddings': False,
  },
)

COGVIDEOX_2B = TransformerConfig()
COGVIDEOX_5B = TransformerConfig(num_layers=42, num_heads=48, use_rotary=True)
