"""Motion of blocks of pixels between consecutive frames, by full search.

Each block of a frame is compared with the next one at all displacements up to
a few pixels, and moves by the one at which it differs least. Frames are shrunk
before, so that it takes little time and sees no compression noise.

Legend: T frames, H height, W width (3: RGB), P pairs of consecutive frames,
Y by X pixels of shrunk frames, M by N blocks, D displacements.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

# In pixels of shrunk frames, whose shorter side has fewer than twice _SIDE.
_SIDE = 64
_BLOCK = 8
_RADIUS = 6
# A block stays where it is unless it fits better elsewhere by this much, in
# levels of 255 per pixel: noise and flat areas do not move.
_LEAST_GAIN = 1.0
# ITU-R BT.601.
_LUMA = (0.299, 0.587, 0.114)


def _displacements() -> np.ndarray:
  """(y, x) in pixels, the shortest first: int32 [D, 2]."""
  axis = np.arange(-_RADIUS, _RADIUS + 1, dtype=np.int32)
  offsets_d2 = np.stack(np.meshgrid(axis, axis, indexing='ij'), -1)
  offsets_d2 = offsets_d2.reshape(-1, 2)
  return offsets_d2[np.argsort((offsets_d2**2).sum(axis=1), kind='stable')]


def mean_and_p95(frames_thw3: np.ndarray) -> tuple[float, float]:
  """Mean and 95th percentile of the motion of all blocks.

  Args:
    frames_thw3: uint8 [T, H, W, 3], T > 1.

  Returns:
    Lengths per frame, as fractions of the shorter side.
  """
  lengths_pmn = block_lengths(frames_thw3)
  return float(lengths_pmn.mean()), float(np.quantile(lengths_pmn, 0.95))


def block_lengths(frames_thw3: np.ndarray) -> np.ndarray:
  """How far each block moves, [P, M, N], as fractions of the shorter side."""
  side = min(frames_thw3.shape[1:3])
  shrink = max(1, side // _SIDE)
  lengths_pmn = _block_lengths(frames_thw3, shrink=shrink)
  return np.asarray(lengths_pmn) * shrink / side


@functools.partial(jax.jit, static_argnames='shrink')
def _block_lengths(frames_thw3: jax.Array, *, shrink: int) -> jax.Array:
  """The same in pixels of shrunk frames."""
  luma_thw = jnp.einsum(
    'thwc,c->thw', frames_thw3.astype(jnp.float32), jnp.array(_LUMA)
  )
  luma_tyx = _block_means(luma_thw, shrink)
  now_pyx, next_pyx = luma_tyx[:-1], luma_tyx[1:]
  margin = ((0, 0), (_RADIUS, _RADIUS), (_RADIUS, _RADIUS))
  next_pyx = jnp.pad(next_pyx, margin, mode='edge')
  block = min(_BLOCK, *now_pyx.shape[1:])

  def error(offset_2):
    start = (0, *(offset_2 + _RADIUS))
    moved_pyx = jax.lax.dynamic_slice(next_pyx, start, now_pyx.shape)
    return _block_means(jnp.abs(moved_pyx - now_pyx), block)

  def search(best, offset_2):
    error_pmn, length_pmn = best
    new_pmn = error(offset_2)
    is_better = new_pmn < error_pmn
    length = jnp.sqrt(jnp.sum(jnp.square(offset_2.astype(jnp.float32))))
    return (
      jnp.where(is_better, new_pmn, error_pmn),
      jnp.where(is_better, length, length_pmn),
    ), None

  none, *others = _displacements()
  rest_pmn = error(jnp.asarray(none)) - _LEAST_GAIN
  (_, lengths_pmn), _ = jax.lax.scan(
    search, (rest_pmn, jnp.zeros_like(rest_pmn)), jnp.asarray(others)
  )
  return lengths_pmn


def _block_means(images_phw: jax.Array, size: int) -> jax.Array:
  """Means of squares of `size` pixels; what is left at the edges is dropped."""
  num, height, width = images_phw.shape
  rows, columns = height // size, width // size
  cut = images_phw[:, : rows * size, : columns * size]
  blocks = cut.reshape(num, rows, size, columns, size)
  return blocks.mean(axis=(2, 4))
