"""Chunking in time and tiling in space for the video autoencoder.

Both bound memory, and both change the result (GroupNorm is over one chunk of
one tile), so lengths, overlaps and the order of blending are those of the
published pipeline (diffusers' AutoencoderKLCogVideoX).

Shapes: B batch  T frames  H W height and width  C channels, of pixels or of
latents.
"""

from collections.abc import Callable
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from lift_jax import errors
from lift_jax.models.cogvideox.vae_config import VAEConfig

# Frames per chunk; from the published pipeline.
FRAMES_PER_CHUNK = 8
LATENTS_PER_CHUNK = 2

# Fraction of a tile that overlaps the next one; from the published pipeline.
OVERLAP_HEIGHT = 1 / 6
OVERLAP_WIDTH = 1 / 5

# run(x_bthwc, cache) -> (y_bthwc, cache), with the cache None at the start
Run = Callable[[jax.Array, Any], tuple[jax.Array, Any]]


class Tiles(NamedTuple):
  """Tiles along one axis; input and output may differ in scale.

  Attributes:
    size: length of a tile in the input; the last ones may be shorter.
    stride: distance between the starts of tiles, in the input.
    blend: length of the blend with the previous tile, in the output.
    keep: length of each tile that is kept, in the output.
  """

  size: int
  stride: int
  blend: int
  keep: int

  def spans(self, length: int) -> tuple[tuple[int, int], ...]:
    """(start, size) of each tile of an axis of `length`."""
    return tuple(
      (start, min(self.size, length - start))
      for start in range(0, length, self.stride)
    )


@dataclasses.dataclass(frozen=True)
class Layout:
  """Tiles of an image, by row and column.

  Attributes:
    rows: (start, size) of each row of tiles in the input.
    columns: the same of each column.
    groups: {(height, width): [(row, column), ...]}, tiles of equal shape.
  """

  rows: tuple[tuple[int, int], ...]
  columns: tuple[tuple[int, int], ...]
  groups: dict[tuple[int, int], list[tuple[int, int]]]


def _axis(sample: int, overlap: float, ratio: int) -> tuple[Tiles, Tiles]:
  """(encode, decode) tiles of an axis of `sample` pixels.

  The products are rounded down one by one, as in the published pipeline.
  """
  pixels = sample // 2
  latents = pixels // ratio
  pixel_blend, latent_blend = int(pixels * overlap), int(latents * overlap)
  pixel_stride = int(pixels * (1 - overlap))
  latent_stride = int(latents * (1 - overlap))
  if latent_stride < 1:
    raise errors.UserError(
      f'VAE config: a sample size of {sample} pixels is too small for tiling; '
      f'give at least {4 * ratio} or turn tiling off'
    )
  return (
    Tiles(pixels, pixel_stride, latent_blend, latents - latent_blend),
    Tiles(latents, latent_stride, pixel_blend, pixels - pixel_blend),
  )


def encode_tiles(config: VAEConfig) -> tuple[Tiles, Tiles]:
  """(vertical, horizontal) tiles from pixels to latents."""
  ratio = config.spatial_ratio
  return (
    _axis(config.sample_height, OVERLAP_HEIGHT, ratio)[0],
    _axis(config.sample_width, OVERLAP_WIDTH, ratio)[0],
  )


def decode_tiles(config: VAEConfig) -> tuple[Tiles, Tiles]:
  """(vertical, horizontal) tiles from latents to pixels."""
  ratio = config.spatial_ratio
  return (
    _axis(config.sample_height, OVERLAP_HEIGHT, ratio)[1],
    _axis(config.sample_width, OVERLAP_WIDTH, ratio)[1],
  )


def layout(
  vertical: Tiles, horizontal: Tiles, height: int, width: int
) -> Layout:
  """The tiles of an image of height x width."""
  rows = vertical.spans(height)
  columns = horizontal.spans(width)
  groups = {}
  for i, (_, tile_height) in enumerate(rows):
    for j, (_, tile_width) in enumerate(columns):
      groups.setdefault((tile_height, tile_width), []).append((i, j))
  return Layout(rows, columns, groups)


def run_chunks(run: Run, x_bthwc: jax.Array, chunk: int) -> jax.Array:
  """Runs chunks of frames in order, each with its predecessor's cache.

  The first chunk includes the remainder; the equal ones after it are scanned,
  so that a program contains the network twice whatever the length. A single one
  is not scanned: on CPUs, XLA optimises gradients of convolutions only outside
  of loops, and unoptimised ones are many times slower.

  Args:
    run: `run(x_bthwc, cache) -> (y_bthwc, cache)`.
    x_bthwc: [B, T, H, W, C].
    chunk: frames per chunk.
  """
  num_batch, num_frames = x_bthwc.shape[:2]
  num_rest = max(num_frames // chunk, 1) - 1
  num_first = num_frames - num_rest * chunk
  first, cache = run(x_bthwc[:, :num_first], None)
  if not num_rest:
    return first

  def step(cache, x_bthwc):
    y_bthwc, cache = run(x_bthwc, cache)
    return cache, y_bthwc

  rest = x_bthwc[:, num_first:]
  if num_rest == 1:
    return jnp.concatenate([first, run(rest, cache)[0]], axis=1)
  rest = rest.reshape(num_batch, num_rest, chunk, *rest.shape[2:])
  _, rest = jax.lax.scan(step, cache, jnp.moveaxis(rest, 1, 0))
  rest = jnp.moveaxis(rest, 0, 1)
  rest = rest.reshape(num_batch, -1, *rest.shape[3:])
  return jnp.concatenate([first, rest], axis=1)


def run_tiles(
  run: Callable[[jax.Array], jax.Array],
  x_bthwc: jax.Array,
  vertical: Tiles,
  horizontal: Tiles,
) -> jax.Array:
  """Runs overlapping tiles one by one and blends them.

  Tiles of equal shape share one trace of the network.

  Args:
    run: `run(tile_bthwc) -> y_bthwc`, as for a video of this size.
    x_bthwc: [B, T, H, W, C].
    vertical: tiles along H.
    horizontal: tiles along W.
  """
  num_batch, num_frames, height, width, channels = x_bthwc.shape
  plan = layout(vertical, horizontal, height, width)
  tiles = {}
  for (tile_height, tile_width), indices in plan.groups.items():
    size = (num_batch, num_frames, tile_height, tile_width, channels)

    def run_at(start, size=size):
      top, left = start
      tile = jax.lax.dynamic_slice(x_bthwc, (0, 0, top, left, 0), size)
      return run(tile)

    tops = jnp.array([plan.rows[i][0] for i, _ in indices])
    lefts = jnp.array([plan.columns[j][0] for _, j in indices])
    results = jax.lax.map(run_at, (tops, lefts))
    tiles |= {index: results[k] for k, index in enumerate(indices)}

  # In row-major order, so that each tile is blended with blended neighbours.
  rows = []
  for i in range(len(plan.rows)):
    for j in range(len(plan.columns)):
      tile = tiles[i, j]
      if i:
        tile = _blend(tiles[i - 1, j], tile, vertical.blend, axis=2)
      if j:
        tile = _blend(tiles[i, j - 1], tile, horizontal.blend, axis=3)
      tiles[i, j] = tile
    row = [
      tiles[i, j][:, :, : vertical.keep, : horizontal.keep]
      for j in range(len(plan.columns))
    ]
    rows.append(jnp.concatenate(row, axis=3))
  return jnp.concatenate(rows, axis=2)


def _blend(before: jax.Array, tile: jax.Array, blend: int, axis: int):
  """Blends the start of `tile` linearly with the end of `before`.

  At index k of n the weight of the tile is k / n.
  """
  num = min(before.shape[axis], tile.shape[axis], blend)
  if not num:
    return tile
  shape = [1] * tile.ndim
  shape[axis] = num
  weight = (jnp.arange(num, dtype=tile.dtype) / num).reshape(shape)
  length = before.shape[axis]
  end = jax.lax.slice_in_dim(before, length - num, length, axis=axis)
  beginning = jax.lax.slice_in_dim(tile, 0, num, axis=axis)
  rest = jax.lax.slice_in_dim(tile, num, None, axis=axis)
  blended = end * (1 - weight) + beginning * weight
  return jnp.concatenate([blended, rest], axis=axis)


def encode(
  run: Run, video_bthwc: jax.Array, config: VAEConfig, *, tiling: bool
) -> jax.Array:
  """Encodes [B, T, H, W, 3] to moments [B, F, h, w, 2 * C] by `run`.

  Raises:
    UserError: the video, or a tile of it, is smaller than one latent.
  """
  height, width = video_bthwc.shape[2:4]
  tiles = _active_tiles(encode_tiles, config, height, width, tiling)
  shortest = min(height, width)
  if tiles is not None:
    spans = (*tiles[0].spans(height), *tiles[1].spans(width))
    shortest = min(size for _, size in spans)
  if shortest < config.spatial_ratio:
    raise errors.UserError(
      f'video of {height}x{width}: a side of {shortest} pixels is too small to '
      f'encode; give sizes that are multiples of {config.spatial_ratio}'
    )
  return _run(run, video_bthwc, FRAMES_PER_CHUNK, tiles)


def decode(
  run: Run, latents_bfhwc: jax.Array, config: VAEConfig, *, tiling: bool
) -> jax.Array:
  """Decodes [B, F, h, w, C] to [B, T, H, W, 3] by `run`."""
  height, width = latents_bfhwc.shape[2:4]
  tiles = _active_tiles(decode_tiles, config, height, width, tiling)
  return _run(run, latents_bfhwc, LATENTS_PER_CHUNK, tiles)


def _active_tiles(make_tiles, config, height, width, tiling):
  """(vertical, horizontal) tiles, or None if a single one is enough."""
  if not tiling:
    return None
  vertical, horizontal = make_tiles(config)
  if height <= vertical.size and width <= horizontal.size:
    return None
  return vertical, horizontal


def _run(run, x_bthwc, chunk, tiles):
  def run_video(x_bthwc):
    return run_chunks(run, x_bthwc, chunk)

  if tiles is None:
    return run_video(x_bthwc)
  return run_tiles(run_video, x_bthwc, *tiles)
