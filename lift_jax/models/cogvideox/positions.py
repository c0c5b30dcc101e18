"""Position embeddings: the sin-cos table of 2B and the rotary ones of 5B.

Each table consists of three small ones, for frame, row and column, computed in
fp64 on the host and broadcast to the grid on the device: at full size, the full
table of 2B is 135 MB, which must not become a constant of the program.

F frames  R rows  C columns  N = F * R * C video tokens in this order
"""

import jax
import jax.numpy as jnp
import numpy as np

_THETA = 10_000.0
_FRAME, _ROW, _COLUMN = range(3)


def sincos_table(
  frames: int,
  rows: int,
  columns: int,
  width: int,
  spatial_scale: float,
  temporal_scale: float,
) -> jax.Array:
  """Fixed position embeddings [N, width] in fp32.

  The first quarter of the width encodes the frame, the next three eighths the
  column, the last three eighths the row; each part is [sin, cos] of
  position * theta^(-k / half).
  """

  def part(positions, size):
    rates = _THETA ** (-np.arange(size // 2, dtype=np.float64) / (size // 2))
    angles = positions[:, None] * rates[None, :]
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)

  temporal, spatial = width // 4, width * 3 // 8
  return _broadcast(
    (frames, rows, columns),
    (_FRAME, part(np.arange(frames) / temporal_scale, temporal)),
    (_COLUMN, part(np.arange(columns) / spatial_scale, spatial)),
    (_ROW, part(np.arange(rows) / spatial_scale, spatial)),
  )


def rotary_tables(
  frames: int,
  rows: int,
  columns: int,
  head_dim: int,
  base_rows: int,
  base_columns: int,
) -> tuple[jax.Array, jax.Array]:
  """Cosines and sines [N, head_dim] of rotary embeddings in fp32.

  A quarter of the dimensions encodes the frame, three eighths the row, three
  eighths the column; each angle is used by two neighbouring dimensions. Row and
  column positions are on the grid that the model was trained at: the new grid
  is scaled to fit into it, keeping its aspect ratio, and centred.
  """
  (top, left), (bottom, right) = _fitted(rows, columns, base_rows, base_columns)

  def part(positions, size):
    rates = _THETA ** (-np.arange(0, size, 2, dtype=np.float64) / size)
    return np.repeat(positions[:, None] * rates[None, :], 2, axis=1)

  spatial = head_dim * 3 // 8
  row_positions = np.linspace(top, bottom * (rows - 1) / rows, rows)
  column_positions = np.linspace(left, right * (columns - 1) / columns, columns)
  angles = (
    (_FRAME, part(np.arange(frames), head_dim // 4)),
    (_ROW, part(row_positions, spatial)),
    (_COLUMN, part(column_positions, spatial)),
  )
  cos, sin = (
    _broadcast(
      (frames, rows, columns),
      *((axis, function(angle)) for axis, angle in angles),
    )
    for function in (np.cos, np.sin)
  )
  return cos, sin


def _broadcast(
  grid: tuple[int, int, int], *parts: tuple[int, np.ndarray]
) -> jax.Array:
  """Tables of one axis each, broadcast to the grid and concatenated."""
  columns = []
  for axis, table in parts:
    shape = [1, 1, 1, table.shape[1]]
    shape[axis] = table.shape[0]
    column = jnp.asarray(table, jnp.float32).reshape(shape)
    columns.append(jnp.broadcast_to(column, (*grid, table.shape[1])))
  x = jnp.concatenate(columns, axis=-1)
  return x.reshape(-1, x.shape[-1])


def _fitted(rows: int, columns: int, base_rows: int, base_columns: int):
  """Corners of the largest centred grid of this aspect in the base grid."""
  if rows / columns > base_rows / base_columns:
    height, width = base_rows, round(base_rows / rows * columns)
  else:
    height, width = round(base_columns / columns * rows), base_columns
  top = round((base_rows - height) / 2)
  left = round((base_columns - width) / 2)
  return (top, left), (top + height, left + width)
