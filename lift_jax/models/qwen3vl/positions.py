"""Positions of patches and tokens in Qwen3-VL.

Tokens have three positions: time, row and column (interleaved MRoPE, arXiv
2511.21631). In a text all three count its tokens. The tokens of a pair of
frames start where the text before them ended: they share a time, and have their
own rows and columns. The next text continues after the largest of these.

Legend: B clips, N patches of a pair of frames or tokens of a prompt, P pairs of
frames, K width of a head.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from lift_jax.models.qwen3vl.config import MERGE_SIZE


def patch_positions(grid_b2: jax.Array, num_patches: int) -> jax.Array:
  """Row and column, int32 [B, N, 2], of the patches of a pair of frames.

  Args:
    grid_b2: int32 [B, 2], rows and columns of patches.
    num_patches: their product.
  """
  number_1n = jnp.arange(num_patches, dtype=jnp.int32)[None]
  block_1n, inside_1n = jnp.divmod(number_1n, MERGE_SIZE**2)
  block_columns_b1 = grid_b2[:, 1:] // MERGE_SIZE
  row_bn = block_1n // block_columns_b1 * MERGE_SIZE + inside_1n // MERGE_SIZE
  column_bn = block_1n % block_columns_b1 * MERGE_SIZE + inside_1n % MERGE_SIZE
  return jnp.stack([row_bn, column_bn], axis=-1)


def token_positions(is_video_bn: jax.Array, grid_bp2: jax.Array) -> jax.Array:
  """Time, row and column, int32 [B, N, 3], of the tokens of prompts.

  Args:
    is_video_bn: bool [B, N]; the tokens of a pair of frames are adjacent, and
      there is text between those of two pairs.
    grid_bp2: int32 [B, P, 2], rows and columns of tokens of each pair.
  """
  index_1n = jnp.arange(is_video_bn.shape[1], dtype=jnp.int32)[None]
  before_bn = jnp.pad(is_video_bn[:, :-1], ((0, 0), (1, 0)))
  is_first_bn = is_video_bn & ~before_bn
  # The pair of a token, or the last one before it; -1 if there is none.
  pair_bn = jnp.cumsum(is_first_bn, axis=1) - 1
  known_bn = jnp.maximum(pair_bn, 0)
  grid_bn2 = jnp.take_along_axis(grid_bp2, known_bn[:, :, None], axis=1)

  # Text after pairs of frames is moved by the larger side of each of them.
  sides_bp = jnp.cumsum(jnp.max(grid_bp2, axis=-1), axis=1)
  moved_bn = jnp.take_along_axis(sides_bp, known_bn, axis=1)
  moved_bn = jnp.where(pair_bn < 0, 0, moved_bn)
  own_side_bn = jnp.where(is_video_bn, jnp.max(grid_bn2, axis=-1), 0)
  is_text_bn = ~is_video_bn
  num_texts_bn = jnp.cumsum(is_text_bn, axis=1) - is_text_bn
  start_bn = num_texts_bn + moved_bn - own_side_bn

  first_bn = jax.lax.cummax(jnp.where(is_first_bn, index_1n, 0), axis=1)
  inside_bn = jnp.where(is_video_bn, index_1n - first_bn, 0)
  row_bn, column_bn = jnp.divmod(inside_bn, grid_bn2[..., 1])
  positions = [start_bn, start_bn + row_bn, start_bn + column_bn]
  return jnp.stack(positions, axis=-1).astype(jnp.int32)


def rotary_axes(sections: Sequence[int]) -> np.ndarray:
  """The axis, 0 to 2, whose position turns each rotary pair: [K / 2].

  Time, row and column alternate, until the sections of rows and columns end;
  time has the rest.

  Args:
    sections: number of pairs of each axis.
  """
  axis_k = np.zeros(sum(sections), np.int32)
  for axis in (1, 2):
    axis_k[axis : 3 * sections[axis] : 3] = axis
  return axis_k
