"""Diversity of the clips of a prompt: how far they are apart.

The distance of two clips is the root mean square of the difference of their
features. By default those are the colours of a coarse grid of each frame, so
that noise and fine texture do not count; any other features may be given.

Shape suffixes: N clips, D features, T frames, H height, W width; the last axis
of 3 is RGB.
"""

import itertools

import numpy as np

_GRID = 8  # cells along height and width


def grid_features(frames_thw3: np.ndarray) -> np.ndarray:
  """Mean colour of each cell of a grid [D], in [0, 1], of uint8 frames."""
  cells = frames_thw3.astype(np.float32) / 255
  for axis in (1, 2):
    size = cells.shape[axis]
    num_cells = min(_GRID, size)
    edges = np.arange(num_cells + 1) * size // num_cells
    sums = np.add.reduceat(cells, edges[:-1], axis=axis)
    widths = np.diff(edges)
    cells = sums / np.expand_dims(widths, [i for i in range(4) if i != axis])
  return cells.ravel()


def pairwise_distance(features_nd: np.ndarray) -> float | None:
  """Mean distance of all pairs of clips; None if there are fewer than two."""
  distances = [
    np.sqrt(np.mean((one_d - other_d) ** 2))
    for one_d, other_d in itertools.combinations(features_nd, 2)
  ]
  return float(np.mean(distances)) if distances else None
