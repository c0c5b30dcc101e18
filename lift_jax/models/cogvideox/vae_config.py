"""Sizes of the CogVideoX video autoencoder, from the published config.json."""

from collections.abc import Mapping
import dataclasses
from typing import Any, Self

from lift_jax import errors
from lift_jax.weights.published_config import PublishedConfig

_DOWN_BLOCK = 'CogVideoXDownBlock3D'
_UP_BLOCK = 'CogVideoXUpBlock3D'


@dataclasses.dataclass(frozen=True)
class VAEConfig:
  """CogVideoX autoencoder; the defaults are those of the 2B model.

  Attributes:
    in_channels: channels of the input video.
    out_channels: channels of the output video.
    block_out_channels: widths of the encoder's blocks, from pixels to latents;
      each block but the last halves height and width.
    latent_channels: latent channels.
    layers_per_block: ResNet layers per encoder block; decoder blocks have one
      more.
    norm_num_groups: groups of every GroupNorm.
    temporal_compression_ratio: frames per latent frame, a power of two.
    sample_height: pixels; tiles are half as high.
    sample_width: pixels; tiles are half as wide. Tiles are seamless if the
      height is a multiple of 12 and the width a multiple of 10 latents.
    scaling_factor: factor of latents before the transformer.
    invert_scale_latents: whether image-to-video divides its image latents by
      the factor instead; not used here.
  """

  in_channels: int = 3
  out_channels: int = 3
  block_out_channels: tuple[int, ...] = (128, 256, 256, 512)
  latent_channels: int = 16
  layers_per_block: int = 3
  norm_num_groups: int = 32
  temporal_compression_ratio: int = 4
  sample_height: int = 480
  sample_width: int = 720
  scaling_factor: float = 1.15258426
  invert_scale_latents: bool = False

  def __post_init__(self):
    for channels in self.block_out_channels:
      if channels % self.norm_num_groups:
        raise errors.UserError(
          f'VAE config: block_out_channels has {channels}; give multiples of '
          f'norm_num_groups {self.norm_num_groups}'
        )
    ratio = self.temporal_compression_ratio
    if ratio & (ratio - 1) or ratio > self.spatial_ratio:
      raise errors.UserError(
        f'VAE config: temporal_compression_ratio is {ratio}; give a power of '
        f'two up to {self.spatial_ratio}, as the blocks are'
        f' {len(self.block_out_channels)}'
      )

  @property
  def spatial_ratio(self) -> int:
    """Pixels per latent, in height and in width."""
    return 2 ** (len(self.block_out_channels) - 1)

  @property
  def num_time_levels(self) -> int:
    """Blocks that also downsample, or upsample, in time."""
    return self.temporal_compression_ratio.bit_length() - 1

  @classmethod
  def from_json(
    cls, published: Mapping[str, Any], source: str = 'vae/config.json'
  ) -> Self:
    """Reads vae/config.json; missing keys have the published defaults.

    Args:
      published: the content of a vae/config.json.
      source: name of the file in errors.

    Raises:
      UserError: a key is unknown, or its value is not supported.
    """
    values = dict(published)
    # Diffusers sometimes writes 4.0, as its annotation is float.
    ratio = values.get('temporal_compression_ratio')
    if isinstance(ratio, float) and ratio.is_integer():
      values['temporal_compression_ratio'] = int(ratio)
    config = _PUBLISHED.read(cls, values, source)
    for key, expected in config._block_types().items():
      if values.get(key, expected) not in (expected, tuple(expected)):
        raise errors.UserError(
          f'{source}: {key}={values[key]!r} (only {expected!r}); use the '
          f'config of {_PUBLISHED.kind}'
        )
    return config

  def to_json(self) -> dict[str, Any]:
    """The published vae/config.json."""
    return {
      **_PUBLISHED.write(self),
      **self._block_types(),
      'block_out_channels': list(self.block_out_channels),
      'force_upcast': True,
    }

  def _block_types(self) -> dict[str, list[str]]:
    num_blocks = len(self.block_out_channels)
    return {
      'down_block_types': [_DOWN_BLOCK] * num_blocks,
      'up_block_types': [_UP_BLOCK] * num_blocks,
    }


_PUBLISHED = PublishedConfig(
  kind='a CogVideoX VAE',
  optional={field.name: field.name for field in dataclasses.fields(VAEConfig)},
  # No published CogVideoX has other values.
  fixed={
    '_class_name': 'AutoencoderKLCogVideoX',
    'act_fn': 'silu',
    'norm_eps': 1e-6,
    'shift_factor': None,
    'latents_mean': None,
    'latents_std': None,
    'use_quant_conv': False,
    'use_post_quant_conv': False,
  },
  # The first two are checked in `from_json`.
  ignored=('down_block_types', 'up_block_types', 'force_upcast'),
)
