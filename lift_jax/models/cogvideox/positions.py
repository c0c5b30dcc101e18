"""Where a token stands: the sin-cos table of 2B and the rotations of 5B.

N video tokens in the order frame, row, column.
"""

import numpy as np

_THETA = 10_000.0


def sincos_table(
  frames: int,
  rows: int,
  columns: int,
  width: int,
  spatial_scale: float,
  temporal_scale: float,
) -> np.ndarray:
  """Fixed position embeddings [N, width] in fp32, built in fp64.

  The first quarter of the width tells the frame, the next three eighths the
  column, the last three eighths the row; each part is [sin, cos] of
  position * theta^(-k / half).
  """

  def part(positions, size):
    rates = _THETA ** (-np.arange(size // 2, dtype=np.float64) / (size // 2))
    angles = positions[:, None].astype(np.float64) * rates[None, :]
    return np.concatenate([np.sin(angles), np.cos(angles)], axis=1)

  temporal, spatial = width // 4, width * 3 // 4
  frame, row, column = np.meshgrid(
    np.arange(frames) / temporal_scale,
    np.arange(rows) / spatial_scale,
    np.arange(columns) / spatial_scale,
    indexing='ij',
  )
  return np.concatenate(
    [
      part(frame.ravel(), temporal),
      part(column.ravel(), spatial // 2),
      part(row.ravel(), spatial // 2),
    ],
    axis=1,
  ).astype(np.float32)


def rotary_table(
  frames: int,
  rows: int,
  columns: int,
  head_dim: int,
  base_rows: int,
  base_columns: int,
) -> tuple[np.ndarray, np.ndarray]:
  """Cosines and sines [N, head_dim] of rotary embeddings in fp32.

  A quarter of the dimensions turns with the frame, three eighths with the row,
  three eighths with the column; each angle serves two neighbouring dimensions.
  Rows and columns are counted on the grid that the model was trained at: the
  new grid is fitted into it, aspect kept, and centred.
  """
  (top, left), (bottom, right) = _fitted(rows, columns, base_rows, base_columns)
  frame, row, column = np.meshgrid(
    np.arange(frames, dtype=np.float64),
    np.linspace(top, bottom * (rows - 1) / rows, rows),
    np.linspace(left, right * (columns - 1) / columns, columns),
    indexing='ij',
  )

  def part(positions, size):
    rates = _THETA ** (-np.arange(0, size, 2, dtype=np.float64) / size)
    return np.repeat(positions.ravel()[:, None] * rates[None, :], 2, axis=1)

  spatial = head_dim // 8 * 3
  angles = np.concatenate(
    [part(frame, head_dim // 4), part(row, spatial), part(column, spatial)],
    axis=1,
  )
  return np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32)


def _fitted(rows: int, columns: int, base_rows: int, base_columns: int):
  """Corners of the largest grid of this aspect inside the base grid."""
  if rows / columns > base_rows / base_columns:
    height, width = base_rows, round(base_rows / rows * columns)
  else:
    height, width = round(base_columns / columns * rows), base_columns
  top = round((base_rows - height) / 2)
  left = round((base_columns - width) / 2)
  return (top, left), (top + height, left + width)
