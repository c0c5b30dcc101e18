"""The CogVideoX 3D causal video autoencoder (arXiv 2408.06072, section 2.1).

A video is processed in chunks of a few frames. Convolutions are causal in time,
so all that a chunk needs of its predecessor is, for each 3x3x3 convolution, the
last two frames of its input: the cache. The statistics of GroupNorm are over
one chunk, hence results depend on the chunk lengths, which are in
vae_tiling.py.

Every module with causal convolutions is called as
`y, new_cache = module(x, cache, ...)`; a cache is a nested tuple of frames in
call order, or None at the start of a video.

`**options` are `dtype` (of the computation), `param_dtype` and `rngs`. Norms
are computed in fp32 whatever `dtype` is.

Follows diffusers' AutoencoderKLCogVideoX, which the tests compare with.

Shapes: B batch  T video frames  H W height and width at any resolution  C
channels  F latent frames  h w height and width in latents.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

from flax import nnx
import jax
import jax.numpy as jnp

from lift_jax.models.cogvideox import vae_tiling
from lift_jax.models.cogvideox.vae_config import VAEConfig

Cache = Any  # nested tuple of [B, 2, H, W, C], or None

_NORM_EPSILON = 1e-6  # norm_eps of the published vae/config.json
_NUM_MID_LAYERS = 2  # fixed in the published architecture

# Bounds of log variances, from the published posterior.
_MIN_LOGVAR, _MAX_LOGVAR = -30.0, 20.0


class Posterior(NamedTuple):
  """Diagonal normal distribution of latents, fp32.

  Attributes:
    mean: [B, F, h, w, C].
    logvar: [B, F, h, w, C], log of the variance, within [-30, 20].
  """

  mean: jax.Array
  logvar: jax.Array


def resize_nearest(
  x_bthwc: jax.Array, num_frames: int, height: int, width: int
) -> jax.Array:
  """Upsamples by integer factors, by repetition.

  If the number of frames is odd, the first frame is not repeated.

  Args:
    x_bthwc: [B, t, h, w, C].
    num_frames: odd if and only if t is.
    height: a multiple of h.
    width: a multiple of w.

  Returns:
    [B, num_frames, height, width, C].
  """
  _, old_frames, old_height, old_width, _ = x_bthwc.shape
  assert num_frames % 2 == old_frames % 2, (num_frames, old_frames)
  x_bthwc = jnp.repeat(x_bthwc, height // old_height, axis=2)
  x_bthwc = jnp.repeat(x_bthwc, width // old_width, axis=3)
  if num_frames == old_frames:
    return x_bthwc
  single = num_frames % 2
  times = (num_frames - single) // (old_frames - single)
  rest = jnp.repeat(x_bthwc[:, single:], times, axis=1)
  return jnp.concatenate([x_bthwc[:, :single], rest], axis=1)


def _run_all(
  layers: Sequence[nnx.Module], x_bthwc: jax.Array, cache: Cache, *args
) -> tuple[jax.Array, Cache]:
  """Runs layers in sequence, each with its own part of the cache."""
  caches = cache or (None,) * len(layers)
  new = []
  for layer, old in zip(layers, caches, strict=True):
    x_bthwc, entry = layer(x_bthwc, old, *args)
    new.append(entry)
  return x_bthwc, tuple(new)


class CausalConv(nnx.Conv):
  """3x3x3 convolution over the current and the two previous frames."""

  def __init__(self, num_in: int, num_out: int, **options):
    padding = ((0, 0), (1, 1), (1, 1))  # time is padded with past frames
    super().__init__(num_in, num_out, (3, 3, 3), padding=padding, **options)

  def __call__(
    self, x_bthwc: jax.Array, cache: Cache
  ) -> tuple[jax.Array, Cache]:
    """[B, T, H, W, in] -> [B, T, H, W, out], and the new cache.

    A video is padded with two copies of its first frame.
    """
    x_bthwc = x_bthwc.astype(self.dtype)
    if cache is None:
      cache = jnp.repeat(x_bthwc[:, :1], 2, axis=1)
    x_bthwc = jnp.concatenate([cache, x_bthwc], axis=1)
    # Selected at compile time, by the platform compiled for.
    y_bthwc = jax.lax.platform_dependent(
      x_bthwc, cpu=self._frame_by_frame, default=super().__call__
    )
    return y_bthwc, x_bthwc[:, -2:]

  def _frame_by_frame(self, x_bthwc: jax.Array) -> jax.Array:
    """The same as a sum of 2D convolutions, which XLA runs 4x faster on CPUs.

    Frame t of the output is the sum of frames t, t + 1 and t + 2 convolved with
    the first, second and third 2D kernel.
    """
    num_batch, num_frames, *size = x_bthwc.shape
    num_frames -= 2
    kernel = self.kernel[...].astype(self.dtype)

    def convolve(tap: int) -> jax.Array:
      frames = x_bthwc[:, tap : tap + num_frames].reshape(-1, *size)
      return jax.lax.conv_general_dilated(
        frames,
        kernel[tap],
        (1, 1),
        'SAME',
        dimension_numbers=('NHWC', 'HWIO', 'NHWC'),
        preferred_element_type=jnp.float32,
      )

    assert self.bias is not None  # flax's default
    y_nhwc = convolve(0) + convolve(1) + convolve(2)
    y_bthwc = y_nhwc.reshape(num_batch, num_frames, *y_nhwc.shape[1:])
    y_bthwc += self.bias[...].astype(jnp.float32).reshape(1, 1, 1, 1, -1)
    return y_bthwc.astype(self.dtype)


class PointwiseConv(nnx.Conv):
  """1x1x1 convolution, computed as a matrix product."""

  def __init__(self, num_in: int, num_out: int, **options):
    super().__init__(num_in, num_out, (1, 1, 1), **options)

  def __call__(self, x_bthwc: jax.Array) -> jax.Array:
    assert self.bias is not None  # flax's default
    kernel = self.kernel[0, 0, 0].astype(self.dtype)
    y_bthwc = x_bthwc.astype(self.dtype) @ kernel
    bias = self.bias[...].astype(self.dtype)
    return y_bthwc + bias.reshape(1, 1, 1, 1, -1)


class Norm(nnx.Module):
  """GroupNorm; in the decoder, modulated by the latents at each location.

  y = GroupNorm(x) * gain(z) + shift(z)
  """

  def __init__(
    self, config: VAEConfig, channels: int, is_decoder: bool, **options
  ):
    self.group_norm = nnx.GroupNorm(
      channels,
      config.norm_num_groups,
      epsilon=_NORM_EPSILON,
      use_fast_variance=False,
      **options | {'dtype': jnp.float32},
    )
    size = config.latent_channels, channels
    self.gain = PointwiseConv(*size, **options) if is_decoder else None
    self.shift = PointwiseConv(*size, **options) if is_decoder else None

  def __call__(
    self, x_bthwc: jax.Array, z_bfhwc: jax.Array | None
  ) -> jax.Array:
    """Returns fp32 [B, T, H, W, C]; z are the latents of this chunk."""
    y_bthwc = self.group_norm(x_bthwc)
    if self.gain is None or self.shift is None:
      return y_bthwc
    assert z_bfhwc is not None  # as in every decoder
    # A 1x1x1 convolution commutes with repetition: resize its small result.
    size = x_bthwc.shape[1:4]
    gain_bthwc = resize_nearest(self.gain(z_bfhwc), *size)
    shift_bthwc = resize_nearest(self.shift(z_bfhwc), *size)
    return y_bthwc * gain_bthwc + shift_bthwc


class ResNet(nnx.Module):
  """x + conv2(SiLU(norm2(conv1(SiLU(norm1(x))))))."""

  def __init__(
    self,
    config: VAEConfig,
    num_in: int,
    num_out: int,
    is_decoder: bool,
    **options,
  ):
    self.norm1 = Norm(config, num_in, is_decoder, **options)
    self.conv1 = CausalConv(num_in, num_out, **options)
    self.norm2 = Norm(config, num_out, is_decoder, **options)
    self.conv2 = CausalConv(num_out, num_out, **options)
    self.shortcut = (
      PointwiseConv(num_in, num_out, **options) if num_in != num_out else None
    )

  def __call__(
    self, x_bthwc: jax.Array, cache: Cache, z_bfhwc: jax.Array | None = None
  ) -> tuple[jax.Array, Cache]:
    old1, old2 = cache or (None, None)
    y_bthwc = jax.nn.silu(self.norm1(x_bthwc, z_bfhwc))
    y_bthwc, new1 = self.conv1(y_bthwc, old1)
    y_bthwc = jax.nn.silu(self.norm2(y_bthwc, z_bfhwc))
    y_bthwc, new2 = self.conv2(y_bthwc, old2)
    if self.shortcut is not None:
      x_bthwc = self.shortcut(x_bthwc)
    return x_bthwc + y_bthwc, (new1, new2)


class DownBlock(nnx.Module):
  """ResNet layers and optional downsampling, in space or in space and time.

  In time by the mean of pairs of frames, except an odd first frame; in space by
  a 3x3 convolution with stride 2 in each frame.
  """

  def __init__(
    self,
    config: VAEConfig,
    num_in: int,
    num_out: int,
    *,
    halve_space: bool,
    halve_time: bool,
    **options,
  ):
    self.halve_time = halve_time
    self.resnets = nnx.List(
      ResNet(config, num_out if i else num_in, num_out, False, **options)
      for i in range(config.layers_per_block)
    )
    size = dict(kernel_size=(3, 3), strides=2, padding=((0, 1), (0, 1)))
    self.downsample = (
      nnx.Conv(num_out, num_out, **size, **options) if halve_space else None
    )

  def __call__(
    self, x_bthwc: jax.Array, cache: Cache
  ) -> tuple[jax.Array, Cache]:
    x_bthwc, cache = _run_all(self.resnets, x_bthwc, cache)
    if self.downsample is not None:
      if self.halve_time:
        x_bthwc = _mean_of_pairs(x_bthwc)
      x_bthwc = self.downsample(x_bthwc)
    return x_bthwc, cache


def _mean_of_pairs(x_bthwc: jax.Array) -> jax.Array:
  """[B, T, ...] -> [B, ceil(T / 2), ...]; an odd first frame is unchanged."""
  num_batch, num_frames, *rest = x_bthwc.shape
  single = num_frames % 2
  pairs = x_bthwc[:, single:].reshape(num_batch, num_frames // 2, 2, *rest)
  return jnp.concatenate([x_bthwc[:, :single], pairs.mean(axis=2)], axis=1)


class UpBlock(nnx.Module):
  """ResNet layers and optional upsampling, in space or in space and time.

  By repetition, except that an odd first frame is not repeated in time, and a
  3x3 convolution in each frame.
  """

  def __init__(
    self,
    config: VAEConfig,
    num_in: int,
    num_out: int,
    *,
    double_space: bool,
    double_time: bool,
    **options,
  ):
    self.double_time = double_time
    self.resnets = nnx.List(
      ResNet(config, num_out if i else num_in, num_out, True, **options)
      for i in range(config.layers_per_block + 1)
    )
    self.upsample = (
      nnx.Conv(num_out, num_out, (3, 3), **options) if double_space else None
    )

  def __call__(
    self, x_bthwc: jax.Array, cache: Cache, z_bfhwc: jax.Array
  ) -> tuple[jax.Array, Cache]:
    x_bthwc, cache = _run_all(self.resnets, x_bthwc, cache, z_bfhwc)
    if self.upsample is not None:
      _, num_frames, height, width, _ = x_bthwc.shape
      if self.double_time:
        num_frames = 2 * num_frames - num_frames % 2
      x_bthwc = resize_nearest(x_bthwc, num_frames, 2 * height, 2 * width)
      x_bthwc = self.upsample(x_bthwc)
    return x_bthwc, cache


class Encoder(nnx.Module):
  """Encodes a chunk as means and log variances of its latents."""

  def __init__(self, config: VAEConfig, **options):
    widths = config.block_out_channels
    self.conv_in = CausalConv(config.in_channels, widths[0], **options)
    self.down_blocks = nnx.List(
      DownBlock(
        config,
        widths[max(i - 1, 0)],
        widths[i],
        halve_space=i < len(widths) - 1,
        halve_time=i < config.num_time_levels,
        **options,
      )
      for i in range(len(widths))
    )
    self.mid_block = nnx.List(
      ResNet(config, widths[-1], widths[-1], False, **options)
      for _ in range(_NUM_MID_LAYERS)
    )
    self.norm_out = Norm(config, widths[-1], False, **options)
    self.conv_out = CausalConv(
      widths[-1], 2 * config.latent_channels, **options
    )

  def __call__(
    self, x_bthwc: jax.Array, cache: Cache
  ) -> tuple[jax.Array, Cache]:
    """[B, T, H, W, 3] -> [B, F, h, w, 2 * C]."""
    in_, down, mid, out = cache or (None,) * 4
    x_bthwc, in_ = self.conv_in(x_bthwc, in_)
    x_bthwc, down = _run_all(self.down_blocks, x_bthwc, down)
    x_bfhwc, mid = _run_all(self.mid_block, x_bthwc, mid)
    x_bfhwc = jax.nn.silu(self.norm_out(x_bfhwc, None))
    x_bfhwc, out = self.conv_out(x_bfhwc, out)
    return x_bfhwc, (in_, down, mid, out)


class Decoder(nnx.Module):
  """Decodes the latents of a chunk."""

  def __init__(self, config: VAEConfig, **options):
    widths = config.block_out_channels[::-1]
    self.conv_in = CausalConv(config.latent_channels, widths[0], **options)
    self.mid_block = nnx.List(
      ResNet(config, widths[0], widths[0], True, **options)
      for _ in range(_NUM_MID_LAYERS)
    )
    self.up_blocks = nnx.List(
      UpBlock(
        config,
        widths[max(i - 1, 0)],
        widths[i],
        double_space=i < len(widths) - 1,
        double_time=i < config.num_time_levels,
        **options,
      )
      for i in range(len(widths))
    )
    self.norm_out = Norm(config, widths[-1], True, **options)
    self.conv_out = CausalConv(widths[-1], config.out_channels, **options)

  def __call__(
    self, z_bfhwc: jax.Array, cache: Cache
  ) -> tuple[jax.Array, Cache]:
    """[B, F, h, w, C] -> [B, T, H, W, 3]."""
    in_, mid, up, out = cache or (None,) * 4
    x_bfhwc, in_ = self.conv_in(z_bfhwc, in_)
    x_bfhwc, mid = _run_all(self.mid_block, x_bfhwc, mid, z_bfhwc)
    x_bthwc, up = _run_all(self.up_blocks, x_bfhwc, up, z_bfhwc)
    x_bthwc = jax.nn.silu(self.norm_out(x_bthwc, z_bfhwc))
    x_bthwc, out = self.conv_out(x_bthwc, out)
    return x_bthwc, (in_, mid, up, out)


class VAE(nnx.Module):
  """Encodes and decodes videos; latents are without the scaling factor."""

  def __init__(
    self,
    config: VAEConfig,
    *,
    dtype: Any = jnp.float32,
    param_dtype: Any = jnp.float32,
    rngs: nnx.Rngs,
  ):
    options = dict(dtype=dtype, param_dtype=param_dtype, rngs=rngs)
    self.config = config
    self.encoder = Encoder(config, **options)
    self.decoder = Decoder(config, **options)

  def encode(
    self, video_bthwc: jax.Array, *, tiling: bool = False
  ) -> Posterior:
    """Encodes a video as the distribution of its latents.

    Args:
      video_bthwc: [B, T, H, W, 3] in [-1, 1]; the published model was trained
        with T = 4k + 1.
      tiling: whether to encode videos larger than one tile, half of the
        config's sample size, in overlapping tiles. Bounds memory; the published
        training and sampling do so.

    Returns:
      Posterior of [B, F, h, w, C].

    Raises:
      UserError: a tile is smaller than one latent.
    """

    def run(x_bthwc, cache):
      moments, cache = self.encoder(x_bthwc, cache)
      return moments.astype(jnp.float32), cache

    moments = vae_tiling.encode(run, video_bthwc, self.config, tiling=tiling)
    mean, logvar = jnp.split(moments, 2, axis=-1)
    return Posterior(mean, jnp.clip(logvar, _MIN_LOGVAR, _MAX_LOGVAR))

  def decode(
    self, latents_bfhwc: jax.Array, *, tiling: bool = False
  ) -> jax.Array:
    """Decodes latents to a video, approximately in [-1, 1] and not clipped.

    Args:
      latents_bfhwc: [B, F, h, w, C].
      tiling: as in `encode`.

    Returns:
      [B, T, H, W, 3] in fp32.
    """

    def run(z_bfhwc, cache):
      frames, cache = self.decoder(z_bfhwc, cache)
      return frames.astype(jnp.float32), cache

    return vae_tiling.decode(run, latents_bfhwc, self.config, tiling=tiling)
